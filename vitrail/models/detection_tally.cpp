// Found and true boxes of batches, and the tally that keeps what became of them.

#include <algorithm>
#include <cmath>

#include <ATen/TensorOperators.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/sort.h>

#include "vitrail/core/error.h"
#include "vitrail/models/metrics_detection.h"
#include "vitrail/ops/boxes.h"

namespace vitrail::models {
namespace {

enum Sum : size_t { kSamples, kLoss, kTruths };

// Numbers of one record: image, class, rank, score, matched and ignored bits (40, which a double holds exactly).
constexpr size_t kRecord = 6;

/// Scores [n], their queries and classes.
struct Candidates {
  at::Tensor score, query, label;
};

Candidates candidates(const at::Tensor& logits, const config::Model& options) {
  const int64_t C = options.num_classes;
  if (options.detection.class_loss == "focal") {
    const at::Tensor score = at::sigmoid(logits).flatten();
    const auto [sorted, place] = at::sort(score, /*stable=*/true, 0, /*descending=*/true);
    return {sorted, place.floor_divide(C), place.remainder(C)};
  }
  const auto [score, label] = at::softmax(logits, -1).narrow(-1, 0, C).max(-1);
  const auto [sorted, place] = at::sort(score, /*stable=*/true, 0, /*descending=*/true);
  return {sorted, place, label.index_select(0, place)};
}

}  // namespace

std::vector<FoundBox> found_boxes(const at::Tensor& logits, const at::Tensor& boxes,
                                  const config::Model& options, at::IntArrayRef image_size,
                                  double min_score) {
  const Candidates best = candidates(logits.detach().to(at::kCPU, at::kDouble), options);
  const at::Tensor corners =
      ops::centres_to_corners(boxes.detach().to(at::kCPU, at::kDouble)).contiguous();
  const double sides[2] = {static_cast<double>(image_size[1]), static_cast<double>(image_size[0])};
  const auto* score = best.score.const_data_ptr<double>();
  const at::Tensor queries = best.query.contiguous(), labels = best.label.contiguous();
  std::vector<FoundBox> found;
  for (int64_t i = 0; i < std::min(kMaxFound, best.score.size(0)); ++i) {
    // A broken model finds nothing: its scores are not numbers.
    if (!(score[i] >= min_score)) continue;
    const double* box = corners.const_data_ptr<double>() + 4 * queries.const_data_ptr<int64_t>()[i];
    FoundBox one{{}, labels.const_data_ptr<int64_t>()[i], score[i]};
    for (size_t k = 0; k < 4; ++k)
      one.corners[k] = std::clamp(box[k] * sides[k % 2], 0.0, sides[k % 2]);
    found.push_back(one);
  }
  return found;
}

std::vector<TrueBox> true_boxes_of(const at::Tensor& boxes, const at::Tensor& classes) {
  const at::Tensor corners = boxes.detach().to(at::kCPU, at::kDouble).contiguous();
  const at::Tensor labels = classes.to(at::kCPU, at::kLong).contiguous();
  std::vector<TrueBox> truth;
  for (int64_t m = 0; m < labels.numel(); ++m) {
    const double* box = corners.const_data_ptr<double>() + 4 * m;
    const int64_t label = labels.const_data_ptr<int64_t>()[m];
    if (label < 0) continue;
    truth.push_back({{box[0], box[1], box[2], box[3]}, label});
    truth.back().area = (box[2] - box[0]) * (box[3] - box[1]);
  }
  return truth;
}

DetectionTally::DetectionTally(const config::Model& options)
    : Tally(kTruths + static_cast<size_t>(options.num_classes * kAreaRanges)), options_(options) {}

void DetectionTally::add(const data::Batch& batch, const Output& output) {
  if (!batch.boxes.defined() || batch.size() == 0) return;
  const at::Tensor ids = batch.sample_ids.to(at::kCPU, at::kLong).contiguous();
  for (int64_t i = 0; i < batch.size(); ++i) {
    const ImageScores scores =
        score_image(ids.const_data_ptr<int64_t>()[i],
                    found_boxes(output.output[i], output.boxes[i], options_, options_.image_size),
                    true_boxes_of(batch.boxes[i], batch.box_classes[i]), options_.num_classes);
    for (size_t k = 0; k < scores.truths.size(); ++k)
      sums_[kTruths + k] += static_cast<double>(scores.truths[k]);
    for (const ScoredBox& box : scores.boxes)
      for (const double number :
           {static_cast<double>(box.image), static_cast<double>(box.label),
            static_cast<double>(box.rank), box.score, static_cast<double>(box.is_matched),
            static_cast<double>(box.is_ignored)})
        records_.push_back(number);
  }
  sums_[kSamples] += static_cast<double>(batch.size());
  if (output.loss.defined())
    sums_[kLoss] += output.loss.item<double>() * static_cast<double>(batch.size());
}

CocoMetrics DetectionTally::coco() const {
  std::vector<ScoredBox> boxes;
  for (size_t i = 0; i + kRecord <= records_.size(); i += kRecord) {
    const double* row = records_.data() + i;
    boxes.push_back({static_cast<int64_t>(row[0]), static_cast<int64_t>(row[1]),
                     static_cast<int64_t>(row[2]), row[3], static_cast<uint64_t>(row[4]),
                     static_cast<uint64_t>(row[5])});
  }
  std::vector<int64_t> truths;
  for (size_t k = kTruths; k < sums_.size(); ++k) truths.push_back(static_cast<int64_t>(sums_[k]));
  return coco_metrics(std::move(boxes), truths, options_.num_classes);
}

MetricList DetectionTally::metrics() const {
  const CocoMetrics coco = this->coco();
  MetricList list{{"map", coco.ap}, {"ap50", coco.ap50}, {"ap75", coco.ap75}};
  for (const auto& [name, value] : {std::pair{"ap_small", coco.ap_small},
                                    {"ap_medium", coco.ap_medium},
                                    {"ap_large", coco.ap_large}})
    if (!std::isnan(value)) list.emplace_back(name, value);
  list.emplace_back("ar1", coco.ar1);
  list.emplace_back("ar10", coco.ar10);
  list.emplace_back("ar100", coco.ar100);
  list.emplace_back("loss", samples() > 0 ? sums_[kLoss] / sums_[kSamples] : std::nan(""));
  return list;
}

}  // namespace vitrail::models
