#pragma once
/// Adaptive patches in the place of images: the rows of a batch for models with model.adaptive.
///
/// Batch    leaf_tokens [B, C, L, P^k] and leaf_boxes [B, L, 2k] (patching/adaptive.h) instead of `image`.
///          Edges are looked for with thresholds drawn from the run's seed, the epoch and the sample's
///          index in training, with fixed ones in evaluation.
/// Labels   sap, whose output is a mosaic of the leaves: masks [sides...] become mosaics [B, s * P, ...]
///          of the same leaves by majority, images of values [V, sides...] mosaics of averages; padding
///          leaves are -1 or NaN. Other labels stay as they are.
/// Threads  const and safe from many threads; no ATen operations but in allocate() and memory of its
///          own for each call.

#include <cstdint>
#include <span>
#include <vector>

#include "vitrail/config/recipe.h"
#include "vitrail/data/augment.h"
#include "vitrail/data/batch.h"
#include "vitrail/patching/adaptive.h"

namespace vitrail::data {

class LeafRows {
 public:
  /// training: thresholds are drawn.
  /// throws   ConfigError when model.adaptive does not fit sap's mosaic.
  LeafRows(const config::Model& model, bool training);

  /// model.adaptive.fixed_length > 0; nothing else may be called when it is false.
  bool is_on() const { return options_.fixed_length > 0; }
  /// Labels of pixels become mosaics.
  bool has_mosaics() const { return !mosaic_.empty(); }

  /// Makes leaf_tokens and leaf_boxes for n samples of C channels. Where there are mosaics, `label` is
  /// made anew for them: [n, label's channels..., s * P, ...] of its type.
  void allocate(Batch& batch, int64_t n, int64_t channels, bool pin_memory) const;

  /// What a transform wrote for one sample: image [C, sides...], normalised; mask [sides...] or values
  /// [V, sides...], empty = none.
  struct Staged {
    std::span<const float> image;
    std::span<const int64_t> mask;
    std::span<const float> values;
  };
  /// Writes row p of leaf_tokens, leaf_boxes and, where there are mosaics, label. `range` undoes the
  /// source's mean and std; it stretches where values have no range of their own (normalize none).
  void place(const Staged& staged, const patching::ByteRange& range, const AugmentPlace& at,
             const Batch& batch, int64_t p) const;
  /// Makes row p nothing but padding.
  void pad(const Batch& batch, int64_t p) const;

 private:
  std::vector<int64_t> sides_, mosaic_;
  patching::AdaptiveOptions options_;
  bool training_;
};

}  // namespace vitrail::data
