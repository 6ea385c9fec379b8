#pragma once
/// The loss of predicted boxes: match predictions with true boxes at least cost, then compare the pairs.
///
///   loss = sum over predictions p (the final one and the earlier) of
///          class_weight * class(p) + l1_weight * |box - true box|_1 + giou_weight * (1 - GIoU)
/// Box terms are sums over a sample's pairs divided by their number, the class term is cross-entropy averaged over the
/// sample's queries by the classes' weights (no object: no_object_weight) or focal loss summed over queries and classes
/// and divided by the number of pairs; then all is averaged over samples. So the loss does not depend on how samples are
/// cut into batches and ranks.
/// Matching the cost of a pair is made of the same terms: class_weight * (-probability, or for focal loss its terms),
///          l1_weight * L1, -giou_weight * GIoU. model.detection.auxiliary_matches queries answer for each box in the
///          earlier predictions, as far as there are enough.
/// Paper    Carion et al. 2020, arXiv:2005.12872; GIoU: Rezatofighi et al. 2019, arXiv:1902.09630; focal loss: Lin et al.
///          2017, arXiv:1708.02002; several matches: Jia et al. 2023, arXiv:2207.13080.
/// Differs  DETR divides by the mean number of boxes of all ranks' batches.
/// Shapes   B batch, Q queries, M places for boxes, K logits.

#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>

#include "vitrail/config/recipe.h"
#include "vitrail/data/batch.h"
#include "vitrail/models/detection_head.h"
#include "vitrail/models/model.h"

namespace vitrail::models {

/// True boxes of a batch in the form of predictions.
struct TrueBoxes {
  at::Tensor boxes;    // [B, M, 4]: centre x, centre y, width, height as shares of the image
  at::Tensor classes;  // int64 [B, M]; -1 = no box
};
/// Boxes of a batch, whose corners are in pixels of images of these sides, [H, W].
TrueBoxes true_boxes(const data::Batch& batch, at::IntArrayRef image_size);

/// Which query answers for which box.
struct Match {
  int64_t sample = 0, query = 0, box = 0;
};
/// Costs of all pairs, [B, Q, M]; columns without a box mean nothing.
at::Tensor matching_cost(const BoxPrediction& prediction, const TrueBoxes& truth,
                         const config::Model& options);
/// Sample after sample, in the order of boxes. Waits for the device.
/// throws   DataError when a class is not below model.num_classes.
std::vector<Match> match(const BoxPrediction& prediction, const TrueBoxes& truth,
                         const config::Model& options, int64_t matches_of_a_box = 1);

/// A scalar, fp32 (fp64 of fp64 predictions).
/// throws   DataError when a class is not below model.num_classes.
at::Tensor detection_loss(const DetectionPredictions& predictions, const TrueBoxes& truth,
                          const config::Model& options);

/// Fills output, boxes, and loss when the batch has boxes (corners in pixels of model.image_size).
void finish_detection(Output& out, const DetectionPredictions& predictions,
                      const data::Batch& batch, const config::Model& options);

}  // namespace vitrail::models
