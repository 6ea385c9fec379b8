#include "vitrail/train/optimizer.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <type_traits>

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
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
  const bool is_on_host = engine_ && !(engine_->options().offload == "none");
  VT_REQUIRE(ConfigError, options_.state == "fp32" || (is_adamw() && !is_on_host),
             "[optimizer] train.optimizer.state={} needs train.optimizer.kind=adamw and "
             "parallel.offload=none but they are {} and {}",
             options_.state.value, options_.kind.value,
             is_on_host ? engine_->options().offload.value : "none");
  const at::NoGradGuard no_grad;
  if (is_on_host)
    make_host_optimizer();
  else
    allocate_state();
  allocate_pace();
  const auto options32 = units_.gradient().options(), options64 = options32.dtype(at::kDouble);
  partials_ = at::zeros({std::max(kernels::kSumPartials, pieces(units_.kept_count()))}, options64);
  sum_ = at::zeros({}, options64);
  norm_ = at::zeros({}, options32);
  scale_ = at::zeros({}, options32);
}

void Optimizer::allocate_state() {
  if (options_.state == "fp32") {
    first_ = units_.allocate();
    if (is_adamw()) second_ = units_.allocate();
  } else {
    compact_ = std::make_unique<CompactMoments>(units_, options_.state.value);
  }
  if (!ema_decay_) return;
  ema_ = units_.allocate();
  ema_.copy_(units_.master());
}

void Optimizer::allocate_pace() {
  const auto bytes = units_.gradient().options().dtype(at::kByte);
  pace_ = at::zeros({sizeof(kernels::Pace)}, bytes);
  factors_ =
      at::zeros({static_cast<int64_t>(segments_.size() * sizeof(kernels::AdamwFactors))}, bytes);
  at::Tensor shares = at::empty({static_cast<int64_t>(segments_.size())}, at::kDouble);
  for (size_t i = 0; i < segments_.size(); ++i) shares.data_ptr<double>()[i] = segments_[i].share;
  shares_ = shares.to(bytes.device());
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
  if (clip_)
    clip_(sum_, max_norm, norm_, scale_);
  else if (gradient.is_cuda())
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
  if (first_.defined()) arena.first = first_.data_ptr<float>() + first;
  if (second_.defined()) arena.second = second_.data_ptr<float>() + first;
  if (ema_.defined()) arena.ema = ema_.data_ptr<float>() + first;
  // Divided weights are rounded on their way to the other ranks.
  if (!units_.is_divided() && units_.weights().scalar_type() == at::kBFloat16)
    arena.weights_bf16 = static_cast<uint16_t*>(units_.weights().data_ptr()) + first;
  arena.count = segment.count;
  return arena;
}

kernels::Pace* Optimizer::pace() const { return static_cast<kernels::Pace*>(pace_.data_ptr()); }

at::Tensor Optimizer::step_place() const {
  return pace_.view(at::kInt).narrow(0, offsetof(kernels::Pace, step) / sizeof(int32_t), 1);
}

void Optimizer::begin_step(const StepPlace& place) {
  place_ = place;
  if (pace_.is_cuda()) {
    kernels::set_pace(pace(), place.learning_rate, place.step,
                      parallel::current_stream(pace_.device()));
  } else {
    pace()->learning_rate = place.learning_rate;
    pace()->step = place.step;
  }
}

void Optimizer::set_update_count(int64_t updates) {
  place_.updates = updates;
  pace_.view(at::kLong)
      .narrow(0, offsetof(kernels::Pace, updates) / sizeof(int64_t), 1)
      .fill_(updates);
}

void Optimizer::step(double learning_rate, int64_t update_count, const GradientNorm& norm) {
  set_update_count(update_count - 1);
  begin_step({learning_rate, place_.step, update_count - 1});
  update(norm);
}

void Optimizer::update(const GradientNorm& norm) {
  given_.clear();
  const auto* scale = norm.scale.data_ptr<float>();
  if (host_) {
    std::vector<parallel::HostSegment> rates;
    for (const Segment& segment : segments_)
      rates.push_back({segment.offset, segment.count, place_.learning_rate * segment.share});
    host_->step(rates, place_.updates + 1, norm.scale);
  } else {
    if (is_adamw())
      begin_update(adamw_rule(), static_cast<kernels::AdamwFactors*>(factors_.data_ptr()), scale);
    else
      begin_update(sgd_rule(), static_cast<kernels::SgdFactors*>(factors_.data_ptr()), scale);
    for (size_t i = 0; i < segments_.size(); ++i)
      compact_ ? update_compact(i, scale) : update_segment(i, scale);
    // Weights in bf16 are written by the update itself.
    if (!units_.is_divided() && units_.weights().scalar_type() == at::kHalf)
      units_.publish_master();
  }
  if (engine_) engine_->weights_changed();
}

kernels::AdamwStep Optimizer::adamw_rule() const {
  return {.beta1 = options_.betas[0],
          .beta2 = options_.betas[1],
          .eps = options_.eps,
          .weight_decay = options_.weight_decay,
          .ema_decay = ema_decay_.value_or(0.0)};
}

kernels::SgdStep Optimizer::sgd_rule() const {
  return {.momentum = options_.momentum,
          .weight_decay = options_.weight_decay,
          .ema_decay = ema_decay_.value_or(0.0)};
}

/// Counts the update and writes the constants of each segment, where the gradient is.
template <class Rule, class Factors>
void Optimizer::begin_update(const Rule& rule, Factors* factors, const float* scale) {
  const auto* shares = shares_.data_ptr<double>();
  const auto count = static_cast<int64_t>(segments_.size());
  constexpr bool kAdamw = std::is_same_v<Factors, kernels::AdamwFactors>;
  if (pace_.is_cuda()) {
    void* stream = parallel::current_stream(pace_.device());
    if constexpr (kAdamw)
      kernels::begin_adamw(pace(), rule, shares, count, scale, factors, stream);
    else
      kernels::begin_sgd(pace(), rule, shares, count, scale, factors, stream);
  } else if constexpr (kAdamw) {
    kernels::begin_adamw_cpu(pace(), rule, shares, count, scale, factors);
  } else {
    kernels::begin_sgd_cpu(pace(), rule, shares, count, scale, factors);
  }
}

void Optimizer::update_segment(size_t index, const float* scale) {
  const kernels::Arena flat = arena(segments_[index]);
  const auto run = [&](const auto* factors, auto on_device, auto on_range) {
    if (units_.master().is_cuda())
      on_device(flat, factors + index, scale, parallel::current_stream(units_.master().device()));
    else
      at::parallel_for(0, flat.count, kGrain, [&](int64_t begin, int64_t end) {
        on_range(flat, factors[index], scale, begin, end);
      });
  };
  if (is_adamw())
    run(
        static_cast<const kernels::AdamwFactors*>(factors_.const_data_ptr()),
        [](auto&&... a) { kernels::adamw_by(a...); },
        [](auto&&... a) { kernels::adamw_range_by(a...); });
  else
    run(
        static_cast<const kernels::SgdFactors*>(factors_.const_data_ptr()),
        [](auto&&... a) { kernels::sgd_by(a...); },
        [](auto&&... a) { kernels::sgd_range_by(a...); });
}

void Optimizer::update_compact(size_t index, const float* scale) {
  const Segment& segment = segments_[index];
  const kernels::Arena flat = arena(segment);
  kernels::CompactArena compact;
  compact.master = flat.master;
  compact.gradient = flat.gradient;
  compact.decay = flat.decay;
  compact.ema = flat.ema;
  compact.weights_bf16 = flat.weights_bf16;
  compact_->put_into(compact, segment.offset, segment.count);
  const auto* factors =
      static_cast<const kernels::AdamwFactors*>(factors_.const_data_ptr()) + index;
  if (units_.master().is_cuda()) {
    kernels::compact_adamw(compact, factors, pace(), kRoundingSeed, scale,
                           parallel::current_stream(units_.master().device()));
    return;
  }
  constexpr int64_t kBlocks = kGrain / kernels::kCompactBlock;
  at::parallel_for(0, segment.count / kernels::kCompactBlock, kBlocks,
                   [&](int64_t begin, int64_t end) {
                     kernels::compact_adamw_range(compact, *factors, pace()->updates, kRoundingSeed,
                                                  scale, begin, end);
                   });
}

std::vector<Optimizer::State> Optimizer::states() {
  std::vector<State> all;
  if (host_) {
    for (const parallel::HostOptimizer::State& state : host_->states())
      all.push_back({state.name, state.arena});
    if (engine_->options().offload == "nvme") given_ = all;
    return all;
  }
  if (compact_) {
    const CompactMoments::Expanded moments = compact_->expand();
    all = {{"exp_avg", moments.first}, {"exp_avg_sq", moments.second}};
    given_ = all;
  } else if (is_adamw()) {
    all = {{"exp_avg", first_}, {"exp_avg_sq", second_}};
  } else {
    all = {{"momentum", first_}};
  }
  if (ema_.defined()) all.push_back({"ema", ema_});
  return all;
}

void Optimizer::restored() {
  if (compact_ && !given_.empty())
    compact_->compact({given_[0].arena, given_[1].arena});
  else
    for (const State& state : given_) host_->write_state({state.name, state.arena});
  given_.clear();
}

int64_t Optimizer::moment_bytes() const {
  if (compact_) return compact_->bytes();
  size_t bytes = 0;
  for (const at::Tensor& moment : {first_, second_})
    if (moment.defined()) bytes += moment.nbytes();
  return static_cast<int64_t>(bytes);
}

at::Tensor Optimizer::ema() {
  if (!host_ || !ema_decay_) return ema_;
  return host_->states().back().arena;
}

}  // namespace vitrail::train
