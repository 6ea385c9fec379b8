#pragma once
/// Where a result pixel of a geometric operation of augment.h comes from, and what it becomes.
///
/// Products are rounded before they are added (product()), so that CPU and GPU round alike.

#include <cmath>

#include "vitrail/kernels/augment.h"

namespace vitrail::kernels {

#if defined(__CUDA_ARCH__)
__device__ inline float product(float a, float b) { return __fmul_rn(a, b); }
#else
VT_HOST_DEVICE inline float product(float a, float b) { return a * b; }
#endif

VT_HOST_DEVICE inline int32_t count_of(const int32_t* sides) {
  return sides[0] * sides[1] * sides[2];
}

struct Place {
  int32_t at[3];
};
VT_HOST_DEVICE inline Place place_of(int32_t p, int32_t rows, int32_t columns) {
  const int32_t line = p / columns;
  return {{line / rows, line % rows, p - line * columns}};
}

/// Where a result pixel comes from; -1 = from outside.
VT_HOST_DEVICE inline int32_t gathered_from(const AugmentSlot& slot, int32_t p) {
  const Place place = place_of(p, slot.out[1], slot.out[2]);
  int32_t from = 0;
  for (int a = 0; a < 3; ++a) {
    const AugmentAxis& map = slot.axis[a];
    const int32_t i = place.at[a];
    if (i < map.low || i >= map.high) return -1;
    const int32_t stride = map.axis == 2 ? 1 : map.axis == 1 ? slot.in[2] : slot.in[1] * slot.in[2];
    from += (map.start + map.step * i) * stride;
  }
  return from;
}

struct Point {
  float at[3];
};
VT_HOST_DEVICE inline Point affine_place(const AugmentSlot& slot, int32_t p) {
  const Place place = place_of(p, slot.out[1], slot.out[2]);
  const auto z = static_cast<float>(place.at[0]), y = static_cast<float>(place.at[1]),
             x = static_cast<float>(place.at[2]);
  Point point{};
  for (int a = 0; a < 3; ++a) {
    const float* row = slot.matrix + 4 * a;
    point.at[a] = product(row[0], z) + product(row[1], y) + product(row[2], x) + row[3];
  }
  return point;
}

/// The pixel whose centre is nearest; -1 = outside.
VT_HOST_DEVICE inline int32_t nearest_from(const AugmentSlot& slot, int32_t p) {
  const Point point = affine_place(slot, p);
  int32_t from = 0;
  for (int a = 0; a < 3; ++a) {
    const float i = rintf(point.at[a]);
    if (!(i >= 0.0f && i < static_cast<float>(slot.in[a]))) return -1;
    from = from * slot.in[a] + static_cast<int32_t>(i);
  }
  return from;
}

/// Up to eight neighbours of a place with their weights.
struct Corners {
  int32_t from[8];
  float weight[8];  // 0 = not needed
  bool is_inside[8];
  int count;
};
VT_HOST_DEVICE inline Corners corners_of(const AugmentSlot& slot, int32_t p) {
  const Point point = affine_place(slot, p);
  int32_t low[3];
  float high_weight[3];
  for (int a = 0; a < 3; ++a) {
    // Far outside is outside, and stays within integers.
    const float at = fminf(fmaxf(point.at[a], -2.0f), static_cast<float>(slot.in[a]) + 1.0f);
    const float floor_at = floorf(at);
    low[a] = static_cast<int32_t>(floor_at);
    high_weight[a] = at - floor_at;
  }
  Corners corners{};
  // The upper four have no weight in an image, whose first axis has one pixel.
  corners.count = high_weight[0] == 0.0f ? 4 : 8;
  for (int k = 0; k < corners.count; ++k) {
    float weight = 1.0f;
    int32_t from = 0;
    bool is_inside = true;
    for (int a = 0; a < 3; ++a) {
      const bool is_high = (k >> (2 - a)) & 1;
      const int32_t i = low[a] + (is_high ? 1 : 0);
      weight = product(weight, is_high ? high_weight[a] : 1.0f - high_weight[a]);
      is_inside = is_inside && i >= 0 && i < slot.in[a];
      from = from * slot.in[a] + i;
    }
    corners.from[k] = from;
    corners.weight[k] = weight;
    corners.is_inside[k] = is_inside;
  }
  return corners;
}

/// Pixels outside count as `outside`; a neighbour of weight 0 does not count at all.
VT_HOST_DEVICE inline float interpolated(const Corners& corners, const float* in, float outside) {
  float sum = 0.0f;
  for (int k = 0; k < corners.count; ++k) {
    if (corners.weight[k] == 0.0f) continue;
    sum += product(corners.weight[k], corners.is_inside[k] ? in[corners.from[k]] : outside);
  }
  return sum;
}

/// The pixels along one axis that a result pixel of `window` is made of; data::resize's filter.
struct Taps {
  int32_t first, count;
  float center, inverse, total;

  VT_HOST_DEVICE float raw(int32_t j) const {
    const float distance = fabsf(product(static_cast<float>(first + j) - center + 0.5f, inverse));
    return fmaxf(1.0f - distance, 0.0f);
  }
  VT_HOST_DEVICE float weight(int32_t j) const { return raw(j) / total; }
};
VT_HOST_DEVICE inline Taps taps_of(int32_t i, int32_t input, int32_t output) {
  const float scale = static_cast<float>(input) / static_cast<float>(output);
  const float support = fmaxf(scale, 1.0f);
  Taps taps{};
  taps.inverse = 1.0f / support;
  taps.center = product(scale, static_cast<float>(i) + 0.5f);
  const auto low = static_cast<int32_t>(taps.center - support + 0.5f);
  const auto high = static_cast<int32_t>(taps.center + support + 0.5f);
  taps.first = low > 0 ? low : 0;
  taps.count = (high < input ? high : input) - taps.first;
  for (int32_t j = 0; j < taps.count; ++j) taps.total += taps.raw(j);
  return taps;
}

VT_HOST_DEVICE inline float resized(const AugmentSlot& slot, const float* in, int32_t p) {
  const Place place = place_of(p, slot.out[1], slot.out[2]);
  const int32_t *origin = slot.box, *sides = slot.box + 3;
  const Taps z = taps_of(place.at[0], sides[0], slot.out[0]);
  const Taps y = taps_of(place.at[1], sides[1], slot.out[1]);
  const Taps x = taps_of(place.at[2], sides[2], slot.out[2]);
  // First axis innermost, in the order in which data::resize goes over the axes.
  float sum = 0.0f;
  for (int32_t k = 0; k < x.count; ++k) {
    const float weight_x = x.weight(k);
    if (weight_x == 0.0f) continue;
    float column = 0.0f;
    for (int32_t j = 0; j < y.count; ++j) {
      const float weight_y = y.weight(j);
      if (weight_y == 0.0f) continue;
      float line = 0.0f;
      for (int32_t i = 0; i < z.count; ++i) {
        const float weight_z = z.weight(i);
        if (weight_z == 0.0f) continue;
        const int32_t from =
            ((origin[0] + z.first + i) * slot.in[1] + origin[1] + y.first + j) * slot.in[2] +
            origin[2] + x.first + k;
        line += product(weight_z, in[from]);
      }
      column += product(weight_y, line);
    }
    sum += product(weight_x, column);
  }
  return sum;
}

VT_HOST_DEVICE inline int32_t resized_nearest_from(const AugmentSlot& slot, int32_t p) {
  const Place place = place_of(p, slot.out[1], slot.out[2]);
  int32_t from = 0;
  for (int a = 0; a < 3; ++a) {
    const int64_t i = (2 * static_cast<int64_t>(place.at[a]) + 1) * slot.box[3 + a] /
                      (2 * static_cast<int64_t>(slot.out[a]));
    from = from * slot.in[a] + slot.box[a] + static_cast<int32_t>(i);
  }
  return from;
}

/// The class of a result pixel after a geometric operation.
VT_HOST_DEVICE inline int64_t moved_class(const AugmentSlot& slot, const int64_t* in, int32_t p) {
  const int32_t from = slot.op == AugmentOp::gather   ? gathered_from(slot, p)
                       : slot.op == AugmentOp::affine ? nearest_from(slot, p)
                                                      : resized_nearest_from(slot, p);
  return from < 0 ? -1 : in[from];
}

/// A value after a geometric operation, always interpolated; what comes from outside is NaN.
VT_HOST_DEVICE inline float moved_value(const AugmentSlot& slot, const float* in, int32_t p) {
  if (slot.op == AugmentOp::gather) {
    const int32_t from = gathered_from(slot, p);
    return from < 0 ? NAN : in[from];
  }
  if (slot.op == AugmentOp::window) return resized(slot, in, p);
  return interpolated(corners_of(slot, p), in, NAN);
}

}  // namespace vitrail::kernels
