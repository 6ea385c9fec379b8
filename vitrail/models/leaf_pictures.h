#pragma once
/// What a masked autoencoder over leaves says, on the image.

#include <ATen/core/Tensor.h>

#include "vitrail/config/recipe.h"
#include "vitrail/data/batch.h"

namespace vitrail::models {

/// Shapes   both [B, C, sides...] as the batch's image.
struct LeafPictures {
  at::Tensor predicted;  // every leaf's prediction, pasted; 0 where there is no leaf
  at::Tensor hidden;  // bool: pixels of hidden leaves; with a tree per channel, of that channel's
};

/// batch with image, leaf_tokens and leaf_boxes; prediction [B, L, S], mask [B, L] with 1 = hidden. With
/// model.norm_pix_loss a prediction is put back on the mean and variance of its leaf.
LeafPictures paste_prediction(const data::Batch& batch, const at::Tensor& prediction_BLS,
                              const at::Tensor& mask_BL, const config::Model& options);

}  // namespace vitrail::models
