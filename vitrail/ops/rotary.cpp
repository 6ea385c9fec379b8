#include "vitrail/ops/rotary.h"

#include <cmath>
#include <functional>
#include <vector>

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/complex.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/view_as_complex.h>
#include <ATen/ops/view_as_real.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <torch/csrc/autograd/custom_function.h>

#include "vitrail/core/error.h"
#include "vitrail/kernels/rotary.h"
#include "vitrail/ops/norm.h"

namespace vitrail::ops {
namespace {

int64_t cells_of(at::IntArrayRef grid) {
  int64_t cells = 1;
  for (const int64_t side : grid) cells *= side;
  return cells;
}

/// theta^(-j / count) for j in [0, count).
std::vector<double> frequencies(int64_t count, double theta) {
  std::vector<double> all(count);
  for (int64_t j = 0; j < count; ++j)
    all[j] = std::pow(theta, -static_cast<double>(j) / static_cast<double>(count));
  return all;
}

/// A row for every prefix token and cell. Angles are exact to fp64 before cos and sin: in fp32 an index of 262143 would
/// leave no more than two digits of the angle.
Rotary table(int64_t prefix, int64_t cells, int64_t pairs,
             const std::function<double(int64_t cell, int64_t pair)>& angle) {
  Rotary rotary{at::empty({1, prefix + cells, pairs}, at::kFloat),
                at::empty({1, prefix + cells, pairs}, at::kFloat)};
  auto* cos = rotary.cos.mutable_data_ptr<float>();
  auto* sin = rotary.sin.mutable_data_ptr<float>();
  for (int64_t row = -prefix; row < cells; ++row)
    for (int64_t pair = 0; pair < pairs; ++pair) {
      const double turn = row < 0 ? 0.0 : angle(row, pair);
      *cos++ = static_cast<float>(std::cos(turn));
      *sin++ = static_cast<float>(std::sin(turn));
    }
  return rotary;
}

at::Tensor gather_rows(const at::Tensor& rows_1TP, const at::Tensor& ids_BK, int64_t prefix) {
  const int64_t B = ids_BK.size(0), K = ids_BK.size(1);
  const at::Tensor rows_TP = rows_1TP.select(0, 0).to(ids_BK.device());
  const at::Tensor chosen =
      rows_TP.index_select(0, (ids_BK + prefix).reshape({-1})).view({B, K, rows_TP.size(1)});
  if (prefix == 0) return chosen;
  return at::cat({rows_TP.slice(0, 0, prefix).expand({B, prefix, -1}), chosen}, 1);
}

/// The kernel's result [B, N, T, E], in memory [B, T, N, E] as attention's projection left it.
at::Tensor rotate_on_gpu(const at::Tensor& given_BNTE, const at::Tensor& cos, const at::Tensor& sin,
                         bool back) {
  const at::Tensor x = given_BNTE.stride(-1) == 1 ? given_BNTE : given_BNTE.contiguous();
  const int64_t B = x.size(0), N = x.size(1), T = x.size(2), E = x.size(3);
  const at::Tensor out = at::empty({B, T, N, E}, x.options());
  const kernels::RotaryShape shape{.batch = B,
                                   .tokens = T,
                                   .heads = N,
                                   .pairs = E / 2,
                                   .stride_batch = x.stride(0),
                                   .stride_token = x.stride(2),
                                   .stride_head = x.stride(1),
                                   .table_stride = cos.size(0) == 1 ? 0 : T * (E / 2),
                                   .back = back};
  const c10::DeviceGuard guard(x.device());
  void* stream =
      c10::impl::VirtualGuardImpl(x.device().type()).getStream(x.device()).native_handle();
  const auto* c = cos.const_data_ptr<float>();
  const auto* s = sin.const_data_ptr<float>();
  if (x.scalar_type() == at::kFloat)
    kernels::rotate_f32(x.const_data_ptr<float>(), c, s, shape, out.mutable_data_ptr<float>(),
                        stream);
  else
    kernels::rotate_bf16(static_cast<const uint16_t*>(x.const_data_ptr()), c, s, shape,
                         static_cast<uint16_t*>(out.mutable_data_ptr()), stream);
  return out.transpose(1, 2);
}

struct RotateFunction : torch::autograd::Function<RotateFunction> {
  static at::Tensor forward(torch::autograd::AutogradContext* node, const at::Tensor& x,
                            const at::Tensor& cos, const at::Tensor& sin) {
    node->save_for_backward({cos, sin});
    return rotate_on_gpu(x, cos, sin, /*back=*/false);
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* node,
                                                 const torch::autograd::variable_list& gradients) {
    const auto tables = node->get_saved_variables();
    return {rotate_on_gpu(gradients[0], tables[0], tables[1], /*back=*/true), {}, {}};
  }
};

}  // namespace

Rotary raster_rotary(at::IntArrayRef grid, int64_t prefix, int64_t head_width, double theta) {
  VT_REQUIRE(ConfigError, head_width > 0 && head_width % 2 == 0,
             "[config] the head width must be even for rotary positions but got {}; change the "
             "number of heads, or set model.rope=none",
             head_width);
  const std::vector<double> rates = frequencies(head_width / 2, theta);
  return table(prefix, cells_of(grid), head_width / 2,
               [&](int64_t cell, int64_t pair) { return static_cast<double>(cell) * rates[pair]; });
}

Rotary axial_rotary(at::IntArrayRef grid, int64_t prefix, int64_t head_width, double theta) {
  const auto axes = static_cast<int64_t>(grid.size());
  VT_REQUIRE(ConfigError, head_width > 0 && head_width % (2 * axes) == 0,
             "[config] the head width of {}-D axial rotary positions must be a multiple of {} but "
             "got {}; change the number of heads, or set model.rope=raster",
             axes, 2 * axes, head_width);
  const int64_t part = head_width / (2 * axes);
  const std::vector<double> rates = frequencies(part, theta);
  std::vector<int64_t> strides(axes, 1);
  for (int64_t axis = axes - 1; axis > 0; --axis) strides[axis - 1] = strides[axis] * grid[axis];
  return table(prefix, cells_of(grid), head_width / 2, [&](int64_t cell, int64_t pair) {
    const int64_t axis = pair / part;
    return static_cast<double>(cell / strides[axis] % grid[axis]) * rates[pair % part];
  });
}

Rotary gather(const Rotary& rotary, const at::Tensor& ids_BK, int64_t prefix) {
  VT_CHECK(rotary.cos.size(0) == 1, "[rotary] gather needs one table for all samples but got {}",
           rotary.cos.size(0));
  return {gather_rows(rotary.cos, ids_BK, prefix), gather_rows(rotary.sin, ids_BK, prefix)};
}

at::Tensor rotate(const at::Tensor& x_BNTE, const Rotary& rotary) {
  VT_CHECK(x_BNTE.size(2) == rotary.cos.size(-2) && x_BNTE.size(3) == 2 * rotary.cos.size(-1),
           "[rotary] the table must have {} tokens and {} pairs but got {} and {}", x_BNTE.size(2),
           x_BNTE.size(3) / 2, rotary.cos.size(-2), rotary.cos.size(-1));
  const at::ScalarType type = x_BNTE.scalar_type();
  const bool has_heads = rotary.cos.dim() == 4;
  if (!has_heads && x_BNTE.is_cuda() && (type == at::kFloat || type == at::kBFloat16))
    return RotateFunction::apply(x_BNTE, rotary.cos.contiguous(), rotary.sin.contiguous());
  // A pair (a, b) turned by an angle is (a + ib) (cos + i sin): nothing of x is kept for backward.
  const at::ScalarType wide = statistics_type(type);
  const auto like = x_BNTE.options().dtype(wide);
  at::Tensor turns = at::complex(rotary.cos.to(like), rotary.sin.to(like));
  if (!has_heads) turns = turns.unsqueeze(1);
  const at::Tensor pairs = at::view_as_complex(x_BNTE.to(wide).unflatten(-1, {-1, 2}));
  return at::view_as_real(pairs * turns).flatten(-2).to(type);
}

}  // namespace vitrail::ops
