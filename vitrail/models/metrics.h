#pragma once
/// Exact metrics of a data set: integer counts and fp64 sums, sample by sample, so that the result
/// does not depend on how the samples were cut into batches and ranks.

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>

#include "vitrail/config/recipe.h"
#include "vitrail/data/batch.h"
#include "vitrail/models/model.h"

namespace vitrail::models {

/// Names and values in the order in which they are shown.
using MetricList = std::vector<std::pair<std::string, double>>;
/// throws Error when there is no such metric.
double metric(const MetricList& metrics, const std::string& name);

/// Sums over samples. Evaluation adds every batch, adds `sums` over the ranks, gives every rank the `records` of all,
/// then asks for metrics.
class Tally {
 public:
  virtual ~Tally() = default;
  /// One batch without padding rows and the model's output for it; any device.
  virtual void add(const data::Batch& batch, const Output& output) = 0;
  /// Everything as numbers that may be added over ranks; the first is the number of samples.
  std::vector<double>& sums() { return sums_; }
  /// What cannot be added: numbers that are laid end to end over ranks, in any order of ranks. Most tasks have none.
  std::vector<double>& records() { return records_; }
  int64_t samples() const { return static_cast<int64_t>(sums_[0]); }
  /// NaN for what nothing was counted for.
  virtual MetricList metrics() const = 0;
  /// [true class][predicted class] of samples or pixels; empty for other tasks and above
  /// kMaxConfusionClasses.
  virtual std::vector<std::vector<int64_t>> confusion() const { return {}; }

  /// The confusion matrix is kept up to this many classes.
  static constexpr int64_t kMaxConfusionClasses = 128;

 protected:
  explicit Tally(size_t count) : sums_(count, 0.0) {}
  std::vector<double> sums_, records_;
};

/// How a source's values were normalised, which metrics of images undo: value * std + mean, per
/// channel of the batch; empty = 0.5, as in config::Source.
struct PixelScale {
  std::vector<double> mean, std;
  double data_range = 1.0;  // of the values before normalisation; enters PSNR and SSIM
};

/// The tally of a task.
/// throws ConfigError when the options ask for a loss that the task lacks (at the first batch).
std::unique_ptr<Tally> make_tally(Task task, const config::Model& options,
                                  const PixelScale& scale = {});

/// Counts of a classifier: accuracy and top5_accuracy in [0, 1], loss per sample; top5_accuracy from
/// six classes on. Rows with label -1 are padding and count nowhere. The loss is plain
/// cross-entropy, without label smoothing or weights.
class ClassificationTally : public Tally {
 public:
  explicit ClassificationTally(int64_t num_classes);

  /// A batch without labels counts nowhere.
  void add(const data::Batch& batch, const Output& output) override;
  /// logits [B, classes] fp32, label int64 [B]; any device. throws DataError when a label is not
  /// below num_classes.
  void add(const at::Tensor& logits, const at::Tensor& label);

  MetricList metrics() const override;
  std::vector<std::vector<int64_t>> confusion() const override;

 private:
  int64_t num_classes_;
  bool keeps_confusion_;
};

/// Mean of a per-sample loss.
class MeanTally : public Tally {
 public:
  MeanTally() : Tally(2) {}
  /// output.loss is the mean over the batch.
  void add(const data::Batch& batch, const Output& output) override;
  /// `mean` is the mean over `samples` samples.
  void add(double mean, int64_t samples);
  MetricList metrics() const override;
};

}  // namespace vitrail::models
