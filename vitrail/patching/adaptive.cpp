#include "vitrail/patching/adaptive.h"

#include <algorithm>

#include "vitrail/core/checked.h"
#include "vitrail/core/error.h"
#include "vitrail/patching/compat_ucf.h"
#include "vitrail/patching/filters.h"
#include "vitrail/patching/importance.h"
#include "vitrail/patching/resample.h"
#include "vitrail/patching/tree_division.h"

namespace vitrail::patching {
namespace {

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

struct Divided {
  std::vector<uint8_t> importance;
  int64_t count;
};

/// Everything but the tokens.
Divided divide_image(std::span<const float> image, int64_t channels, std::span<const int64_t> sides,
                     std::span<const float> range, const LeafOptions& options,
                     const EdgeOptions& edges, std::span<float> boxes) {
  check_image(image.size(), channels, sides);
  VT_CHECK(!options.per_channel,
           "[patching] patchify makes one tree for all channels; call it for "
           "each channel to make a tree for each");
  std::vector<uint8_t> bytes(image.size());
  scale_to_bytes(image, channels, range, bytes);
  Divided divided{std::vector<uint8_t>(static_cast<size_t>(pixels_of(sides))), 0};
  if (options.compat) {
    const UcfMap map = ucf_map(bytes, channels, sides, edges);
    divided.count = ucf_boxes(map, sides, options.fixed_length, boxes);
    // Noise is shown by its upper eight bits.
    std::ranges::transform(map.values, divided.importance.begin(), [&](int32_t value) {
      return static_cast<uint8_t>(map.unit == 1 ? value : value >> 8);
    });
    return divided;
  }
  importance_map(bytes, channels, sides, options, edges, divided.importance);
  divided.count = leaf_boxes(divided.importance, sides, options, boxes);
  return divided;
}

void serialise_leaves(std::span<const float> image, int64_t channels,
                      std::span<const int64_t> sides, const LeafOptions& options,
                      std::span<const float> boxes, std::span<float> tokens) {
  if (options.compat)
    ucf_serialise(image, channels, sides, boxes, options.patch_size, tokens);
  else
    serialise(image, channels, sides, boxes, options.patch_size, tokens, options.resample);
}

}  // namespace

int64_t token_values(const LeafOptions& options, int64_t channels, int64_t axes) {
  int64_t values = core::checked_mul(channels, options.fixed_length, "tokens of a sample");
  for (int64_t axis = 0; axis < axes; ++axis)
    values = core::checked_mul(values, options.patch_size, "tokens of a sample");
  return values;
}

int64_t box_values(const LeafOptions& options, int64_t axes) {
  VT_CHECK(options.fixed_length >= 1 && options.patch_size >= 1,
           "[patching] fixed_length and patch_size must be at least 1 but got {} and {}",
           options.fixed_length, options.patch_size);
  return core::checked_mul(options.fixed_length, 2 * axes, "boxes of a sample");
}

int64_t leaf_boxes(std::span<const uint8_t> importance, std::span<const int64_t> sides,
                   const LeafOptions& options, std::span<float> boxes) {
  check_image(importance.size(), 1, sides);
  VT_CHECK(options.fixed_length >= 1 && std::ssize(boxes) == box_values(options, std::ssize(sides)),
           "[patching] {} leaves of {} axes cannot have {} values of boxes", options.fixed_length,
           sides.size(), boxes.size());
  const TreeShape shape = tree_shape(sides, options.min_leaf);
  const SumPyramid sums(importance, shape);
  const std::vector<int64_t> keys =
      divided(shape, sums.scores(), options.fixed_length, options.value_floor, options.order);
  write_boxes(shape, options.order, keys, boxes);
  return std::ssize(keys);
}

EdgeOptions training_edges(const LeafOptions& options, uint64_t seed, int64_t epoch,
                           int64_t index) {
  return options.compat ? drawn_ucf_edges(seed, epoch, index) : drawn_edges(seed, epoch, index);
}

int64_t patchify(std::span<const float> image, int64_t channels, std::span<const int64_t> sides,
                 std::span<const float> range, const LeafOptions& options, const EdgeOptions& edges,
                 std::span<float> tokens, std::span<float> boxes) {
  const int64_t count = divide_image(image, channels, sides, range, options, edges, boxes).count;
  serialise_leaves(image, channels, sides, options, boxes, tokens);
  return count;
}

Leaves patchify(std::span<const float> image, int64_t channels, std::span<const int64_t> sides,
                std::span<const float> range, const LeafOptions& options,
                const EdgeOptions& edges) {
  Leaves leaves;
  leaves.boxes.resize(static_cast<size_t>(box_values(options, std::ssize(sides))));
  Divided divided = divide_image(image, channels, sides, range, options, edges, leaves.boxes);
  leaves.count = divided.count;
  leaves.importance = std::move(divided.importance);
  leaves.tokens.resize(static_cast<size_t>(token_values(options, channels, std::ssize(sides))));
  serialise_leaves(image, channels, sides, options, leaves.boxes, leaves.tokens);
  return leaves;
}

}  // namespace vitrail::patching
