#include "vitrail/ops/resample.h"

#include <algorithm>

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/matmul.h>
#include <fmt/ranges.h>

#include "vitrail/core/error.h"

namespace vitrail::ops {
namespace {

/// [to, from]: row i holds the weights of old places in new place i, hats of width one around it.
at::Tensor weights(int64_t from, int64_t to, const at::TensorOptions& like) {
  // fp64, because i * (from - 1) / (to - 1) must meet whole numbers exactly.
  const at::TensorOptions wide = like.dtype(at::kDouble).requires_grad(false);
  const double step = to > 1 ? static_cast<double>(from - 1) / static_cast<double>(to - 1) : 0.0;
  const at::Tensor place_N1 = (at::arange(to, wide) * step).unsqueeze(1);
  const at::Tensor old_M = at::arange(from, wide);
  return (1.0 - (place_N1 - old_M).abs()).clamp_min(0.0).to(like.dtype());
}

}  // namespace

at::Tensor resize_linear(const at::Tensor& x, at::IntArrayRef sides) {
  const auto axes = static_cast<int64_t>(sides.size());
  VT_CHECK(x.dim() == axes + 2 && std::ranges::all_of(sides, [](int64_t side) { return side > 0; }),
           "[resize] [{}] cannot be resized to sides {}", fmt::join(x.sizes(), ", "),
           fmt::join(sides, "x"));
  at::Tensor y = x;
  for (int64_t axis = 0; axis < axes; ++axis) {
    const int64_t from = y.size(2 + axis), to = sides[axis];
    if (from == to) continue;
    const at::Tensor weights_NM = weights(from, to, y.options());
    if (axis == axes - 1) {
      y = at::matmul(y, weights_NM.t());
      continue;
    }
    // The axes behind this one are columns of the product.
    std::vector<int64_t> shape = y.sizes().vec();
    shape[2 + axis] = to;
    y = at::matmul(weights_NM, y.flatten(3 + axis)).view(shape);
  }
  return y;
}

}  // namespace vitrail::ops
