#include "vitrail/patching/resample.h"

#include <algorithm>

#include "vitrail/core/checked.h"
#include "vitrail/core/error.h"
#include "vitrail/patching/resample_leaves.h"

namespace vitrail::patching {
namespace {

void check_sizes(size_t values, size_t leaf_values, int64_t channels, int64_t patch_size,
                 const LeafBoxes& boxes) {
  VT_CHECK(patch_size >= 1 && patch_size <= kLargestPatch && channels >= 1,
           "[patching] patch size must be 1 to {} and channels at least 1 but got {} and {}",
           kLargestPatch, patch_size, channels);
  const int64_t patch_pixels =
      boxes.axes() == 3 ? patch_size * patch_size * patch_size : patch_size * patch_size;
  for (const int64_t side : boxes.sides())
    VT_CHECK(side * patch_size < kMostPlaces,
             "[patching] side times patch size must be below 2^28 but got {} * {}", side,
             patch_size);
  const int64_t pixels = core::checked_product(boxes.sides(), "pixels of an image");
  VT_CHECK(std::cmp_equal(core::checked_mul(channels, pixels, "values of an image"), values),
           "[patching] an image of {} channels and {} pixels cannot have {} values", channels,
           pixels, values);
  const int64_t leaf_pixels = core::checked_mul(boxes.count(), patch_pixels, "pixels of leaves");
  VT_CHECK(
      std::cmp_equal(core::checked_mul(channels, leaf_pixels, "values of leaves"), leaf_values),
      "[patching] {} leaves of {} channels and {} pixels cannot have {} values", boxes.count(),
      channels, patch_pixels, leaf_values);
}

/// One of the four maps over all leaves.
void resample(const LeafMap& map, std::span<const float> in, int64_t channels,
              std::span<const int64_t> sides, std::span<const float> boxes, int64_t patch_size,
              std::span<float> out) {
  const LeafBoxes leaves(boxes, sides);
  const bool to_patch = map.to_patch();
  check_sizes(to_patch ? in.size() : out.size(), to_patch ? out.size() : in.size(), channels,
              patch_size, leaves);
  if (!to_patch) std::fill(out.begin(), out.end(), 0.0f);
  LeafResampler resampler(map, channels, patch_size);
  for (int64_t leaf = 0; leaf < leaves.count(); ++leaf)
    resampler(leaves, leaf, in.data(), out.data());
}

}  // namespace

void serialise(std::span<const float> image, int64_t channels, std::span<const int64_t> sides,
               std::span<const float> boxes, int64_t patch_size, std::span<float> tokens,
               Resample method) {
  resample({method, false, false}, image, channels, sides, boxes, patch_size, tokens);
}

void serialise_adjoint(std::span<const float> tokens, int64_t channels,
                       std::span<const int64_t> sides, std::span<const float> boxes,
                       int64_t patch_size, std::span<float> image, Resample method) {
  resample({method, false, true}, tokens, channels, sides, boxes, patch_size, image);
}

void paste(std::span<const float> tokens, int64_t channels, std::span<const int64_t> sides,
           std::span<const float> boxes, int64_t patch_size, std::span<float> image,
           Resample method) {
  resample({method, true, false}, tokens, channels, sides, boxes, patch_size, image);
}

void paste_adjoint(std::span<const float> image, int64_t channels, std::span<const int64_t> sides,
                   std::span<const float> boxes, int64_t patch_size, std::span<float> tokens,
                   Resample method) {
  resample({method, true, true}, image, channels, sides, boxes, patch_size, tokens);
}

void serialise_labels(std::span<const int64_t> labels, std::span<const int64_t> sides,
                      std::span<const float> boxes, int64_t patch_size,
                      std::span<int64_t> leaf_labels, LabelRule rule) {
  const LeafBoxes leaves(boxes, sides);
  check_sizes(labels.size(), leaf_labels.size(), 1, patch_size, leaves);
  for (int64_t leaf = 0; leaf < leaves.count(); ++leaf)
    label_leaf(rule, patch_size, leaves, leaf, labels.data(), leaf_labels.data());
}

void serialise_shares(std::span<const int64_t> labels, int64_t classes,
                      std::span<const int64_t> sides, std::span<const float> boxes,
                      int64_t patch_size, std::span<float> shares) {
  const LeafBoxes leaves(boxes, sides);
  VT_CHECK(classes >= 1 && shares.size() % static_cast<size_t>(classes) == 0,
           "[patching] shares of {} classes cannot have {} values", classes, shares.size());
  check_sizes(labels.size(), shares.size() / static_cast<size_t>(classes), 1, patch_size, leaves);
  for (int64_t leaf = 0; leaf < leaves.count(); ++leaf)
    share_leaf(classes, patch_size, leaves, leaf, labels.data(), shares.data());
}

}  // namespace vitrail::patching
