#pragma once
/// How well every pixel's class was found.

#include <cstdint>
#include <vector>

#include "vitrail/models/metrics.h"

namespace vitrail::models {

/// Metrics from one confusion matrix over all pixels of all samples; a label of -1 counts nowhere and
/// the predicted class is the largest logit's, the lowest of equals. Per class, TP, FP and FN give
///
/// dice            mean of 2 TP / (2 TP + FP + FN) over classes from 1 on (0 is the background)
/// mean_dice       the same over all classes
/// mean_iou        mean of TP / (TP + FP + FN) over all classes
/// sensitivity     mean of TP / (TP + FN) over classes from 1 on that the truth holds
/// specificity     mean of TN / (TN + FP) over the same classes
/// pixel_accuracy  share of right pixels
/// sample_dice     the mean of `dice` taken in each sample alone, over classes that its truth holds;
///                 MONAI's DiceMetric(include_background=False)
/// loss            mean over samples of the training loss of each alone, in fp64
/// dice_class_k, iou_class_k   each class, background included; up to kMaxListedClasses classes
///
/// A class in neither truth nor prediction has no value: NaN of its own, and left out of means. One
/// that is only predicted has 0 (but is left out of sample_dice, as in MONAI).
class SegmentationTally : public Tally {
 public:
  static constexpr int64_t kMaxListedClasses = 32;

  /// throws ConfigError when there are fewer than 2 classes.
  explicit SegmentationTally(const config::Model& options);

  /// output [B, classes, sides...], label [B, sides...]; a batch without labels counts nowhere, nor
  /// does a sample without any label. throws DataError when a label is not below num_classes.
  void add(const data::Batch& batch, const Output& output) override;
  MetricList metrics() const override;
  std::vector<std::vector<int64_t>> confusion() const override;

 private:
  void add_sample(const at::Tensor& logits, const at::Tensor& label);

  config::Model options_;
  int64_t num_classes_;
};

}  // namespace vitrail::models
