#pragma once
/// What `vitrail patch` shows of one image or volume.

#include <cstdint>
#include <optional>
#include <string>

#include <ATen/core/Tensor.h>

#include "vitrail/config/recipe.h"
#include "vitrail/patching/picture.h"

namespace vitrail::app {

/// One image, C channels and k sides.
struct PatchInput {
  at::Tensor image;   // [1, C, sides...], as the model gets it
  at::Tensor range;   // [1, C, 2], as data::Batch::pixel_range
  at::Tensor values;  // [1, C, sides...], before mean and std, for people
};

/// Its leaves; T trees of L leaves, T = C with a tree for each channel, else 1.
struct PatchLeaves {
  at::Tensor tokens;      // [1, C / T, T L, P^k]
  at::Tensor boxes;       // [1, T L, 2k]
  at::Tensor importance;  // uint8 [T, sides...]: what leaves were divided by
  int64_t trees = 1;
};

/// As the recipe's model makes them in evaluation, or in training of the sample `sample` in `epoch`.
PatchLeaves leaves_of(const config::Recipe& recipe, const PatchInput& input, int64_t epoch,
                      std::optional<int64_t> sample);

/// One picture (patching::draw_leaves) a tree, one below the other.
patching::Picture draw(const config::Model& model, const PatchInput& input,
                       const PatchLeaves& leaves, int64_t slices);

/// Lines for people: real leaves and padding, what they were divided by, leaves by edge and their share of the pixels.
std::string describe(const config::Model& model, const PatchLeaves& leaves);

}  // namespace vitrail::app
