#pragma once
/// Copies boxes between memory of different strides.

#include <cstddef>
#include <cstdint>
#include <span>

namespace vitrail::io {

/// to[sum i_k * to_strides[k]] = from[sum i_k * from_strides[k]] for all i_k < sides[k], where an
/// element has `item` (1, 2, 4 or 8) bytes. Strides in bytes; at most 12 axes. Order of axes does
/// not matter: the copy runs along the axis in which `to` is densest.
void copy_strided(const std::byte* from, std::span<const int64_t> from_strides, std::byte* to,
                  std::span<const int64_t> to_strides, std::span<const int64_t> sides,
                  int64_t item);

/// The same with one element as the source.
void fill_strided(const std::byte* element, std::byte* to, std::span<const int64_t> to_strides,
                  std::span<const int64_t> sides, int64_t item);

}  // namespace vitrail::io
