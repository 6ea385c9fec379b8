#include "vitrail/ops/boxes.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/minimum.h>

namespace vitrail::ops {
namespace {

// Keeps 0 / 0 of boxes without area at 0, and changes nothing else: no box of a real image is so small.
constexpr double kLeastArea = 1e-30;

at::Tensor low(const at::Tensor& boxes) { return boxes.slice(-1, 0, 2); }
at::Tensor high(const at::Tensor& boxes) { return boxes.slice(-1, 2, 4); }

/// Of sides [..., 2].
at::Tensor area_of(const at::Tensor& sides) {
  const at::Tensor real = sides.clamp_min(0);
  return real.select(-1, 0) * real.select(-1, 1);
}

struct Overlap {
  at::Tensor intersection, union_;
};

Overlap overlap(const at::Tensor& a, const at::Tensor& b) {
  const at::Tensor common = area_of(at::minimum(high(a), high(b)) - at::maximum(low(a), low(b)));
  return {common, box_area(a) + box_area(b) - common};
}

at::Tensor ratio(const at::Tensor& part, const at::Tensor& whole) {
  return part / whole.clamp_min(kLeastArea);
}

}  // namespace

at::Tensor centres_to_corners(const at::Tensor& boxes) {
  const at::Tensor centre = low(boxes), half = high(boxes) * 0.5;
  return at::cat({centre - half, centre + half}, -1);
}

at::Tensor corners_to_centres(const at::Tensor& boxes) {
  return at::cat({(low(boxes) + high(boxes)) * 0.5, high(boxes) - low(boxes)}, -1);
}

at::Tensor box_area(const at::Tensor& corners) { return area_of(high(corners) - low(corners)); }

at::Tensor box_iou(const at::Tensor& a, const at::Tensor& b) {
  const Overlap both = overlap(a, b);
  return ratio(both.intersection, both.union_);
}

at::Tensor generalised_iou(const at::Tensor& a, const at::Tensor& b) {
  const Overlap both = overlap(a, b);
  const at::Tensor hull = area_of(at::maximum(high(a), high(b)) - at::minimum(low(a), low(b)));
  return ratio(both.intersection, both.union_) - ratio(hull - both.union_, hull);
}

}  // namespace vitrail::ops
