#pragma once
/// Sizes of arrays.

#include <cstdint>
#include <span>

namespace vitrail::patching {

/// Product of the sides.
inline int64_t pixels_of(std::span<const int64_t> sides) {
  int64_t product = 1;
  for (const int64_t side : sides) product *= side;
  return product;
}

}  // namespace vitrail::patching
