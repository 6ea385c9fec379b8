#pragma once
/// Arithmetic on sizes that come from files and recipes: throws instead of wrapping round.

#include <cstdint>
#include <span>
#include <string_view>

#include "vitrail/core/error.h"

namespace vitrail::core {

/// a * b.
/// throws   Error naming `what` if the product does not fit in int64.
inline int64_t checked_mul(int64_t a, int64_t b, std::string_view what) {
  int64_t result = 0;
  VT_CHECK(!__builtin_mul_overflow(a, b, &result), "[size] {} must fit in 64 bits but got {} * {}",
           what, a, b);
  return result;
}

/// a + b.
/// throws   Error naming `what` if the sum does not fit in int64.
inline int64_t checked_add(int64_t a, int64_t b, std::string_view what) {
  int64_t result = 0;
  VT_CHECK(!__builtin_add_overflow(a, b, &result), "[size] {} must fit in 64 bits but got {} + {}",
           what, a, b);
  return result;
}

/// The product of all factors; 1 for none. A zero anywhere gives 0 only if no partial product
/// overflows before it. throws   Error naming `what` if a partial product does not fit in int64.
inline int64_t checked_product(std::span<const int64_t> factors, std::string_view what) {
  int64_t result = 1;
  for (const int64_t factor : factors) result = checked_mul(result, factor, what);
  return result;
}

}  // namespace vitrail::core
