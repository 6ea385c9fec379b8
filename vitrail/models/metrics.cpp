#include "vitrail/models/metrics.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "vitrail/core/error.h"
#include "vitrail/models/metrics_detection.h"
#include "vitrail/models/metrics_reconstruction.h"
#include "vitrail/models/metrics_segmentation.h"

namespace vitrail::models {

namespace {

enum Sum : size_t { kSamples, kTop1, kTop5, kLoss, kConfusion };

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

/// -log softmax(row)[label] in fp64.
double cross_entropy(const float* row, int64_t classes, int64_t label) {
  const double largest = *std::max_element(row, row + classes);
  double sum = 0;
  for (int64_t c = 0; c < classes; ++c) sum += std::exp(static_cast<double>(row[c]) - largest);
  return std::log(sum) + (largest - static_cast<double>(row[label]));
}

/// How many classes are not below the label's; of equal logits the lower class is first, as in a
/// stable sort. NaN is above everything, itself included, so that a broken model is never right.
int64_t rank_of(const float* row, int64_t classes, int64_t label) {
  int64_t above = 0;
  for (int64_t c = 0; c < classes; ++c) {
    const bool equal = row[c] == row[label];
    const bool below = row[c] < row[label];
    above += equal ? (c < label) : !below;
  }
  return above;
}

}  // namespace

double metric(const MetricList& metrics, const std::string& name) {
  for (const auto& [key, value] : metrics)
    if (key == name) return value;
  core::fail("[metrics] there is no metric '{}'", name);
}

std::unique_ptr<Tally> make_tally(Task task, const config::Model& options,
                                  const PixelScale& scale) {
  switch (task) {
    case Task::classification:
      return std::make_unique<ClassificationTally>(options.num_classes);
    case Task::segmentation:
      return std::make_unique<SegmentationTally>(options);
    case Task::reconstruction:
      return std::make_unique<ReconstructionTally>(options, scale);
    case Task::denoising:
      return std::make_unique<DenoisingTally>();
    case Task::regression:
      return std::make_unique<RegressionTally>();
    case Task::detection:
      return std::make_unique<DetectionTally>(options);
  }
  core::fail("[metrics] a task must be one of six but got {}", static_cast<int>(task));
}

ClassificationTally::ClassificationTally(int64_t num_classes)
    : Tally(kConfusion + (num_classes <= kMaxConfusionClasses ? num_classes * num_classes : 0)),
      num_classes_(num_classes),
      keeps_confusion_(num_classes <= kMaxConfusionClasses) {}

void ClassificationTally::add(const data::Batch& batch, const Output& output) {
  if (batch.label.defined()) add(output.output, batch.label);
}

void ClassificationTally::add(const at::Tensor& logits, const at::Tensor& label) {
  const at::Tensor rows = logits.detach().to(at::kCPU, at::kFloat).contiguous();
  const at::Tensor labels = label.to(at::kCPU, at::kLong).contiguous();
  VT_CHECK(rows.dim() == 2 && rows.size(1) == num_classes_ && labels.numel() == rows.size(0),
           "[metrics] logits must be [{}, {}] but got {} values of {} dimensions", labels.numel(),
           num_classes_, rows.numel(), rows.dim());
  for (int64_t i = 0; i < rows.size(0); ++i) {
    const int64_t truth = labels.const_data_ptr<int64_t>()[i];
    if (truth < 0) continue;
    VT_REQUIRE(DataError, truth < num_classes_,
               "[metrics] a label must be below model.num_classes = {} but got {}", num_classes_,
               truth);
    const float* row = rows.const_data_ptr<float>() + i * num_classes_;
    const int64_t above = rank_of(row, num_classes_, truth);
    sums_[kSamples] += 1;
    sums_[kTop1] += above == 0 ? 1 : 0;
    sums_[kTop5] += above < 5 ? 1 : 0;
    sums_[kLoss] += cross_entropy(row, num_classes_, truth);
    if (keeps_confusion_) {
      const int64_t predicted = std::max_element(row, row + num_classes_) - row;
      sums_[kConfusion + truth * num_classes_ + predicted] += 1;
    }
  }
}

MetricList ClassificationTally::metrics() const {
  const double samples = sums_[kSamples] > 0 ? sums_[kSamples] : kNone;
  MetricList list{{"accuracy", sums_[kTop1] / samples}};
  if (num_classes_ > 5) list.emplace_back("top5_accuracy", sums_[kTop5] / samples);
  list.emplace_back("loss", sums_[kLoss] / samples);
  return list;
}

std::vector<std::vector<int64_t>> ClassificationTally::confusion() const {
  std::vector<std::vector<int64_t>> rows;
  if (!keeps_confusion_) return rows;
  for (int64_t truth = 0; truth < num_classes_; ++truth) {
    const auto begin = sums_.begin() + kConfusion + truth * num_classes_;
    rows.emplace_back(begin, begin + num_classes_);
  }
  return rows;
}

void MeanTally::add(const data::Batch& batch, const Output& output) {
  if (output.loss.defined() && batch.size() > 0) add(output.loss.item<double>(), batch.size());
}

void MeanTally::add(double mean, int64_t samples) {
  sums_[0] += static_cast<double>(samples);
  sums_[1] += mean * static_cast<double>(samples);
}

MetricList MeanTally::metrics() const {
  return {{"loss", sums_[0] > 0 ? sums_[1] / sums_[0] : kNone}};
}

}  // namespace vitrail::models
