#include "vitrail/ops/gelu_product.h"

#include <algorithm>
#include <chrono>
#include <functional>
#include <mutex>
#include <vector>

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <fmt/format.h>

#include "vitrail/kernels/gemm_gelu.h"
#include "vitrail/kernels/gemm_table.h"
#include "vitrail/ops/activation.h"
#include "vitrail/ops/on_device.h"
#include "vitrail/ops/product.h"

namespace vitrail::ops {
namespace {

/// What is known of one product on one device. Forward has a transposed second operand.
struct Entry {
  int device = 0;
  kernels::GemmShape shape;
  double apart_ms = 0, together_ms = 0;  // 0: not timed
  bool runs_together() const { return together_ms > 0 && together_ms < apart_ms; }
};

struct Table {
  std::mutex mutex;
  std::vector<Entry> entries;
};

Table& table() {
  static auto& kept = *new Table();
  return kept;
}

bool runs_together(const at::Tensor& x, const kernels::GemmShape& shape) {
  if (!kernels::has_gemm_gelu()) return false;
  Table& all = table();
  const std::lock_guard lock(all.mutex);
  const int device = x.device().index();
  for (const Entry& entry : all.entries)
    if (entry.device == device && entry.shape == shape) return entry.runs_together();
  all.entries.push_back({device, shape});
  return false;
}

std::vector<int64_t> with_last(const at::Tensor& x, int64_t last) {
  std::vector<int64_t> shape = x.sizes().vec();
  shape.back() = last;
  return shape;
}

kernels::GemmShape forward_shape(const at::Tensor& x, const at::Tensor& weight) {
  kernels::GemmShape shape{.m = x.numel() / x.size(-1), .n = weight.size(0), .k = weight.size(1)};
  shape.b_transposed = shape.has_bias = true;
  return shape;
}

kernels::GemmShape backward_shape(const at::Tensor& dy, const at::Tensor& weight) {
  return {.m = dy.numel() / dy.size(-1), .n = weight.size(1), .k = weight.size(0)};
}

at::Tensor workspace_for(const kernels::GemmShape& shape, const at::Tensor& like) {
  return at::empty({kernels::gemm_gelu_workspace_bytes(shape)}, like.options().dtype(at::kByte));
}

GeluProduct forward_apart(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  at::Tensor pre = product(x, weight, bias);
  at::Tensor out = activation(ActivationKind::gelu_erf, pre, {});
  return {std::move(pre), std::move(out)};
}

GeluProduct forward_together(const kernels::GemmShape& shape, const at::Tensor& x,
                             const at::Tensor& weight, const at::Tensor& bias) {
  const OnDevice on(x);
  GeluProduct result{at::empty(with_last(x, shape.n), x.options()), {}};
  result.out = at::empty_like(result.pre);
  const at::Tensor workspace = workspace_for(shape, x);
  kernels::gemm_gelu(
      shape,
      {.a = bf16_in(x), .b = bf16_in(weight), .bias = bf16_in(bias), .d = bf16_out(result.out)},
      bf16_out(result.pre), workspace.mutable_data_ptr(), on.stream());
  return result;
}

at::Tensor backward_apart(const at::Tensor& dy, const at::Tensor& weight, const at::Tensor& pre,
                          const at::Tensor& pre_sums) {
  ActivationBackward task{.dout = product_input_gradient(dy, weight), .pre = pre};
  task.pre_sums = pre_sums;
  return activation_backward(task).dpre;
}

at::Tensor backward_together(const kernels::GemmShape& shape, const at::Tensor& dy,
                             const at::Tensor& weight, const at::Tensor& pre,
                             const at::Tensor& pre_sums) {
  at::Tensor dpre = at::empty_like(pre);
  {
    const OnDevice on(dy);
    const at::Tensor workspace = workspace_for(shape, dy);
    kernels::gemm_gelu_backward(shape,
                                {.a = bf16_in(dy), .b = bf16_in(weight), .d = bf16_out(dpre)},
                                bf16_in(pre), workspace.mutable_data_ptr(), on.stream());
  }
  if (pre_sums.defined()) add_column_sums(dpre, pre_sums);
  return dpre;
}

/// Milliseconds of both, by turns and hot, the least of some rounds: clocks and neighbours change meanwhile.
std::pair<double, double> time_both(at::Device device, const std::function<void()>& one,
                                    const std::function<void()>& other) {
  constexpr int kRounds = 4, kRuns = 8;
  const c10::impl::VirtualGuardImpl guard(device.type());
  const c10::Stream stream = guard.getStream(device);
  const auto once = [&](const std::function<void()>& work) {
    guard.synchronizeStream(stream);
    const auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < kRuns; ++i) work();
    guard.synchronizeStream(stream);
    const std::chrono::duration<double, std::milli> passed =
        std::chrono::steady_clock::now() - start;
    return passed.count() / kRuns;
  };
  std::pair<double, double> least{once(one), once(other)};  // the first round warms up
  for (int round = 0; round < kRounds; ++round) {
    const double first = once(one), second = once(other);
    if (round == 0) least = {first, second};
    least = {std::min(least.first, first), std::min(least.second, second)};
  }
  return least;
}

void time_entry(Entry& entry, at::Device device) {
  const kernels::GemmShape& shape = entry.shape;
  const auto options = at::TensorOptions().device(device).dtype(at::kBFloat16);
  const at::Tensor a = at::randn({shape.m, shape.k}, options);
  if (shape.b_transposed) {
    const at::Tensor weight = at::randn({shape.n, shape.k}, options),
                     bias = weight.select(1, 0).clone();
    std::tie(entry.apart_ms, entry.together_ms) = time_both(
        device, [&] { forward_apart(a, weight, bias); },
        [&] { forward_together(shape, a, weight, bias); });
    return;
  }
  const at::Tensor weight = at::randn({shape.k, shape.n}, options),
                   pre = at::randn({shape.m, shape.n}, options),
                   sums = at::zeros({shape.n}, options.dtype(at::kFloat));
  std::tie(entry.apart_ms, entry.together_ms) = time_both(
      device, [&] { backward_apart(a, weight, pre, sums); },
      [&] { backward_together(shape, a, weight, pre, sums); });
}

bool fits(const kernels::GemmShape& shape) {
  return shape.b_transposed ? kernels::fits_gemm_gelu(shape)
                            : kernels::fits_gemm_gelu_backward(shape);
}

}  // namespace

GeluProduct gelu_product(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  if (!runs_kernels(x) || !bias.defined()) return forward_apart(x, weight, bias);
  const kernels::GemmShape shape = forward_shape(x, weight);
  return runs_together(x, shape) ? forward_together(shape, x, weight, bias)
                                 : forward_apart(x, weight, bias);
}

at::Tensor gelu_product_backward(const at::Tensor& dy, const at::Tensor& weight,
                                 const at::Tensor& pre, const at::Tensor& pre_sums) {
  if (!runs_kernels(dy)) return backward_apart(dy, weight, pre, pre_sums);
  const kernels::GemmShape shape = backward_shape(dy, weight);
  return runs_together(dy, shape) ? backward_together(shape, dy, weight, pre, pre_sums)
                                  : backward_apart(dy, weight, pre, pre_sums);
}

void tune_gelu_products(at::Device device) {
  const c10::DeviceGuard guard(device);
  Table& all = table();
  const std::lock_guard lock(all.mutex);
  for (Entry& entry : all.entries)
    if (entry.device == device.index() && entry.apart_ms == 0 && fits(entry.shape))
      time_entry(entry, device);
}

std::string gelu_product_choices() {
  Table& all = table();
  const std::lock_guard lock(all.mutex);
  std::string text;
  for (const Entry& entry : all.entries)
    if (entry.apart_ms > 0)
      text += fmt::format("{}{} with GELU{}: {}; apart {:.3f} ms, in one kernel {:.3f} ms",
                          text.empty() ? "" : "\n", kernels::to_words(entry.shape),
                          entry.shape.b_transposed ? "" : "'s slope",
                          entry.runs_together() ? "in one kernel" : "apart", entry.apart_ms,
                          entry.together_ms);
  return text;
}

}  // namespace vitrail::ops
