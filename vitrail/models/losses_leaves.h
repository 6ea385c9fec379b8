#pragma once
/// Losses of models whose predictions are leaves, and the way of these predictions to the image.
///
/// Spaces   model.adaptive.loss_space leaf: leaves are compared with what the label or the image is on them; image: they
///          are pasted and compared pixel by pixel.
/// Weights  in leaf space every pixel of a patch counts 1, or with model.adaptive.area_weight by the pixels of the image
///          that it stands for: the leaf's volume / P^k. Padding counts nowhere.
/// Shapes   B batch, C channels or classes, L leaves, P patch edge, k axes, S values of a token in the order (p, q[, r], c).

#include <ATen/core/Tensor.h>

#include "vitrail/config/recipe.h"
#include "vitrail/data/batch.h"

namespace vitrail::models {

/// Leaves [B, C, L, P^k] on the image [B, C, sides...] by model.adaptive.resample; pixels in no leaf are 0.
/// Differentiable.
at::Tensor paste_leaves(const at::Tensor& leaves_BCLP, const at::Tensor& boxes,
                        const config::Model& options);

/// Tokens [B, L, S] on the image likewise. `trees`: 1, or the channels that have a tree each, L / trees leaves and S = P^k
/// values of one channel.
at::Tensor paste_values(const at::Tensor& tokens_BLS, const at::Tensor& boxes, int64_t trees,
                        const config::Model& options);

/// segmentation_loss or values_loss of one prediction a leaf, logits or values [B, C, L, P^k], in leaf space. Label
/// int64 [B, sides...]: each patch's classes by model.adaptive.labels, -1 counts nowhere; float [B, C, sides...]: resampled
/// as the image is, what a NaN reaches counts nowhere.
/// throws Error naming both shapes.
at::Tensor leaf_label_loss(const at::Tensor& prediction_BCLP, const at::Tensor& label,
                           const at::Tensor& boxes, const config::Model& options);

/// The values of a batch's leaves as tokens, fp32 (fp64 stays) [B, L, S]. One tree per channel: S = P^k, that channel's.
at::Tensor leaf_values(const data::Batch& batch);

/// The loss of hidden leaves (model.loss masked_mse) or of all (mse), prediction [B, L, S], mask_BL 1 = hidden.
///
/// leaf   reconstruction_loss of the leaves' values, normalised with model.norm_pix_loss.
/// image  mean of (pasted prediction - image)^2 over the pixels of these leaves and their channels.
/// throws Error when image space lacks batch.image.
at::Tensor leaf_reconstruction_loss(const data::Batch& batch, const at::Tensor& prediction_BLS,
                                    const at::Tensor& mask_BL, const config::Model& options);

}  // namespace vitrail::models
