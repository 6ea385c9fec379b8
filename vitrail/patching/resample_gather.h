#pragma once
/// One value of a leaf's map, from all values it is made of; what the GPU's threads run.

#include "vitrail/patching/resample_plan.h"

namespace vitrail::patching {

/// A block of three axes; the last one is contiguous.
struct ValueBlock {
  const float* data;
  int64_t plane, row;  // strides

  VT_HOST_DEVICE double at(int32_t z, int32_t y, int32_t x) const {
    return static_cast<double>(data[z * plane + y * row + x]);
  }
};

/// A result of the map itself.
VT_HOST_DEVICE inline float gathered(const ValueBlock& in, const AxisTaps& z, const AxisTaps& y,
                                     const AxisTaps& x) {
  double sum = 0;
  for (int32_t k = 0; k < z.count; ++k) {
    double plane = 0;
    for (int32_t j = 0; j < y.count; ++j) {
      double line = 0;
      for (int32_t i = 0; i < x.count; ++i)
        line += x.at(i) * in.at(z.first + k, y.first + j, x.first + i);
      plane += y.at(j) * line;
    }
    sum += z.at(k) * plane;
  }
  return static_cast<float>(sum);
}

/// How much value j counts in a result; 0 where it is not part of it.
VT_HOST_DEVICE inline double weight_of(const AxisTaps& result, int32_t j) {
  const int32_t tap = j - result.first;
  return tap >= 0 && tap < result.count ? result.at(tap) : 0.0;
}

/// A result of the adjoint: value (z, y, x) of the map's input. taps_at(axis, i) is the map's result i.
template <class TapsAt>
VT_HOST_DEVICE float adjoint_gathered(const ValueBlock& in, const Axis (&axes)[3], int32_t z,
                                      int32_t y, int32_t x, TapsAt&& taps_at) {
  const AxisRange zs = results_with(axes[0], z), ys = results_with(axes[1], y),
                  xs = results_with(axes[2], x);
  double sum = 0;
  for (int32_t k = zs.low; k < zs.high; ++k) {
    const double weight_z = weight_of(taps_at(0, k), z);
    if (weight_z == 0.0) continue;
    double plane = 0;
    for (int32_t j = ys.low; j < ys.high; ++j) {
      const double weight_y = weight_of(taps_at(1, j), y);
      if (weight_y == 0.0) continue;
      double line = 0;
      for (int32_t i = xs.low; i < xs.high; ++i) {
        const double weight_x = weight_of(taps_at(2, i), x);
        if (weight_x != 0.0) line += weight_x * in.at(k, j, i);
      }
      plane += weight_y * line;
    }
    sum += weight_z * plane;
  }
  return static_cast<float>(sum);
}

/// A leaf's box as whole pixels of three axes.
struct LeafBox {
  int32_t low[3], size[3];
  bool is_bad = false;      // outside the image, or not between pixels
  bool is_padding = false;  // without extent

  VT_HOST_DEVICE int32_t pixels() const { return size[0] * size[1] * size[2]; }
};
VT_HOST_DEVICE inline LeafBox leaf_box(const LeafBatch& leaves, int64_t leaf) {
  const float* box = leaves.boxes + leaf * 2 * leaves.axes;
  LeafBox out{{0, 0, 0}, {1, 1, 1}};
  for (int32_t axis = 0; axis < leaves.axes; ++axis) {
    const int32_t a = 3 - leaves.axes + axis;
    const float low = box[axis], high = box[leaves.axes + axis];
    // Written so that NaN is bad; only then are the numbers safe to convert.
    const bool inside = low >= 0 && high >= low && high <= static_cast<float>(leaves.sides[a]);
    if (!inside) {
      out.is_bad = true;
      continue;
    }
    out.low[a] = static_cast<int32_t>(low);
    out.size[a] = static_cast<int32_t>(high) - out.low[a];
    out.is_bad = out.is_bad || low != static_cast<float>(out.low[a]) ||
                 high != static_cast<float>(out.low[a] + out.size[a]);
    out.is_padding = out.is_padding || out.size[a] == 0;
  }
  return out;
}

}  // namespace vitrail::patching
