// Boxes drawn on images.

#include <algorithm>
#include <cmath>

#include <ATen/TensorOperators.h>

#include "vitrail/train/pictures.h"

namespace vitrail::train {

namespace {

/// Rows [first, last) and columns likewise, kept inside.
void fill(at::Tensor& rgb, int64_t y0, int64_t y1, int64_t x0, int64_t x1, const double color[3]) {
  const int64_t height = rgb.size(1), width = rgb.size(2);
  y0 = std::clamp<int64_t>(y0, 0, height), y1 = std::clamp<int64_t>(y1, y0, height);
  x0 = std::clamp<int64_t>(x0, 0, width), x1 = std::clamp<int64_t>(x1, x0, width);
  for (int64_t c = 0; c < 3; ++c) rgb[c].slice(0, y0, y1).slice(1, x0, x1).fill_(color[c]);
}

}  // namespace

at::Tensor with_boxes(const at::Tensor& rgb, const std::vector<DrawnBox>& boxes) {
  at::Tensor out = rgb.clone();
  const int64_t thick = std::max<int64_t>(1, std::max(out.size(1), out.size(2)) / 200);
  for (const DrawnBox& box : boxes) {
    const double* color = class_color(box.label).rgb;
    const auto x0 = std::llround(box.corners[0]), y0 = std::llround(box.corners[1]);
    const auto x1 = std::llround(box.corners[2]), y1 = std::llround(box.corners[3]);
    fill(out, y0, y0 + thick, x0, x1, color);
    fill(out, y1 - thick, y1, x0, x1, color);
    fill(out, y0, y1, x0, x0 + thick, color);
    fill(out, y0, y1, x1 - thick, x1, color);
  }
  return out;
}

}  // namespace vitrail::train
