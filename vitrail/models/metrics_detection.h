#pragma once
/// COCO's mean average precision, exact: pycocotools' rules over boxes.
///
/// Matching  per image and class, predictions by falling score (at most 100), each takes the free true box of greatest
///           IoU at or above the threshold (of equal ones the last); crowds may be taken by many. A prediction on a box
///           that is ignored (crowd, or area outside of the range), or on none with an area outside of the range, counts
///           nowhere.
/// Precision made to fall with recall, read at the recalls 0, 0.01, ..., 1, averaged; then the mean over classes that
///           have boxes, and over the thresholds 0.5, 0.55, ..., 0.95.
/// Paper     Lin et al. 2014, arXiv:1405.0312; reference code cocodataset/cocoapi, cocoeval.py.

#include <array>
#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>

#include "vitrail/config/recipe.h"
#include "vitrail/models/metrics.h"

namespace vitrail::models {

/// A predicted box: x0, y0, x1, y1 in pixels.
struct FoundBox {
  std::array<double, 4> corners{};
  int64_t label = 0;
  double score = 0;
};

/// A true one. Areas outside of a range are ignored in it; COCO's files say areas of outlines, ours are of boxes.
struct TrueBox {
  std::array<double, 4> corners{};
  int64_t label = 0;
  double area = 0;
  bool is_crowd = false;
};

/// COCO's: all; below 32^2; 32^2 to 96^2; above. Both ends belong to each.
constexpr int64_t kAreaRanges = 4;
constexpr int64_t kThresholds = 10;
/// Predictions of an image that count.
constexpr int64_t kMaxFound = 100;

/// What one prediction is at every threshold and in every range of areas: bit threshold * kAreaRanges + range.
struct ScoredBox {
  int64_t image = 0, label = 0;
  int64_t rank = 0;  // by score among those of its image and class, from 0
  double score = 0;
  uint64_t is_matched = 0, is_ignored = 0;
};

/// Of one image.
struct ImageScores {
  std::vector<ScoredBox> boxes;
  /// [label * kAreaRanges + range]: true boxes that count.
  std::vector<int64_t> truths;
};
/// throws DataError for a label that is not below num_classes.
ImageScores score_image(int64_t image, const std::vector<FoundBox>& found,
                        const std::vector<TrueBox>& truth, int64_t num_classes);

/// pycocotools' twelve numbers and the average precision of each class; NaN where there is no true box.
struct CocoMetrics {
  double ap, ap50, ap75, ap_small, ap_medium, ap_large;
  double ar1, ar10, ar100, ar_small, ar_medium, ar_large;
  std::vector<double> class_ap, class_ap50;
};
/// Any order of boxes: images count by their numbers.
CocoMetrics coco_metrics(std::vector<ScoredBox> boxes, const std::vector<int64_t>& truths,
                         int64_t num_classes);

/// The boxes of one sample that count: of a cross-entropy head each query with its likeliest class, of a focal one the
/// best pairs of query and class; by falling score, at most kMaxFound, none below min_score.
/// logits [Q, K], boxes [Q, 4] centres as shares; the image has the sides [H, W].
std::vector<FoundBox> found_boxes(const at::Tensor& logits, const at::Tensor& boxes,
                                  const config::Model& options, at::IntArrayRef image_size,
                                  double min_score = 0);
/// boxes [M, 4] corners in pixels, classes [M] with -1 = none.
std::vector<TrueBox> true_boxes_of(const at::Tensor& boxes, const at::Tensor& classes);

/// map, ap50, ap75, ap_small, ap_medium, ap_large (map of each range of areas), ar1, ar10, ar100, loss. Areas are those
/// in the model's image; ranges without true boxes are left out.
class DetectionTally : public Tally {
 public:
  explicit DetectionTally(const config::Model& options);
  void add(const data::Batch& batch, const Output& output) override;
  MetricList metrics() const override;
  /// All of it, of the records of all ranks.
  CocoMetrics coco() const;

 private:
  config::Model options_;
};

}  // namespace vitrail::models
