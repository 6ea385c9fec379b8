// The formulas of adapt.h: each takes a tensor and returns one, in fp32.
#include <algorithm>

#include <ATen/TensorOperators.h>
#include <ATen/ops/_upsample_bicubic2d_aa.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/linalg_pinv.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/upsample_trilinear3d.h>
#include <fmt/ranges.h>

#include "vitrail/core/error.h"
#include "vitrail/models/adapt.h"

namespace vitrail::models {
namespace {

/// rows [L, D] -> image [1, D, sides...]
at::Tensor as_image(const at::Tensor& rows, const std::vector<int64_t>& grid) {
  std::vector<int64_t> shape{1, rows.size(1)};
  shape.insert(shape.end(), grid.begin(), grid.end());
  return rows.to(at::kFloat).t().reshape(shape);
}

at::Tensor as_rows(const at::Tensor& image) { return image.flatten(2).squeeze(0).t().contiguous(); }

/// The bicubic resize of a line of `from` values to `to` as a matrix [to, from]: each column of the image is a basis
/// vector. (As images one pixel wide, a line each, torch 2.11 returns other values.)
at::Tensor resize_matrix(int64_t from, int64_t to) {
  const at::Tensor basis =
      at::eye(from, at::TensorOptions().dtype(at::kDouble)).reshape({1, 1, from, from});
  return at::_upsample_bicubic2d_aa(basis, {to, from}, /*align_corners=*/false).reshape({to, from});
}

}  // namespace

at::Tensor resample_positions(const at::Tensor& rows, const std::vector<int64_t>& from,
                              const std::vector<int64_t>& to) {
  if (from == to) return rows;
  if (from.size() == 2 && to.size() == 3) {
    const at::Tensor plane_LD = resample_positions(rows, from, {to[1], to[2]});
    return plane_LD.repeat({to[0], 1});
  }
  VT_CHECK(from.size() == to.size(), "[adapt] a table of grid {} cannot become one of grid {}",
           fmt::join(from, "x"), fmt::join(to, "x"));
  const at::Tensor image = as_image(rows, from);
  return as_rows(to.size() == 2 ? at::_upsample_bicubic2d_aa(image, to, /*align_corners=*/false)
                                : at::upsample_trilinear3d(image, to, /*align_corners=*/false));
}

at::Tensor resize_patch(const at::Tensor& weight, int64_t edge) {
  at::Tensor resized = weight.to(at::kDouble);
  for (int64_t axis = 2; axis < weight.dim(); ++axis) {
    if (resized.size(axis) == edge) continue;
    // Singular values of these matrices are of order 1; the cutoff only has to be above rounding.
    const at::Tensor inverse =
        at::linalg_pinv(resize_matrix(resized.size(axis), edge), /*rcond=*/1e-6);
    resized = at::matmul(resized.movedim(axis, -1), inverse).movedim(-1, axis);
  }
  return resized.to(at::kFloat).contiguous();
}

at::Tensor inflate_patch(const at::Tensor& weight, int64_t depth) {
  return weight.to(at::kFloat)
      .unsqueeze(2)
      .repeat({1, 1, depth, 1, 1})
      .div(static_cast<double>(depth));
}

at::Tensor change_channels(const at::Tensor& weight, int64_t channels) {
  const int64_t C = weight.size(1);
  const at::Tensor whole = weight.to(at::kFloat);
  if (channels == C) return whole;
  if (channels == 1) return whole.sum(1, /*keepdim=*/true);
  const std::vector<at::Tensor> copies(static_cast<size_t>((channels + C - 1) / C), whole);
  return at::cat(copies, 1).slice(1, 0, channels) *
         (static_cast<double>(C) / static_cast<double>(channels));
}

}  // namespace vitrail::models
