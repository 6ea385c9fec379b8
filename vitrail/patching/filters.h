#pragma once
/// Small integer filters along one axis of an array, the parts of blur and Sobel operator.

#include <cstdint>
#include <span>
#include <vector>

namespace vitrail::patching {

/// Product of the sides.
int64_t pixels_of(std::span<const int64_t> sides);

/// What lies beyond the ends of an axis: the last value (a a|a b c), or the mirror image without it
/// (c b|a b c).
enum class Border { replicate, reflect };

/// difference: next - previous; smooth3: 1 2 1; smooth5: 1 4 6 4 1.
enum class Filter { difference, smooth3, smooth5 };

/// out = the filter along `axis` of in, both [sides...] and apart from each other. Exact: integers, no
/// division.
void filter_axis(std::span<const int32_t> in, std::span<const int64_t> sides, size_t axis,
                 Filter filter, Border border, std::span<int32_t> out);

/// The filters one axis after another, axis i with filters[i]; `scratch` has the array's size.
void filter_axes(std::vector<int32_t>& values, std::span<const int64_t> sides,
                 std::span<const Filter> filters, Border border, std::vector<int32_t>& scratch);

}  // namespace vitrail::patching
