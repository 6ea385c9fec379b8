#include "vitrail/patching/adaptive.h"

#include <algorithm>

#include "vitrail/core/checked.h"
#include "vitrail/core/error.h"
#include "vitrail/patching/filters.h"
#include "vitrail/patching/resample.h"

namespace vitrail::patching {
namespace {

template <int K>
int64_t grow_boxes(std::span<const uint8_t> importance, std::span<const int64_t> sides,
                   const TreeOptions& options, std::span<float> boxes) {
  std::array<int64_t, K> extents;
  std::copy_n(sides.begin(), K, extents.begin());
  const std::vector<Box<K>> leaves = grow_tree<K>(importance, extents, options);
  auto out = boxes.begin();
  for (const Box<K>& leaf : leaves) {
    const auto as_float = [](int64_t pixel) { return static_cast<float>(pixel); };
    out = std::transform(leaf.low.begin(), leaf.low.end(), out, as_float);
    out = std::transform(leaf.high.begin(), leaf.high.end(), out, as_float);
  }
  std::fill(out, boxes.end(), 0.0f);
  return std::ssize(leaves);
}

void check_image(size_t values, int64_t channels, std::span<const int64_t> sides) {
  VT_CHECK(sides.size() == 2 || sides.size() == 3,
           "[patching] an image must have 2 or 3 sides but got {}", sides.size());
  for (const int64_t side : sides)
    VT_CHECK(side >= 1, "[patching] every side must be at least 1 but got {}", side);
  const int64_t pixels = core::checked_product(sides, "pixels of an image");
  VT_CHECK(channels >= 1 && core::checked_mul(channels, pixels, "values of an image") ==
                                static_cast<int64_t>(values),
           "[patching] an image of {} channels and {} pixels cannot have {} values", channels,
           pixels, values);
}

/// The edge map of floats.
std::vector<uint8_t> edges_of(std::span<const float> image, int64_t channels,
                              std::span<const int64_t> sides, const ByteRange& range,
                              const EdgeOptions& options) {
  check_image(image.size(), channels, sides);
  std::vector<uint8_t> bytes(image.size());
  to_bytes(image, channels, range, bytes);
  std::vector<uint8_t> edges(static_cast<size_t>(pixels_of(sides)));
  edge_map(bytes, channels, sides, options, edges);
  return edges;
}

}  // namespace

int64_t token_values(const AdaptiveOptions& options, int64_t channels, int64_t axes) {
  int64_t values = core::checked_mul(channels, options.fixed_length, "tokens of a sample");
  for (int64_t axis = 0; axis < axes; ++axis)
    values = core::checked_mul(values, options.patch_size, "tokens of a sample");
  return values;
}

int64_t box_values(const AdaptiveOptions& options, int64_t axes) {
  return core::checked_mul(options.fixed_length, 2 * axes, "boxes of a sample");
}

int64_t leaf_boxes(std::span<const uint8_t> importance, std::span<const int64_t> sides,
                   const AdaptiveOptions& options, std::span<float> boxes) {
  check_image(importance.size(), 1, sides);
  VT_CHECK(std::ssize(boxes) == box_values(options, std::ssize(sides)),
           "[patching] {} leaves of {} axes cannot have {} values of boxes", options.fixed_length,
           sides.size(), boxes.size());
  const TreeOptions tree{options.fixed_length,
                         options.min_leaf == 0 ? options.patch_size : options.min_leaf,
                         options.value_floor, options.order};
  return sides.size() == 2 ? grow_boxes<2>(importance, sides, tree, boxes)
                           : grow_boxes<3>(importance, sides, tree, boxes);
}

int64_t patchify(std::span<const float> image, int64_t channels, std::span<const int64_t> sides,
                 const AdaptiveOptions& options, const EdgeOptions& edges, std::span<float> tokens,
                 std::span<float> boxes) {
  const std::vector<uint8_t> importance = edges_of(image, channels, sides, options.range, edges);
  const int64_t count = leaf_boxes(importance, sides, options, boxes);
  serialise(image, channels, sides, boxes, options.patch_size, tokens);
  return count;
}

Leaves patchify(std::span<const float> image, int64_t channels, std::span<const int64_t> sides,
                const AdaptiveOptions& options, const EdgeOptions& edges) {
  Leaves leaves;
  leaves.edges = edges_of(image, channels, sides, options.range, edges);
  leaves.boxes.resize(static_cast<size_t>(box_values(options, std::ssize(sides))));
  leaves.count = leaf_boxes(leaves.edges, sides, options, leaves.boxes);
  leaves.tokens.resize(static_cast<size_t>(token_values(options, channels, std::ssize(sides))));
  serialise(image, channels, sides, leaves.boxes, options.patch_size, leaves.tokens);
  return leaves;
}

}  // namespace vitrail::patching
