#pragma once
/// Resampling along one axis, as the values each result is made of; CPU and GPU use these functions, forward and as
/// adjoint.
///
/// Rules    from n to P places, centres at half pixels, nothing beyond the ends (the last value goes on):
///          area    the average of what a result covers where n > P, linear where n < P.
///          linear  between the two nearest centres, without antialiasing where n > P.
///          cubic   the four nearest centres, a = -0.75 (OpenCV's INTER_CUBIC), likewise without antialiasing.
///          Where n = P each is a copy.
/// Exact    places and shares of pixels are ratios of integers, so that CPU and GPU agree on them.
/// Needs    n * P below kMostPlaces, so that 32 bits hold the integers.

#include <cstdint>

#include "vitrail/core/philox.h"  // VT_HOST_DEVICE
#include "vitrail/patching/options.h"

namespace vitrail::patching {

constexpr int64_t kMostPlaces = int64_t{1} << 28;

enum class AxisRule : int32_t { copy, area, linear, cubic };

struct Axis {
  int32_t from = 1, to = 1;  // places before and after
  AxisRule rule = AxisRule::copy;
};

VT_HOST_DEVICE constexpr Axis make_axis(Resample method, int32_t from, int32_t to) {
  AxisRule rule = AxisRule::linear;
  if (from == to)
    rule = AxisRule::copy;
  else if (method == Resample::cubic)
    rule = AxisRule::cubic;
  else if (method == Resample::area && from > to)
    rule = AxisRule::area;
  return {from, to, rule};
}

/// A result is the sum of at(j) * value[first + j], j < count. The weights sum to 1.
struct AxisTaps {
  int32_t first = 0, count = 0;
  bool is_area = false;
  double weight[4] = {0, 0, 0, 0};  // area: of the first value, of those between, of the last

  VT_HOST_DEVICE double at(int32_t j) const {
    if (!is_area) return weight[j];
    return j == 0 ? weight[0] : j == count - 1 ? weight[2] : weight[1];
  }
};

/// Values low ... high - 1.
struct AxisRange {
  int32_t low = 0, high = 0;
};

VT_HOST_DEVICE constexpr int32_t floor_ratio(int32_t a, int32_t b) {  // b > 0
  return a >= 0 ? a / b : -((b - 1 - a) / b);
}
VT_HOST_DEVICE constexpr int32_t limited(int32_t value, int32_t low, int32_t high) {
  return value < low ? low : value > high ? high : value;
}

VT_HOST_DEVICE inline AxisTaps area_taps(const Axis& axis, int32_t i) {
  // In units of 1 / to of a value: result i covers i * from ... (i + 1) * from, value j covers j * to ... (j + 1) * to.
  const int32_t from = axis.from, to = axis.to, low = i * from, high = low + from;
  const int32_t first = low / to, end = (high + to - 1) / to;
  AxisTaps taps;
  taps.first = first;
  taps.count = end - first;  // at least 2, because from > to
  taps.is_area = true;
  const auto whole = static_cast<double>(from);
  taps.weight[0] = static_cast<double>((first + 1) * to - low) / whole;
  taps.weight[1] = static_cast<double>(to) / whole;
  taps.weight[2] = static_cast<double>(high - (end - 1) * to) / whole;
  return taps;
}

/// Between centres: `weight` of the values base - 1 ... base + 2, those beyond the ends given to the ends.
VT_HOST_DEVICE inline AxisTaps centre_taps(const Axis& axis, int32_t i) {
  const int32_t whole = 2 * axis.to;
  const int32_t place = (2 * i + 1) * axis.from - axis.to;
  const int32_t base = floor_ratio(place, whole);
  const int32_t last = axis.from - 1;
  AxisTaps taps;
  taps.first = limited(base, 0, last);
  if (place == base * whole) {  // on a centre
    taps.count = 1;
    taps.weight[0] = 1;
    return taps;
  }
  const double t = static_cast<double>(place - base * whole) / static_cast<double>(whole);
  double weight[4] = {0, 1 - t, t, 0};
  int32_t reach = 1;
  if (axis.rule == AxisRule::cubic) {
    constexpr double a = -0.75;
    const double s = 1 - t;
    weight[0] = ((a * (t + 1) - 5 * a) * (t + 1) + 8 * a) * (t + 1) - 4 * a;
    weight[1] = ((a + 2) * t - (a + 3)) * t * t + 1;
    weight[2] = ((a + 2) * s - (a + 3)) * s * s + 1;
    weight[3] = 1 - weight[0] - weight[1] - weight[2];
    reach = 2;
  }
  taps.first = limited(base + 1 - reach, 0, last);
  taps.count = limited(base + reach, 0, last) - taps.first + 1;
  for (int32_t k = 1 - reach; k <= reach; ++k)
    taps.weight[limited(base + k, 0, last) - taps.first] += weight[k + 1];
  return taps;
}

/// What result i is made of.
VT_HOST_DEVICE inline AxisTaps taps_of(const Axis& axis, int32_t i) {
  if (axis.rule == AxisRule::area) return area_taps(axis, i);
  if (axis.rule != AxisRule::copy) return centre_taps(axis, i);
  AxisTaps taps;
  taps.first = i;
  taps.count = 1;
  taps.weight[0] = 1;
  return taps;
}

/// Results that value j may be part of; those at the ends of the range need not hold it.
VT_HOST_DEVICE inline AxisRange results_with(const Axis& axis, int32_t j) {
  const int32_t from = axis.from, to = axis.to;
  if (axis.rule == AxisRule::copy) return {j, j + 1};
  if (axis.rule == AxisRule::area)
    return {limited(j * to / from, 0, axis.to),
            limited(((j + 1) * to + from - 1) / from, 0, axis.to)};
  // Centres closer than `reach`; rounded down and up.
  const int32_t reach = axis.rule == AxisRule::cubic ? 2 : 1;
  const int32_t low = floor_ratio((2 * (j - reach) + 1) * to - from, 2 * from);
  const int32_t high = floor_ratio((2 * (j + reach) + 1) * to - from, 2 * from) + 2;
  return {limited(low, 0, axis.to), limited(high, 0, axis.to)};
}

/// Of `from` pixels those whose class counts for place i of `to`. majority: those with their centre in the place, where
/// there are any; otherwise, and for nearest, the one nearest to its centre.
VT_HOST_DEVICE inline AxisRange voters(LabelRule rule, int32_t from, int32_t to, int32_t i) {
  if (rule == LabelRule::majority) {
    // Pixel j is inside when i * from <= (j + 1/2) * to < (i + 1) * from: the least j with (2 j + 1) * to >= 2 * bound.
    const int32_t low = floor_ratio(2 * i * from - to + 2 * to - 1, 2 * to);
    const int32_t high = floor_ratio(2 * (i + 1) * from - to + 2 * to - 1, 2 * to);
    if (low < high) return {low, high};
  }
  const int32_t nearest = (2 * i + 1) * from / (2 * to);
  return {nearest, nearest + 1};
}

}  // namespace vitrail::patching
