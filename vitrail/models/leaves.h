#pragma once
/// Where a model's leaves come from: the batch, or the image, of which they are made here.
///
/// Places   the loader's threads make leaves of every sample (data.patching loader), or the model itself makes them of the
///          whole batch on its device (step); thresholds of a training sample are drawn from the same numbers in both:
///          the run's seed, the epoch and the sample's id.
/// Threads  one thread at a time.
/// Shapes   B batch, C channels, L leaves, P patch edge, k axes, as data::Batch has them.

#include <memory>

#include <ATen/core/Tensor.h>

#include "vitrail/config/recipe.h"
#include "vitrail/data/batch.h"
#include "vitrail/nn/draws.h"
#include "vitrail/patching/batch.h"

namespace vitrail::models {

class FeatureScorer;
class MixedResolution;

class LeafMaker {
 public:
  /// Weights of networks that score images are read when leaves are first made.
  explicit LeafMaker(const config::Model& options);

  /// The batch with leaf_tokens and leaf_boxes: its own where it has them, otherwise made of batch.image, without a
  /// gradient to it. A batch for a model without leaves comes back as it is.
  /// throws   Error for a batch without an image or with one of another shape; CheckpointError for a
  ///          scorer's weights that do not fit; and as patching::make_leaves and MixedResolution do.
  data::Batch with_leaves(data::Batch batch, const nn::Draws& draws) const;

 private:
  patching::LeafTensors leaves_of(const data::Batch& batch, const nn::Draws& draws) const;
  patching::LeafTensors adaptive_leaves(const data::Batch& batch, const nn::Draws& draws) const;
  at::Tensor importance(const data::Batch& batch) const;

  config::Model options_;
  patching::LeafOptions leaf_;
  // Built at the first use: models without memory, and those whose batches bring leaves, need none. Copies share it.
  mutable std::shared_ptr<const FeatureScorer> scorer_;
  mutable std::shared_ptr<const MixedResolution> mixed_;
};

}  // namespace vitrail::models
