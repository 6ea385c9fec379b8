#include "vitrail/models/leaves.h"

#include <ATen/core/grad_mode.h>

#include "vitrail/core/error.h"
#include "vitrail/models/feature_scorer.h"
#include "vitrail/models/mixed_resolution.h"
#include "vitrail/models/parts.h"
#include "vitrail/models/tokenizer.h"

namespace vitrail::models {

LeafMaker::LeafMaker(const config::Model& options) : options_(options) {
  if (options.adaptive.fixed_length > 0) leaf_ = patching::leaf_options(options);
}

/// The scorer's map; undefined where the image itself says what matters.
at::Tensor LeafMaker::importance(const data::Batch& batch) const {
  if (!(options_.adaptive.importance == "feature_based")) return {};
  if (!scorer_) scorer_ = std::make_shared<const FeatureScorer>(options_.adaptive.scorer_weights);
  return scorer_->importance(batch.image, batch.pixel_range);
}

patching::LeafTensors LeafMaker::adaptive_leaves(const data::Batch& batch,
                                                 const nn::Draws& draws) const {
  const at::Tensor& ids = batch.sample_ids.defined() ? batch.sample_ids : draws.sample_ids;
  const at::Tensor edges_B3 =
      patching::edge_options(leaf_, draws.seed, batch.epoch, ids, draws.training);
  return patching::make_leaves(batch.image, batch.pixel_range, leaf_, edges_B3, importance(batch));
}

patching::LeafTensors LeafMaker::leaves_of(const data::Batch& batch, const nn::Draws& draws) const {
  if (options_.mixed_resolution.num_tokens == 0) return adaptive_leaves(batch, draws);
  if (!mixed_) mixed_ = std::make_shared<const MixedResolution>(options_);
  return mixed_->leaves_of(batch.image, batch.pixel_range, draws);
}

data::Batch LeafMaker::with_leaves(data::Batch batch, const nn::Draws& draws) const {
  if (options_.num_leaves() == 0 || batch.leaf_tokens.defined()) return batch;
  VT_CHECK(batch.image.defined(),
           "[model] a batch must hold images, or leaf_tokens and leaf_boxes in their place; give "
           "one of them");
  const auto channels = batch.variables.empty() ? known_channels(options_)
                                                : static_cast<int64_t>(batch.variables.size());
  check_image(options_, channels, batch.image);
  const at::NoGradGuard no_grad;
  const patching::LeafTensors leaves = leaves_of(batch, draws);
  batch.leaf_tokens = leaves.tokens;
  batch.leaf_boxes = leaves.boxes;
  return batch;
}

}  // namespace vitrail::models
