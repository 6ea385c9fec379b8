#pragma once
/// Leaves of adaptive patching as rows of a batch, made by the loader's threads.
///
/// Batch    leaf_tokens [B, C, L, P^k] and leaf_boxes [B, L, 2k] (patching/adaptive.h) beside `image`. Edges
///          are looked for with thresholds drawn from the run's seed, the batch's epoch and the sample's
///          id in training, with fixed ones in evaluation: as the model does that makes leaves of the
///          batch itself (patching/batch.h), which finds the same.
/// Not here importance feature_based, trees per_channel and mixed resolution: the model's alone.
/// Threads  const and safe from many threads; no ATen operations but in allocate() and memory of its
///          own for each call.

#include <cstdint>
#include <span>
#include <vector>

#include "vitrail/config/recipe.h"
#include "vitrail/data/augment.h"
#include "vitrail/data/batch.h"
#include "vitrail/patching/options.h"

namespace vitrail::data {

/// The model's leaves are of a kind that threads of the loader can make.
bool has_loader_leaves(const config::Model& model);

/// A row of Batch::pixel_range [C, 2]: what 0 and 1 became by the source's mean and std; with normalize
/// none, where values have no range, zeros. raw: before mean and std.
std::vector<float> pixel_range_of(const config::Source& source, const config::Model& model,
                                  bool raw = false);
/// n such rows, float [n, C, 2].
at::Tensor pixel_ranges(const std::vector<float>& row, int64_t n);

class LeafRows {
 public:
  /// training: thresholds are drawn.
  LeafRows(const config::Model& model, bool training);

  /// Makes leaf_tokens and leaf_boxes for n samples of C channels.
  void allocate(Batch& batch, int64_t n, int64_t channels, bool pin_memory) const;
  /// Writes row p of leaf_tokens and leaf_boxes: the leaves of image [C, sides...] with C the channels
  /// of leaf_tokens, `range` [C, 2] as in Batch::pixel_range.
  /// throws   Error for NaN and infinite pixels.
  void place(std::span<const float> image, std::span<const float> range, const AugmentPlace& at,
             const Batch& batch, int64_t p) const;
  /// Makes row p nothing but padding.
  void pad(const Batch& batch, int64_t p) const;

 private:
  std::vector<int64_t> sides_;
  patching::LeafOptions options_;
  bool training_;
};

}  // namespace vitrail::data
