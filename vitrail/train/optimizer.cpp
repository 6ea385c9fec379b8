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
void sum_squares_on_host(const at::Tensor& x, const uint8_t* counted, at::Tensor& partials,
                         at::Tensor& sum) {
  const float* data = x.data_ptr<float>();
  double* part = partials.data_ptr<double>();
  const int64_t count = x.numel();
  at::parallel_for(0, pieces(count), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t first = i * kernels::kSumPiece;
      part[i] = kernels::sum_squares_cpu(data + first, std::min(kernels::kSumPiece, count - first),
                                         counted ? counted + first / kernels::kFlagGroup : nullptr);
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

Optimizer::Optimizer(parallel::Engine& engine, const config::Optimizer& options,
                     std::optional<double> ema_decay)
    : Optimizer(&engine, engine.units(), options, ema_decay) {}

Optimizer::Optimizer(parallel::UnitSet& units, const config::Optimizer& options,
                     std::optional<double> ema_decay)
    : Optimizer(nullptr, units, options, ema_decay) {
  VT_CHECK(!units.is_divided(), "[optimizer] divided units need the engine that divides them");
}

Optimizer::Optimizer(parallel::Engine* engine, parallel::UnitSet& units,
                     const config::Optimizer& options, std::optional<double> ema_decay)
    : engine_(engine),
      units_(units),
      options_(options),
      ema_decay_(ema_decay),
      segments_(segments()) {
  VT_REQUIRE(ConfigError, !(options_.kind == "adamw") || options_.betas.size() == 2,
             "[optimizer] train.optimizer.betas must hold 2 numbers but holds {}",
             options_.betas.size());
  const at::NoGradGuard no_grad;
  if (engine_ && !(engine_->options().offload == "none"))
    make_host_optimizer();
  else
    allocate_state();
  const auto options32 = units_.gradient().options(), options64 = options32.dtype(at::kDouble);
  partials_ = at::zeros({std::max(kernels::kSumPartials, pieces(units_.kept_count()))}, options64);
  sum_ = at::zeros({}, options64);
  norm_ = at::zeros({}, options32);
  scale_ = at::zeros({}, options32);
}

void Optimizer::allocate_state() {
  first_ = units_.allocate();
  if (options_.kind == "adamw") second_ = units_.allocate();
  if (!ema_decay_) return;
  ema_ = units_.allocate();
  ema_.copy_(units_.master());
}

/// Gradients begin their way to the host as soon as they are reduced.
void Optimizer::make_host_optimizer() {
  const config::Parallel& parallel = engine_->options();
  parallel::HostOptimizerOptions options;
  options.update = options_;
  options.ema_decay = ema_decay_;
  if (parallel.offload == "nvme") options.folder = parallel.offload_folder;
  options.rank = engine_->groups().mesh().world().rank();
  options.copies = engine_->device().is_cuda();
  if (parallel::HostWeights* weights = units_.host_weights()) {
    options.published_on_host = true;
    options.before_publish = [weights](int unit) { weights->wait(unit); };
  }
  host_ = std::make_unique<parallel::HostOptimizer>(
      parallel::HostArenas{units_.master(), units_.decay_mask(), units_.gradient(),
                           units_.published_pieces()},
      units_.kept_ranges(), options, engine_->device());
  engine_->on_gradient([host = host_.get()](size_t unit, void* stream) {
    host->gradient_ready(static_cast<int>(unit), stream);
  });
}

Optimizer::~Optimizer() {
  if (host_) engine_->on_gradient({});
}

GradientNorm Optimizer::gradient_norm(double max_norm) {
  const at::Tensor& gradient = units_.gradient();
  const at::Tensor mask = engine_ ? engine_->counted() : at::Tensor();
  const uint8_t* counted = mask.defined() ? mask.data_ptr<uint8_t>() : nullptr;
  const auto most = static_cast<float>(max_norm);
  double* sum = sum_.data_ptr<double>();
  float* norm = norm_.data_ptr<float>();
  float* scale = scale_.data_ptr<float>();
  void* stream = parallel::current_stream(gradient.device());
  if (gradient.is_cuda())
    kernels::sum_squares(gradient.data_ptr<float>(), units_.kept_count(),
                         partials_.data_ptr<double>(), sum, stream, counted);
  else
    sum_squares_on_host(gradient, counted, partials_, sum_);
  if (engine_) engine_->sum_over_pieces(sum_);
  if (gradient.is_cuda())
    kernels::clip_scale(sum, most, norm, scale, stream);
  else
    kernels::clip_scale_cpu(sum, most, norm, scale);
  return {norm_, scale_};
}

std::vector<Optimizer::Segment> Optimizer::segments() const {
  if (!options_.layer_decay) return {{0, units_.kept_count(), 1.0}};
  int64_t depth = 0;
  for (const parallel::Unit& unit : units_.units())
    if (unit.name.starts_with("blocks."))
      depth = unit.stack->depth();  // also where others hold some
  std::vector<Segment> found;
  for (const parallel::Unit& unit : units_.units()) {
    const double share = layer_share(unit, depth, *options_.layer_decay);
    if (found.empty() || found.back().share != share)
      found.push_back({unit.kept_offset, unit.kept_count, share});
    else
      found.back().count = unit.kept_offset + unit.kept_count - found.back().offset;
  }
  return found;
}

kernels::Arena Optimizer::arena(const Segment& segment) const {
  const int64_t first = segment.offset;
  kernels::Arena arena;
  arena.master = units_.master().data_ptr<float>() + first;
  arena.gradient = units_.gradient().data_ptr<float>() + first;
  arena.decay = units_.decay_mask().data_ptr<uint8_t>() + first / kernels::kFlagGroup;
  arena.first = first_.data_ptr<float>() + first;
  if (second_.defined()) arena.second = second_.data_ptr<float>() + first;
  if (ema_.defined()) arena.ema = ema_.data_ptr<float>() + first;
  // Divided weights are rounded on their way to the other ranks.
  if (!units_.is_divided() && units_.weights().scalar_type() == at::kBFloat16)
    arena.weights_bf16 = static_cast<uint16_t*>(units_.weights().data_ptr()) + first;
  arena.count = segment.count;
  return arena;
}

void Optimizer::step(double learning_rate, int64_t update_count, const GradientNorm& norm) {
  if (host_) {
    std::vector<parallel::HostSegment> rates;
    for (const Segment& segment : segments_)
      rates.push_back({segment.offset, segment.count, learning_rate * segment.share});
    host_->step(rates, update_count, norm.scale);
  } else {
    for (const Segment& segment : segments_)
      update(segment, learning_rate * segment.share, update_count, norm.scale.data_ptr<float>());
  }
  if (engine_) engine_->weights_changed();
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
  if (host_) {
    for (const parallel::HostOptimizer::State& state : host_->states())
      all.push_back({state.name, state.arena});
    if (engine_->options().offload == "nvme") given_ = all;
    return all;
  }
  if (options_.kind == "adamw")
    all = {{"exp_avg", first_}, {"exp_avg_sq", second_}};
  else
    all = {{"momentum", first_}};
  if (ema_.defined()) all.push_back({"ema", ema_});
  return all;
}

void Optimizer::restored() {
  for (const State& state : given_) host_->write_state({state.name, state.arena});
  given_.clear();
}

at::Tensor Optimizer::ema() {
  if (!host_ || !ema_decay_) return ema_;
  return host_->states().back().arena;
}

}  // namespace vitrail::train
