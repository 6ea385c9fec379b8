#pragma once
/// Distance of two floats in units in the last place, for tests of updates.

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdlib>

namespace vitrail::testing {

/// 0 for equal bits and for +0 against -0; a very large number when exactly one is NaN.
inline int64_t ulp_distance(float a, float b) {
  if (std::isnan(a) || std::isnan(b)) return std::isnan(a) && std::isnan(b) ? 0 : INT64_MAX;
  const auto ordered = [](float value) {
    const auto bits = std::bit_cast<int32_t>(value);
    return static_cast<int64_t>(bits < 0 ? INT32_MIN - static_cast<int64_t>(bits) : bits);
  };
  return std::llabs(ordered(a) - ordered(b));
}

}  // namespace vitrail::testing
