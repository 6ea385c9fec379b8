#pragma once
/// What models are trained on, as plain tensor operations with gradients; scalars.
///
/// Shapes   B batch, C classes, N pixels or voxels of a sample, L tokens, S values per token.
/// Types    computed in fp32; fp64 input stays fp64.
/// Labels   -1 counts nowhere: not in a sum, not in a mean. A batch in which nothing counts gives 0
///          with zero gradients.
/// Memory   one probability per logit and term (Dice, cross-entropy) and one byte per logit are kept for
///          backward.

#include <functional>

#include <ATen/core/Tensor.h>

#include "vitrail/config/recipe.h"

namespace vitrail::models {

/// logits [B, C], label int64 [B].
///
/// cross_entropy  torch's cross_entropy(weight = class_weights, label_smoothing, ignore_index = -1):
///                sum of w_y loss / sum of w_y.
/// focal          mean of w_y (1 - p_y)^gamma (-log p_y) over the rows that count, not divided by the
///                weights; Lin et al. 2017, arXiv:1708.02002. gamma = 0 without weights is
///                cross-entropy. Label smoothing plays no part.
/// throws ConfigError for another loss or a wrong number of class weights; DataError when a label on
/// the CPU is not below C; Error naming both shapes.
at::Tensor classification_loss(const at::Tensor& logits_BC, const at::Tensor& label_B,
                               const config::Model& options);

/// Labels of mixed samples (data::Batch): `share_B` of label_B and the rest of other_B.
struct MixedLabel {
  at::Tensor label_B, other_B;  // int64; other_B undefined = none is mixed
  at::Tensor share_B;           // float in [0, 1]
};
/// classification_loss with both labels of every sample in its sums, weighted by their shares: without
/// class weights torch's cross_entropy of the mixed probabilities.
at::Tensor classification_loss(const at::Tensor& logits_BC, const MixedLabel& label,
                               const config::Model& options);

/// Sums over the pixels given -> sums over all pixels of the same samples, where others hold the rest; differentiable.
/// Empty: the pixels given are all.
using SumOverParts = std::function<at::Tensor(const at::Tensor& sums)>;

/// logits [B, C, sides...], label int64 [B, sides...]; 2-D, 3-D or any other number of sides.
///
/// cross_entropy     as above, over all pixels of the batch.
/// focal             as above, over all pixels. MONAI's FocalLoss(use_softmax, to_onehot_y, gamma)
///                   has this value when given an ignore_index; without one it also divides by C.
/// dice              mean over samples and classes, background included, of
///                   1 - 2 sum(p g) / (sum(p^2) + sum(g) + 1e-6), sums over the pixels that count.
///                   MONAI's DiceLoss(softmax, to_onehot_y, squared_pred, smooth_nr 0, smooth_dr
///                   1e-6). A class that a sample lacks adds 1 and no gradient, as there.
/// dice_ce           dice + cross_entropy; MONAI's DiceCELoss with the same words.
/// dice_focal        dice + focal. (MONAI's DiceFocalLoss takes the sigmoid form of the focal term.)
/// generalized_dice  mean over samples of 1 - 2 sum_c w_c sum(p g) / sum_c w_c (sum(p) + sum(g)) with
///                   w_c = sum(g)^-2, a class that the sample lacks having the largest weight; Sudre
///                   et al. 2017, arXiv:1707.03237. MONAI's GeneralizedDiceLoss(softmax,
///                   to_onehot_y, w_type square, smooth_nr 0, smooth_dr 0); its default 1e-5
///                   would outweigh every class of more than 1e5 voxels.
/// bce               binary cross-entropy of class 1 against class 0, mean over pixels: torch's
///                   binary_cross_entropy_with_logits of the difference of the two logits.
/// bce_dice          half of it and half of the mean over samples of 1 - (2 sum(p g) + s) / (sum(p) + sum(g) + s), s =
///                   1e-6, of class 1.
/// Differs  class_weights enter the cross-entropy and focal terms alone. A sample in which nothing
///          counts is left out of the mean of the Dice losses.
/// `weight` [B, sides...], or of sides that broadcast to them: how much each pixel counts in every sum above (that of an
/// adaptive leaf by the pixels of the image that it stands for); undefined = all count 1.
/// `sum` makes it the loss of whole samples of which these are parts.
/// throws as classification_loss.
at::Tensor segmentation_loss(const at::Tensor& logits, const at::Tensor& label,
                             const config::Model& options, const at::Tensor& weight = {},
                             const SumOverParts& sum = {});

/// prediction and target alike, [B, V] or [B, V, sides...]: mean of (prediction - target)^2 over the
/// values whose target is a number; NaN counts nowhere. `weight` broadcasts to them; undefined = 1. `sum` as above.
/// throws Error naming both shapes.
at::Tensor values_loss(const at::Tensor& prediction, const at::Tensor& target,
                       const at::Tensor& weight = {}, const SumOverParts& sum = {});

/// prediction and target [B, L, S], mask [B, L] with 1 = hidden.
///
/// masked_mse  sum of mask mean_S((prediction - target)^2) / sum of mask.
/// mse         mean over all tokens. `counts_BL` says how much a token counts in both forms (0 = it is
///             padding; otherwise 1, or the pixels it covers); undefined = every token counts 1.
/// throws ConfigError for another loss; Error naming both shapes.
at::Tensor reconstruction_loss(const at::Tensor& prediction_BLS, const at::Tensor& target_BLS,
                               const at::Tensor& mask_BL, const config::Model& options,
                               const at::Tensor& counts_BL = {});

/// Mean and standard deviation of each token's values, [B, L, 1]: sqrt(unbiased variance + 1e-6), as
/// He et al.'s norm_pix_loss; (target - mean) / deviation is what the model then predicts.
struct PatchScale {
  at::Tensor mean_BL1, deviation_BL1;
};
PatchScale patch_scale(const at::Tensor& target_BLS);

}  // namespace vitrail::models
