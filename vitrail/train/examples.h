#pragma once
/// A few samples of an evaluation, kept for pictures.

#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>

#include "vitrail/data/batch.h"
#include "vitrail/models/metrics_detection.h"
#include "vitrail/models/model.h"
#include "vitrail/train/pictures.h"

namespace vitrail::train {

/// What went in and what came out of one sample, on the CPU.
struct Example {
  int64_t sample = -1;  // global index in its list
  at::Tensor image;     // [C, ...] as the model saw it
  at::Tensor output;    // vit: probabilities [classes]; mae: prediction [L, S]; undefined otherwise
  at::Tensor mask;      // mae: [L], 1 = hidden
  at::Tensor truth, predicted_mask;  // segmentation: int64 [sides...], -1 = not labelled
  Leaves leaves;                     // of models with leaves
  bool has_boxes = false;            // detection: the next two, in pixels of `image`
  std::vector<models::TrueBox> true_boxes;
  std::vector<models::FoundBox> found_boxes;  // of model.detection.min_score or more
  int64_t label = -1;
  int64_t predicted = -1;
};

/// Classification: right and wrong answers, a share of each class; other tasks: samples spread over
/// the whole list, those with most labelled pixels or boxes first. Denoising keeps none: its pictures are drawn samples (train/sample.h).
class ExampleCollector {
 public:
  /// `samples`: how many there are in all.
  ExampleCollector(models::Task task, int64_t samples, const config::Model& model = {})
      : task_(task), samples_(samples), model_(model) {}
  void add(const data::Batch& batch, const models::Output& output);
  std::vector<Example> take() { return std::move(examples_); }

 private:
  void add_verdicts(const data::Batch& batch, const models::Output& output);
  void add_spread(const data::Batch& batch, const models::Output& output);
  Example spread_example(const data::Batch& batch, const models::Output& output, int64_t i,
                         int64_t sample) const;
  bool has_all_verdicts() const;

  int64_t content(const data::Batch& batch, int64_t i) const;

  models::Task task_;
  int64_t samples_;
  config::Model model_;
  size_t right_ = 0, wrong_ = 0;
  std::map<std::pair<int64_t, bool>, size_t> of_class_;  // (true class, answered rightly)
  int64_t stretch_ = -1, content_ = 0;                   // of the last example kept
  std::vector<Example> examples_;
};

}  // namespace vitrail::train
