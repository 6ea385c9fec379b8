// The plain version of Transform::apply: tensor operations one after another, as a reader would
// write them in Python.

#include <algorithm>

#include <ATen/ops/_upsample_bilinear2d_aa.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/flip.h>
#include <ATen/ops/tensor.h>

#include "vitrail/core/error.h"
#include "vitrail/data/transform.h"

namespace vitrail::data {
namespace {

/// Pixels [offset, offset + size) of an axis; zero outside the image.
at::Tensor window_axis(const at::Tensor& image, int64_t axis, int64_t offset, int64_t size) {
  const int64_t before = std::max<int64_t>(-offset, 0);
  const int64_t after = std::max<int64_t>(offset + size - image.size(axis), 0);
  std::vector<int64_t> padding(static_cast<size_t>(2 * image.dim()),
                               0);  // from the last axis backwards
  padding[static_cast<size_t>(2 * (image.dim() - 1 - axis))] = before;
  padding[static_cast<size_t>(2 * (image.dim() - 1 - axis) + 1)] = after;
  return at::constant_pad_nd(image, padding, 0).narrow(axis, offset + before, size);
}

std::vector<int64_t> sides_of(const at::Tensor& image) { return image.sizes().slice(1).vec(); }

at::Tensor column(const std::vector<float>& values, int64_t dim) {
  std::vector<int64_t> shape(static_cast<size_t>(dim), 1);
  shape[0] = static_cast<int64_t>(values.size());
  return at::tensor(values).view(shape);
}

}  // namespace

at::Tensor Transform::apply_plain(const Pixels& pixels, const AugmentPlace& place,
                                  const std::string& path) const {
  at::Tensor image = to_tensor(checked(pixels, path));  // [C, sides...]
  if (sides_of(image) != resize_) {
    VT_CHECK(resize_.size() == 2, "[data] the plain transform resizes images of 2 sides but got {}",
             resize_.size());
    image = at::_upsample_bilinear2d_aa(image.unsqueeze(0), resize_, /*align_corners=*/false)
                .squeeze(0);
  }
  for (size_t layer = 0; layer < steps_.size(); ++layer) {
    const AugmentStep& step = steps_[layer];
    const std::vector<int64_t> sides = sides_of(image);
    const std::vector<int64_t> drawn =
        draw_step(step, static_cast<uint16_t>(layer), place, sides, target_);
    if (step.kind == AugmentKind::flip) {
      if (drawn[0] == 1) image = at::flip(image, {-1});
      continue;
    }
    for (size_t axis = 0; axis < sides.size(); ++axis)
      image = window_axis(image, static_cast<int64_t>(axis) + 1, drawn[axis],
                          step.kind == AugmentKind::crop ? target_[axis] : sides[axis]);
  }
  const std::vector<int64_t> sides = sides_of(image);
  for (size_t axis = 0; axis < sides.size(); ++axis)
    image = window_axis(image, static_cast<int64_t>(axis) + 1, (sides[axis] - target_[axis]) / 2,
                        target_[axis]);
  return image.sub(column(mean_, image.dim())).div(column(std_, image.dim()));
}

}  // namespace vitrail::data
