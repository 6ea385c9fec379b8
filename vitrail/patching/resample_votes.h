#pragma once
/// Classes of a leaf's places; CPU and GPU use these functions.

#include "vitrail/patching/resample_plan.h"

namespace vitrail::patching {

/// Classes of an image or volume, from a leaf's low corner on.
struct LabelBlock {
  const int64_t* data;
  int64_t plane, row;  // strides

  VT_HOST_DEVICE int64_t at(int32_t z, int32_t y, int32_t x) const {
    return data[z * plane + y * row + x];
  }
};

/// Whether all of the ranges' product are of the first one's class, as most are.
VT_HOST_DEVICE inline bool is_uniform(const LabelBlock& labels, AxisRange z, AxisRange y,
                                      AxisRange x) {
  const int64_t first = labels.at(z.low, y.low, x.low);
  for (int32_t k = z.low; k < z.high; ++k)
    for (int32_t j = y.low; j < y.high; ++j)
      for (int32_t i = x.low; i < x.high; ++i)
        if (labels.at(k, j, i) != first) return false;
  return true;
}

/// Most frequent class of the ranges' product but -1, of equals the least; -1 where there is none.
VT_HOST_DEVICE inline int64_t winner(const LabelBlock& labels, AxisRange z, AxisRange y,
                                     AxisRange x) {
  int64_t winner = -1, most = 0, current = -1;
  if (is_uniform(labels, z, y, x)) {
    const int64_t label = labels.at(z.low, y.low, x.low);
    return label < 0 ? -1 : label;
  }
  for (;;) {  // class after class, from the least on
    int64_t next = INT64_MAX, count = 0, left = 0;
    for (int32_t k = z.low; k < z.high; ++k)
      for (int32_t j = y.low; j < y.high; ++j)
        for (int32_t i = x.low; i < x.high; ++i) {
          const int64_t label = labels.at(k, j, i);
          if (label <= current) continue;
          ++left;
          if (label < next) next = label, count = 0;
          if (label == next) ++count;
        }
    if (count > most) winner = next, most = count;
    if (left - count <= most) return winner;  // the others are too few
    current = next;
  }
}

/// Share of one class in the product of the taps.
VT_HOST_DEVICE inline double share_of(const LabelBlock& labels, int64_t label, const AxisTaps& z,
                                      const AxisTaps& y, const AxisTaps& x) {
  double sum = 0;
  for (int32_t k = 0; k < z.count; ++k)
    for (int32_t j = 0; j < y.count; ++j) {
      const double weight = z.at(k) * y.at(j);
      for (int32_t i = 0; i < x.count; ++i)
        if (labels.at(z.first + k, y.first + j, x.first + i) == label) sum += weight * x.at(i);
    }
  return sum;
}

}  // namespace vitrail::patching
