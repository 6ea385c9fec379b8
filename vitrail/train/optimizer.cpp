#include "vitrail/train/optimizer.h"

#include <algorithm>
#include <cmath>

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/zeros.h>

#include "vitrail/core/error.h"
#include "vitrail/kernels/flat.h"
#include "vitrail/parallel/device.h"

namespace vitrail::train {
namespace {

/// Elements a thread takes at a time: several cache blocks, so that its start does not count.
constexpr int64_t kGrain = 1 << 16;

int64_t pieces(int64_t count) { return (count + kernels::kSumPiece - 1) / kernels::kSumPiece; }

/// Sum of squares whose bits do not depend on the number of threads.
void sum_squares_on_host(const at::Tensor& x, at::Tensor& partials, at::Tensor& sum) {
  const float* data = x.data_ptr<float>();
  double* part = partials.data_ptr<double>();
  const int64_t count = x.numel();
  at::parallel_for(0, pieces(count), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t first = i * kernels::kSumPiece;
      part[i] = kernels::sum_squares_cpu(data + first, std::min(kernels::kSumPiece, count - first));
    }
  });
  double total = 0;
  for (int64_t i = 0; i < pieces(count); ++i) total += part[i];
  *sum.data_ptr<double>() = total;
}

}  // namespace

double layer_share(const parallel::Unit& unit, int64_t depth, double decay) {
  if (unit.name == "embed") return std::pow(decay, static_cast<double>(depth + 1));
  if (!unit.name.starts_with("blocks.")) return 1.0;
  return std::pow(decay, static_cast<double>(depth - unit.block));
}

Optimizer::Optimizer(parallel::UnitSet& units, const config::Optimizer& options,
                     std::optional<double> ema_decay)
    : units_(units), options_(options), ema_decay_(ema_decay), segments_(segments()) {
  const bool adamw = options_.kind == "adamw";
  VT_REQUIRE(ConfigError, !adamw || options_.betas.size() == 2,
             "[optimizer] train.optimizer.betas must hold 2 numbers but holds {}",
             options_.betas.size());
  const at::NoGradGuard no_grad;
  first_ = units_.allocate();
  if (adamw) second_ = units_.allocate();
  if (ema_decay_) {
    ema_ = units_.allocate();
    ema_.copy_(units_.master());
  }
  const auto options64 = units_.master().options().dtype(at::kDouble);
  partials_ = at::zeros({std::max(kernels::kSumPartials, pieces(units_.count()))}, options64);
  sum_ = at::zeros({}, options64);
  norm_ = at::zeros({}, units_.master().options());
  scale_ = at::zeros({}, units_.master().options());
}

GradientNorm Optimizer::gradient_norm(double max_norm) {
  const at::Tensor& gradient = units_.gradient();
  const auto most = static_cast<float>(max_norm);
  double* sum = sum_.data_ptr<double>();
  float* norm = norm_.data_ptr<float>();
  float* scale = scale_.data_ptr<float>();
  if (gradient.is_cuda()) {
    void* stream = parallel::current_stream(gradient.device());
    kernels::sum_squares(gradient.data_ptr<float>(), units_.count(), partials_.data_ptr<double>(),
                         sum, stream);
    kernels::clip_scale(sum, most, norm, scale, stream);
  } else {
    sum_squares_on_host(gradient, partials_, sum_);
    kernels::clip_scale_cpu(sum, most, norm, scale);
  }
  return {norm_, scale_};
}

std::vector<Optimizer::Segment> Optimizer::segments() const {
  if (!options_.layer_decay) return {{0, units_.count(), 1.0}};
  int64_t depth = 0;
  for (const parallel::Unit& unit : units_.units()) depth += unit.name.starts_with("blocks.");
  std::vector<Segment> found;
  for (const parallel::Unit& unit : units_.units()) {
    const double share = layer_share(unit, depth, *options_.layer_decay);
    if (found.empty() || found.back().share != share)
      found.push_back({unit.offset, unit.count, share});
    else
      found.back().count = unit.offset + unit.count - found.back().offset;
  }
  return found;
}

kernels::Arena Optimizer::arena(const Segment& segment) const {
  const int64_t first = segment.offset;
  kernels::Arena arena;
  arena.master = units_.master().data_ptr<float>() + first;
  arena.gradient = units_.gradient().data_ptr<float>() + first;
  arena.decay = units_.decay_mask().data_ptr<uint8_t>() + first;
  arena.first = first_.data_ptr<float>() + first;
  if (second_.defined()) arena.second = second_.data_ptr<float>() + first;
  if (ema_.defined()) arena.ema = ema_.data_ptr<float>() + first;
  if (units_.weights().scalar_type() == at::kBFloat16)
    arena.weights_bf16 = static_cast<uint16_t*>(units_.weights().data_ptr()) + first;
  arena.count = segment.count;
  return arena;
}

void Optimizer::step(double learning_rate, int64_t update_count, const GradientNorm& norm) {
  for (const Segment& segment : segments_)
    update(segment, learning_rate * segment.share, update_count, norm.scale.data_ptr<float>());
}

void Optimizer::update(const Segment& segment, double learning_rate, int64_t update_count,
                       const float* scale) {
  const kernels::Arena flat = arena(segment);
  const double ema_decay = ema_decay_.value_or(0.0);
  const auto run = [&](const auto& options, auto on_device, auto on_range) {
    if (units_.master().is_cuda())
      on_device(flat, options, scale, parallel::current_stream(units_.master().device()));
    else
      at::parallel_for(0, flat.count, kGrain, [&](int64_t begin, int64_t end) {
        on_range(flat, options, scale, begin, end);
      });
  };
  if (options_.kind == "adamw")
    run(kernels::AdamwStep{learning_rate, options_.betas[0], options_.betas[1], options_.eps,
                           options_.weight_decay, ema_decay, update_count},
        kernels::adamw, kernels::adamw_range);
  else
    run(kernels::SgdStep{learning_rate, options_.momentum, options_.weight_decay, ema_decay},
        kernels::sgd, kernels::sgd_range);
}

std::vector<Optimizer::State> Optimizer::states() {
  std::vector<State> all;
  if (options_.kind == "adamw")
    all = {{"exp_avg", first_}, {"exp_avg_sq", second_}};
  else
    all = {{"momentum", first_}};
  if (ema_.defined()) all.push_back({"ema", ema_});
  return all;
}

}  // namespace vitrail::train
