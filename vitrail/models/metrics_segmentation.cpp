#include "vitrail/models/metrics_segmentation.h"

#include <cmath>
#include <limits>

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/bincount.h>
#include <ATen/ops/where.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "vitrail/core/error.h"
#include "vitrail/models/losses.h"

namespace vitrail::models {
namespace {

enum Sum : size_t { kSamples, kLoss, kSampleDice, kSamplesWithDice, kConfusion };

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

/// Of one class, out of a confusion matrix stored row by row.
struct ClassCounts {
  double hits = 0, truth = 0, guesses = 0;
  double dice() const { return 2 * hits / (truth + guesses); }
  double iou() const { return hits / (truth + guesses - hits); }
  /// NaN where the truth does not hold the class.
  double sensitivity() const { return hits / truth; }
  /// Of the pixels of other classes, those that are not taken for this one; `all` pixels count.
  double specificity(double all) const {
    return truth > 0 ? 1.0 - (guesses - hits) / (all - truth) : kNone;
  }
};

template <class Count>
std::vector<ClassCounts> counts_of(const Count* confusion, int64_t classes) {
  std::vector<ClassCounts> counts(classes);
  for (int64_t truth = 0; truth < classes; ++truth)
    for (int64_t guess = 0; guess < classes; ++guess) {
      const auto pixels = static_cast<double>(confusion[truth * classes + guess]);
      counts[truth].truth += pixels;
      counts[guess].guesses += pixels;
      if (truth == guess) counts[truth].hits += pixels;
    }
  return counts;
}

/// Mean of what has a value; NaN when nothing has.
double mean_of(const std::vector<double>& values, size_t first) {
  double sum = 0, count = 0;
  for (size_t i = first; i < values.size(); ++i)
    if (!std::isnan(values[i])) sum += values[i], count += 1;
  return count > 0 ? sum / count : kNone;
}

}  // namespace

SegmentationTally::SegmentationTally(const config::Model& options)
    : Tally(kConfusion + options.num_classes * options.num_classes),
      options_(options),
      num_classes_(options.num_classes) {
  VT_REQUIRE(ConfigError, num_classes_ >= 2,
             "[config] model.num_classes must be at least 2 to segment but got {}", num_classes_);
}

void SegmentationTally::add(const data::Batch& batch, const Output& output) {
  if (!batch.label.defined()) return;
  const at::NoGradGuard no_grad;
  const at::Tensor& logits = output.output;
  const bool fits = logits.dim() == batch.label.dim() + 1 && logits.size(1) == num_classes_ &&
                    logits.size(0) == batch.label.size(0) &&
                    logits.sizes().slice(2).equals(batch.label.sizes().slice(1));
  VT_CHECK(fits,
           "[metrics] logits must be [B, {}, sides...] with labels of these sides but got [{}] and "
           "[{}]",
           num_classes_, fmt::join(logits.sizes(), ", "), fmt::join(batch.label.sizes(), ", "));
  for (int64_t i = 0; i < logits.size(0); ++i)
    add_sample(logits.narrow(0, i, 1), batch.label.narrow(0, i, 1).to(logits.device()));
}

void SegmentationTally::add_sample(const at::Tensor& logits, const at::Tensor& label) {
  const int64_t C = num_classes_, largest = label.max().item<int64_t>();
  VT_REQUIRE(DataError, largest < C,
             "[metrics] a label must be below model.num_classes = {} but got {}", C, largest);
  if (largest < 0) return;
  // What counts nowhere falls into one bin behind the matrix.
  const at::Tensor place = at::where(label >= 0, label * C + logits.argmax(1), C * C).flatten();
  const at::Tensor bins =
      at::bincount(place.to(at::kLong), {}, /*minlength=*/C * C + 1).to(at::kCPU);
  const int64_t* confusion = bins.const_data_ptr<int64_t>();
  for (int64_t i = 0; i < C * C; ++i) sums_[kConfusion + i] += static_cast<double>(confusion[i]);

  const std::vector<ClassCounts> counts = counts_of(confusion, C);
  std::vector<double> dice;
  for (const ClassCounts& one : counts) dice.push_back(one.truth > 0 ? one.dice() : kNone);
  if (const double mean = mean_of(dice, 1); !std::isnan(mean)) {
    sums_[kSampleDice] += mean;
    sums_[kSamplesWithDice] += 1;
  }
  sums_[kSamples] += 1;
  sums_[kLoss] += segmentation_loss(logits.to(at::kDouble), label, options_).item<double>();
}

MetricList SegmentationTally::metrics() const {
  const std::vector<ClassCounts> counts = counts_of(sums_.data() + kConfusion, num_classes_);
  std::vector<double> dice, iou, sensitivity, specificity;
  double hits = 0, pixels = 0;
  for (const ClassCounts& one : counts) {
    dice.push_back(one.dice());  // 0 / 0, no value, where a class is nowhere
    iou.push_back(one.iou());
    hits += one.hits;
    pixels += one.truth;
  }
  for (const ClassCounts& one : counts) {
    sensitivity.push_back(one.sensitivity());
    specificity.push_back(one.specificity(pixels));
  }
  MetricList list{{"dice", mean_of(dice, 1)},
                  {"mean_dice", mean_of(dice, 0)},
                  {"mean_iou", mean_of(iou, 0)},
                  {"sensitivity", mean_of(sensitivity, 1)},
                  {"specificity", mean_of(specificity, 1)},
                  {"pixel_accuracy", hits / pixels},
                  {"sample_dice", sums_[kSampleDice] / sums_[kSamplesWithDice]},
                  {"loss", sums_[kLoss] / sums_[kSamples]}};
  if (num_classes_ > kMaxListedClasses) return list;
  for (int64_t c = 0; c < num_classes_; ++c)
    list.emplace_back(fmt::format("dice_class_{}", c), dice[c]);
  for (int64_t c = 0; c < num_classes_; ++c)
    list.emplace_back(fmt::format("iou_class_{}", c), iou[c]);
  return list;
}

std::vector<std::vector<int64_t>> SegmentationTally::confusion() const {
  std::vector<std::vector<int64_t>> rows;
  if (num_classes_ > kMaxConfusionClasses) return rows;
  for (int64_t truth = 0; truth < num_classes_; ++truth) {
    const auto begin = sums_.begin() + kConfusion + truth * num_classes_;
    rows.emplace_back(begin, begin + num_classes_);
  }
  return rows;
}

}  // namespace vitrail::models
