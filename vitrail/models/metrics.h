#pragma once
/// Exact metrics of a data set from batches that may end in padding: integer counts and fp64 sums,
/// so that the result does not depend on how the samples were cut into batches and ranks.

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>

namespace vitrail::models {

/// Names and values in the order in which they are shown.
using MetricList = std::vector<std::pair<std::string, double>>;
/// throws Error when there is no such metric.
double metric(const MetricList& metrics, const std::string& name);

/// Counts of a classifier. Rows with label -1 are padding and count nowhere.
class ClassificationTally {
 public:
  /// The confusion matrix is kept up to this many classes.
  static constexpr int64_t kMaxConfusionClasses = 128;

  explicit ClassificationTally(int64_t num_classes);

  /// logits [B, classes] fp32, label int64 [B]; any device. The loss is plain cross-entropy,
  /// without label smoothing. throws DataError when a label is not below num_classes.
  void add(const at::Tensor& logits, const at::Tensor& label);

  /// Everything as numbers that may be added over ranks: samples, top-1, top-5, loss sum, confusion
  /// row by row.
  std::vector<double>& sums() { return sums_; }
  int64_t samples() const { return static_cast<int64_t>(sums_[0]); }
  /// accuracy and top5_accuracy in [0, 1], loss per sample; top5_accuracy from six classes on. NaN
  /// without samples.
  MetricList metrics() const;
  /// [true class][predicted class]; empty above kMaxConfusionClasses.
  std::vector<std::vector<int64_t>> confusion() const;

 private:
  int64_t num_classes_;
  bool keeps_confusion_;
  std::vector<double> sums_;
};

/// Mean of a per-sample loss.
class MeanTally {
 public:
  /// `mean` is the mean over `samples` samples.
  void add(double mean, int64_t samples);
  std::vector<double>& sums() { return sums_; }
  int64_t samples() const { return static_cast<int64_t>(sums_[0]); }
  MetricList metrics() const;

 private:
  std::vector<double> sums_{0.0, 0.0};
};

}  // namespace vitrail::models
