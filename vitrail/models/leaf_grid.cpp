#include "vitrail/models/leaf_grid.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/minimum.h>
#include <fmt/ranges.h>

#include "vitrail/core/error.h"

namespace vitrail::models {

at::Tensor leaf_shares(const at::Tensor& boxes, at::IntArrayRef sides, at::IntArrayRef grid) {
  const auto axes = static_cast<int64_t>(grid.size());
  VT_CHECK(boxes.defined() && boxes.dim() == 3 && boxes.size(2) == 2 * axes,
           "[model] leaf_boxes must be [B, L, {}] but got {} axes", 2 * axes,
           boxes.defined() ? boxes.dim() : 0);
  const at::Tensor wide = boxes.to(at::kFloat);
  at::Tensor shared;  // volume that leaf and cell share, [B, L, cells so far]
  for (int64_t axis = 0; axis < axes; ++axis) {
    const double edge = static_cast<double>(sides[axis]) / static_cast<double>(grid[axis]);
    const at::Tensor cell_low = at::arange(grid[axis], wide.options()) * edge;
    const at::Tensor low_BL1 = wide.slice(2, axis, axis + 1);
    const at::Tensor high_BL1 = wide.slice(2, axes + axis, axes + axis + 1);
    const at::Tensor overlap =
        (at::minimum(high_BL1, cell_low + edge) - at::maximum(low_BL1, cell_low)).clamp_min(0.0);
    shared = axis == 0 ? overlap : (shared.unsqueeze(-1) * overlap.unsqueeze(-2)).flatten(2);
  }
  const at::Tensor covered_B1G = shared.sum(1, /*keepdim=*/true);
  const at::Tensor share = shared / (covered_B1G + covered_B1G.eq(0));
  return share.transpose(1, 2);
}

}  // namespace vitrail::models
