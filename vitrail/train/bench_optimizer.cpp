#include "vitrail/train/bench_optimizer.h"

#include <bit>
#include <cstdlib>
#include <utility>
#include <vector>

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>

#include "vitrail/core/error.h"
#include "vitrail/kernels/compact_adamw.h"
#include "vitrail/kernels/optimizer.h"
#include "vitrail/parallel/device.h"
#include "vitrail/train/bench_timer.h"
#include <nlohmann/json.hpp>

namespace vitrail::train {
namespace {

constexpr int64_t kRuns = 30;
constexpr int64_t kGrain = 1 << 16;

/// Flat state on one device.
struct State {
  at::Tensor master, gradient, first, second, decay, weights, scale;

  State(int64_t count, at::Device device, bool bf16) {
    const auto options = at::TensorOptions().device(device).dtype(at::kFloat);
    master = at::randn({count}, options);
    gradient = at::randn({count}, options);
    first = at::randn({count}, options).mul_(0.1);
    second = at::rand({count}, options).mul_(0.01);
    const int64_t groups = (count + kernels::kFlagGroup - 1) / kernels::kFlagGroup;
    decay = at::ones({groups}, options.dtype(at::kByte));
    scale = at::ones({}, options);
    if (bf16) weights = at::empty({count}, options.dtype(at::kBFloat16));
  }

  State copy_on_host() const {
    State other = *this;
    for (at::Tensor* tensor : {&other.master, &other.gradient, &other.first, &other.second,
                               &other.decay, &other.weights, &other.scale})
      if (tensor->defined()) *tensor = tensor->to(at::kCPU).clone();
    return other;
  }

  kernels::Arena arena() const {
    kernels::Arena arena;
    arena.master = master.data_ptr<float>();
    arena.gradient = gradient.data_ptr<float>();
    arena.decay = decay.data_ptr<uint8_t>();
    arena.first = first.data_ptr<float>();
    arena.second = second.data_ptr<float>();
    if (weights.defined()) arena.weights_bf16 = static_cast<uint16_t*>(weights.data_ptr());
    arena.count = master.numel();
    return arena;
  }
};

void update(const State& state, const kernels::AdamwStep& step) {
  const kernels::Arena arena = state.arena();
  const float* scale = state.scale.data_ptr<float>();
  if (state.master.is_cuda()) {
    kernels::adamw(arena, step, scale, parallel::current_stream(state.master.device()));
    return;
  }
  at::parallel_for(0, arena.count, kGrain, [&](int64_t begin, int64_t end) {
    kernels::adamw_range(arena, step, scale, begin, end);
  });
}

int64_t ulp_distance(float a, float b) {
  const auto ordered = [](float value) {
    const auto bits = std::bit_cast<int32_t>(value);
    return static_cast<int64_t>(bits < 0 ? INT32_MIN - static_cast<int64_t>(bits) : bits);
  };
  return std::llabs(ordered(a) - ordered(b));
}

int64_t worst_ulp(const at::Tensor& device_values, const at::Tensor& expected) {
  const at::Tensor values = device_values.to(at::kCPU);
  int64_t worst = 0;
  for (int64_t i = 0; i < values.numel(); ++i)
    worst =
        std::max(worst, ulp_distance(values.data_ptr<float>()[i], expected.data_ptr<float>()[i]));
  return worst;
}

/// One update by the kernel and one by the plain loop from the same state.
int64_t check_against_plain(State& state, const kernels::AdamwStep& step) {
  const State plain = state.copy_on_host();
  update(state, step);
  kernels::adamw_plain(plain.arena(), step, plain.scale.data_ptr<float>());
  return std::max({worst_ulp(state.master, plain.master), worst_ulp(state.first, plain.first),
                   worst_ulp(state.second, plain.second)});
}

/// Whole blocks of a state, with moments of another type that begin at zero.
struct CompactState {
  State state;
  kernels::StateType type;
  at::Tensor first, second, first_exponent, second_exponent;

  CompactState(const State& from, kernels::StateType type_) : state(from), type(type_) {
    const int64_t blocks = from.master.numel() / kernels::kCompactBlock;
    const auto options = from.master.options();
    const auto moment = options.dtype(type == kernels::StateType::bf16 ? at::kBFloat16 : at::kByte);
    first = at::zeros({blocks * kernels::kCompactBlock}, moment);
    second = at::zeros({blocks * kernels::kCompactBlock}, moment);
    first_exponent = at::zeros({blocks}, options.dtype(at::kChar));
    second_exponent = at::zeros({blocks}, options.dtype(at::kChar));
  }

  kernels::CompactArena arena() const {
    const kernels::Arena whole = state.arena();
    kernels::CompactArena arena;
    arena.type = type;
    arena.master = whole.master;
    arena.gradient = whole.gradient;
    arena.decay = whole.decay;
    arena.weights_bf16 = whole.weights_bf16;
    arena.first = first.data_ptr();
    arena.second_root = second.data_ptr();
    arena.first_exponent = first_exponent.data_ptr<int8_t>();
    arena.second_exponent = second_exponent.data_ptr<int8_t>();
    arena.count = first.numel();
    return arena;
  }
};

constexpr uint64_t kRoundingSeed = 1;

void update(const CompactState& state, const kernels::AdamwStep& step) {
  const kernels::CompactArena arena = state.arena();
  const float* scale = state.state.scale.data_ptr<float>();
  const at::Device device = state.state.master.device();
  if (device.is_cuda())
    return kernels::compact_adamw(arena, step, kRoundingSeed, scale,
                                  parallel::current_stream(device));
  at::parallel_for(0, arena.count / kernels::kCompactBlock, kGrain / kernels::kCompactBlock,
                   [&](int64_t begin, int64_t end) {
                     kernels::compact_adamw_range(arena, step, kRoundingSeed, scale, begin, end);
                   });
}

/// Milliseconds of an update; two updates are checked against the CPU first.
double compact_ms(const State& start, kernels::StateType type, const kernels::AdamwStep& step,
                  int64_t& differ) {
  State copy = start;
  copy.master = start.master.clone();
  const CompactState timed(copy, type), expected(copy.copy_on_host(), type);
  for (int i = 0; i < 2; ++i) {
    update(timed, step);
    update(expected, step);
  }
  differ += timed.state.master.to(at::kCPU).ne(expected.state.master).sum().item<int64_t>();
  return quantile(time_each(copy.master.device(), kRuns, [&] { update(timed, step); }), 0.5);
}

double aten_ms(const State& state, const kernels::AdamwStep& step) {
  const std::vector<at::Tensor> p{state.master}, g{state.gradient}, m{state.first}, v{state.second},
      none;
  const std::vector<at::Tensor> steps{at::ones({}, state.master.options())};
  at::Tensor weights = state.weights;
  const auto work = [&] {
    at::_fused_adamw_(p, g, m, v, none, steps, step.learning_rate, step.beta1, step.beta2,
                      step.weight_decay, step.eps,
                      /*amsgrad=*/false, /*maximize=*/false);
    if (weights.defined()) weights.copy_(state.master);
  };
  work();
  return quantile(time_each(state.master.device(), kRuns, work), 0.5);
}

}  // namespace

double copy_bandwidth(int64_t bytes, at::Device device) {
  const int64_t half = std::max<int64_t>(bytes / 2 / static_cast<int64_t>(sizeof(float)), 1);
  const auto options = at::TensorOptions().device(device).dtype(at::kFloat);
  const at::Tensor from = at::randn({half}, options);
  at::Tensor to = at::empty({half}, options);
  to.copy_(from);
  const double ms = quantile(time_each(device, kRuns, [&] { to.copy_(from); }), 0.5);
  return 2.0 * static_cast<double>(half) * sizeof(float) / ms * 1e-6;
}

OptimizerBench bench_optimizer(int64_t count, at::Device device, bool bf16) {
  VT_CHECK(count > 0, "[bench] --count must be positive but got {}", count);
  const at::NoGradGuard no_grad;
  const kernels::AdamwStep step{.learning_rate = 1e-4, .weight_decay = 0.05, .update_count = 10};
  OptimizerBench result{.device = parallel::device_name(device), .count = count, .bf16 = bf16};
  State state(count, device, bf16);
  result.worst_ulp = check_against_plain(state, step);
  const double bytes =
      static_cast<double>(count) * static_cast<double>(adamw_bytes(bf16, /*ema=*/false));
  result.ms = quantile(time_each(device, kRuns, [&] { update(state, step); }), 0.5);
  result.gigabytes_per_second = bytes / result.ms * 1e-6;
  result.copy_gigabytes_per_second = copy_bandwidth(static_cast<int64_t>(bytes), device);
  result.copy_ratio = result.gigabytes_per_second / result.copy_gigabytes_per_second;
  result.aten_ratio = aten_ms(state, step) / result.ms;
  const auto compact = [&](kernels::StateType type, int64_t moment_bytes, double& ms,
                           double& ratio) {
    ms = compact_ms(state, type, step, result.moments_differ);
    const auto moved = static_cast<double>(compact_adamw_bytes(bf16, moment_bytes) * count);
    ratio = moved / ms * 1e-6 / result.copy_gigabytes_per_second;
  };
  compact(kernels::StateType::bf16, 2, result.bf16_moments_ms, result.bf16_moments_ratio);
  compact(kernels::StateType::fp8, 1, result.fp8_moments_ms, result.fp8_moments_ratio);
  return result;
}

std::string describe(const OptimizerBench& r) {
  return fmt::format(
      "adamw  count {}  {}  {:.3f} ms  {:.0f} GB/s  {:.2f}x copy  {:.2f}x ATen  worst error {} ulp "
      "(allowed 2)  {}\n"
      "       moments in bf16 {:.3f} ms  {:.2f}x copy  in fp8 {:.3f} ms  {:.2f}x copy  {} values "
      "differ from the loop on the CPU (allowed 0)",
      r.count, r.bf16 ? "bf16" : "fp32", r.ms, r.gigabytes_per_second, r.copy_ratio, r.aten_ratio,
      r.worst_ulp, r.device, r.bf16_moments_ms, r.bf16_moments_ratio, r.fp8_moments_ms,
      r.fp8_moments_ratio, r.moments_differ);
}

std::string to_json(const OptimizerBench& r) {
  return nlohmann::ordered_json{{"bench", "optimizer"},
                                {"device", r.device},
                                {"count", r.count},
                                {"precision", r.bf16 ? "bf16" : "fp32"},
                                {"ms", r.ms},
                                {"gb_per_s", r.gigabytes_per_second},
                                {"copy_gb_per_s", r.copy_gigabytes_per_second},
                                {"copy_ratio", r.copy_ratio},
                                {"aten_ratio", r.aten_ratio},
                                {"worst_ulp", r.worst_ulp},
                                {"bf16_moments_ms", r.bf16_moments_ms},
                                {"bf16_moments_copy_ratio", r.bf16_moments_ratio},
                                {"fp8_moments_ms", r.fp8_moments_ms},
                                {"fp8_moments_copy_ratio", r.fp8_moments_ratio},
                                {"moments_differ", r.moments_differ}}
      .dump(2);
}

}  // namespace vitrail::train
