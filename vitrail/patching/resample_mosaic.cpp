#include <cmath>

#include "vitrail/core/error.h"
#include "vitrail/patching/resample.h"

namespace vitrail::patching {
namespace {

int64_t mosaic_side(int64_t leaves, int64_t axes) {
  const auto side =
      std::llround(std::pow(static_cast<double>(leaves), 1.0 / static_cast<double>(axes)));
  VT_CHECK((axes == 2 || axes == 3) && (axes == 2 ? side * side : side * side * side) == leaves,
           "[patching] a mosaic of {} axes cannot hold {} leaves", axes, leaves);
  return side;
}

/// body(place among the leaves, place in the mosaic) for each pixel.
template <class Body>
void for_mosaic(size_t values, int64_t axes, int64_t patch_size, Body&& body) {
  const int64_t patch = axes == 3 ? patch_size : 1;
  const int64_t patch_pixels = patch * patch_size * patch_size;
  const int64_t leaves = static_cast<int64_t>(values) / patch_pixels;
  VT_CHECK(leaves * patch_pixels == static_cast<int64_t>(values),
           "[patching] {} values are no whole leaves of {} pixels", values, patch_pixels);
  const int64_t side = mosaic_side(leaves, axes), width = side * patch_size;
  const int64_t depth = axes == 3 ? width : 1, layers = axes == 3 ? side : 1;
  for (int64_t z = 0; z < depth; ++z)
    for (int64_t y = 0; y < width; ++y)
      for (int64_t x = 0; x < width; ++x) {
        const int64_t layer = z / patch % layers;
        const int64_t leaf = (layer * side + y / patch_size) * side + x / patch_size;
        const int64_t inside =
            (z % patch * patch_size + y % patch_size) * patch_size + x % patch_size;
        body(static_cast<size_t>(leaf * patch_pixels + inside),
             static_cast<size_t>((z * width + y) * width + x));
      }
}

}  // namespace

template <class T>
void to_mosaic(std::span<const T> leaves, int64_t axes, int64_t patch_size, std::span<T> mosaic) {
  VT_CHECK(leaves.size() == mosaic.size(), "[patching] {} values do not fill a mosaic of {}",
           leaves.size(), mosaic.size());
  for_mosaic(mosaic.size(), axes, patch_size,
             [&](size_t leaf, size_t place) { mosaic[place] = leaves[leaf]; });
}

template <class T>
void from_mosaic(std::span<const T> mosaic, int64_t axes, int64_t patch_size, std::span<T> leaves) {
  VT_CHECK(leaves.size() == mosaic.size(), "[patching] a mosaic of {} does not fill {} values",
           mosaic.size(), leaves.size());
  for_mosaic(mosaic.size(), axes, patch_size,
             [&](size_t leaf, size_t place) { leaves[leaf] = mosaic[place]; });
}

template void to_mosaic(std::span<const float>, int64_t, int64_t, std::span<float>);
template void to_mosaic(std::span<const int64_t>, int64_t, int64_t, std::span<int64_t>);
template void from_mosaic(std::span<const float>, int64_t, int64_t, std::span<float>);
template void from_mosaic(std::span<const int64_t>, int64_t, int64_t, std::span<int64_t>);

std::vector<int64_t> mosaic_sides(int64_t leaves, int64_t axes, int64_t patch_size) {
  return std::vector<int64_t>(static_cast<size_t>(axes), mosaic_side(leaves, axes) * patch_size);
}

}  // namespace vitrail::patching
