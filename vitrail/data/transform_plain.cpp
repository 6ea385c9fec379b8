// The plain version of Transform::apply: tensor operations one after another, as a reader would
// write them in Python.

#include <algorithm>
#include <optional>

#include <ATen/ops/_upsample_bilinear2d_aa.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/clamp.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/flip.h>
#include <ATen/ops/index_select.h>
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

namespace {

/// Image and mask together: the mask is one more channel, as class + 1, so that zero means -1.
struct Pair {
  at::Tensor image;  // [C, sides...], in units above the file's lowest value
  at::Tensor mask;   // float [1, sides...]

  template <class Change>
  void both(const Change& change) {
    image = change(image);
    mask = change(mask);
  }
};

at::Tensor nearest(at::Tensor mask, const std::vector<int64_t>& sides) {
  for (size_t axis = 0; axis < sides.size(); ++axis) {
    const auto dim = static_cast<int64_t>(axis) + 1;
    const at::Tensor centre = at::arange(sides[axis], at::kDouble).add(0.5);
    const at::Tensor from = centre.mul(mask.size(dim)).div(sides[axis]).floor().to(at::kLong);
    mask = at::index_select(mask, dim, from);
  }
  return mask;
}

at::Tensor cut_plain(at::Tensor image, const Window& window) {
  for (size_t axis = 0; axis < window.sides.size(); ++axis) {
    const auto dim = static_cast<int64_t>(axis) + 1;
    image = image.narrow(dim, window.origin[axis], window.extent[axis]);
    image = window_axis(image, dim, 0, window.sides[axis]);
  }
  return window.slice_axis < 0 ? image : image.squeeze(window.slice_axis + 1);
}

/// The k-th rotation of a cube: the axes in another order, then an even number of mirrors together
/// with those of the order itself.
at::Tensor rotated(const at::Tensor& x, int64_t k) {
  static const std::vector<std::vector<int64_t>> orders = {
      {0, 1, 2, 3}, {0, 2, 3, 1}, {0, 3, 1, 2}, {0, 1, 3, 2}, {0, 3, 2, 1}, {0, 2, 1, 3}};
  const bool is_odd = k / 4 >= 3, first = k % 4 == 1 || k % 4 == 3, second = k % 4 >= 2;
  std::vector<int64_t> mirrored;
  if (first) mirrored.push_back(1);
  if (second) mirrored.push_back(2);
  if ((mirrored.size() % 2 == 1) != is_odd) mirrored.push_back(3);
  return at::flip(x.permute(orders[static_cast<size_t>(k / 4)]), mirrored);
}

void step_plain(const AugmentStep& step, const std::vector<int64_t>& drawn,
                const std::vector<int64_t>& target, Pair& pair) {
  if (step.kind == AugmentKind::rot90_3d) {
    const auto turned = [&](const at::Tensor& x) { return rotated(x, drawn[0]); };
    return pair.both(turned);
  }
  const std::vector<int64_t> sides = sides_of(pair.image);
  for (size_t axis = 0; axis < sides.size(); ++axis) {
    const auto dim = static_cast<int64_t>(axis) + 1;
    const bool is_last = axis + 1 == sides.size();
    pair.both([&](const at::Tensor& x) {
      if (step.kind == AugmentKind::flip) return is_last && drawn[0] == 1 ? at::flip(x, {dim}) : x;
      if (step.kind == AugmentKind::flips) return drawn[axis] == 1 ? at::flip(x, {dim}) : x;
      if (step.kind == AugmentKind::rot90)
        return is_last && drawn[0] == 1 ? x.transpose(-1, -2) : x;
      const bool is_crop = step.kind == AugmentKind::crop;
      return window_axis(x, dim, drawn[axis], is_crop ? target[axis] : sides[axis]);
    });
  }
}

}  // namespace

std::pair<at::Tensor, at::Tensor> Transform::apply_plain(const Decoded& file, const Window& window,
                                                         const AugmentPlace& place) const {
  const at::Tensor raw = to_tensor(file.image).mul(file.image.full_scale);
  Pair pair{raw.sub(column(file.range.low, raw.dim())), {}};
  Mask mask = file.mask;
  if (mask.empty())
    mask = {file.image.sides,
            std::vector<int32_t>(static_cast<size_t>(count(file.image.sides)), -1)};
  pair.mask = to_tensor(mask).add(1).to(at::kFloat).unsqueeze(0);
  pair.both([&](const at::Tensor& x) { return cut_plain(x, window); });
  if (sides_of(pair.image) != resize_) {
    VT_CHECK(resize_.size() == 2, "[data] the plain transform resizes images of 2 sides but got {}",
             resize_.size());
    pair.image = at::_upsample_bilinear2d_aa(pair.image.unsqueeze(0), resize_, false).squeeze(0);
    pair.mask = nearest(pair.mask, resize_);
  }
  for (size_t layer = steps_.first_exact; layer < steps_.first_device; ++layer) {
    const AugmentStep& step = steps_.steps[layer];
    step_plain(step,
               draw_step(step, static_cast<uint16_t>(layer), place, sides_of(pair.image), target_),
               target_, pair);
  }
  const std::vector<int64_t> sides = sides_of(pair.image);
  for (size_t axis = 0; axis < sides.size(); ++axis)
    pair.both([&](const at::Tensor& x) {
      return window_axis(x, static_cast<int64_t>(axis) + 1, (sides[axis] - target_[axis]) / 2,
                         target_[axis]);
    });
  at::Tensor image = pair.image.div(column(file.range.span, pair.image.dim()));
  if (file.range.clips) image = at::clamp(image, 0, 1);
  image = image.sub(column(mean_, image.dim())).div(column(std_, image.dim()));
  return {image, pair.mask.squeeze(0).sub(1).to(at::kLong)};
}

at::Tensor Transform::apply_plain(const Pixels& pixels, const AugmentPlace& place,
                                  const std::string& path) const {
  const Window window = narrow(checked_window(pixels, path), place);
  return apply_plain(prepare(pixels, {}, path), window, place).first;
}

}  // namespace vitrail::data
