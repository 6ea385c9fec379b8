#pragma once
/// How leaves are made, as data: what every form of adaptive patching (CPU, GPU, batched) goes by.

#include <cstdint>

#include "vitrail/config/recipe_model.h"
#include "vitrail/patching/tree.h"

namespace vitrail::patching {

/// Where detail is looked for. Maps are bytes [sides...] of one sample.
///
/// edges     1 on Canny edges, 0 elsewhere (edges.h).
/// gradient  min(255, length of the blurred image's Sobel gradient / 4).
/// variance  min(255, squared difference from the mean of the 5^k neighbourhood / 16).
/// given     one channel of the image.
enum class Importance { edges, gradient, variance, given };

/// Leaves to patches and back, axis by axis with half-pixel centres (resample.h).
enum class Resample { area, cubic, linear };
enum class LabelRule { majority, nearest };

struct LeafOptions {
  int64_t fixed_length = 196;
  int64_t patch_size = 16;
  int64_t min_leaf = 16;  // edge of the smallest leaf, pixels
  int64_t value_floor = -1;
  Order order = Order::morton;
  Importance importance = Importance::edges;
  int64_t importance_channel = 0;
  Resample resample = Resample::area;
  LabelRule labels = LabelRule::majority;
  bool per_channel = false;
  bool compat = false;  // UCF-VIT's rules
};

/// Of model.adaptive; min_leaf 0 becomes patch_size. Importance feature_based becomes given: its map is made elsewhere.
LeafOptions leaf_options(const config::Model& model);

}  // namespace vitrail::patching
