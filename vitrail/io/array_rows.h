#pragma once
/// Walks over the rows of two arrays of the same sides whose values lie differently.

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace vitrail::io {

/// Steps between neighbours along each axis of row-major values, `unit` for the last. Meaningless,
/// not wrong, for sides whose product is zero.
inline std::vector<int64_t> row_major_strides(std::span<const int64_t> sides, int64_t unit) {
  std::vector<int64_t> strides(sides.size());
  auto step = static_cast<uint64_t>(unit);  // wraps beside a side of zero
  for (size_t axis = sides.size(); axis-- > 0; step *= static_cast<uint64_t>(sides[axis]))
    strides[axis] = static_cast<int64_t>(step);
  return strides;
}

/// row(from, to) for the first place of every row of the last axis, in row-major order; the places
/// are sums of index * stride. Nothing for an array without values; one row without axes.
template <class Row>
void for_each_row(std::span<const int64_t> sides, std::span<const int64_t> from_strides,
                  std::span<const int64_t> to_strides, const Row& row, int64_t from = 0,
                  int64_t to = 0) {
  for (const int64_t side : sides)
    if (side == 0) return;
  const size_t outer = sides.empty() ? 0 : sides.size() - 1;
  std::vector<int64_t> index(outer, 0);
  for (;;) {
    row(from, to);
    size_t axis = outer;
    for (; axis > 0; --axis) {
      const size_t k = axis - 1;
      from += from_strides[k];
      to += to_strides[k];
      if (++index[k] < sides[k]) break;
      from -= sides[k] * from_strides[k];
      to -= sides[k] * to_strides[k];
      index[k] = 0;
    }
    if (axis == 0) return;
  }
}

}  // namespace vitrail::io
