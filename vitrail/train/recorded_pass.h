#pragma once
/// Forward and backward of batches of one shape, recorded on a GPU and repeated as one launch.

#include <functional>
#include <memory>
#include <vector>

#include <ATen/core/Tensor.h>

#include "vitrail/data/batch.h"
#include "vitrail/parallel/graph.h"

namespace vitrail::train {

class RecordedPass {
 public:
  /// pass(batch): runs on the device, adds gradients in their place and returns the loss. It must do the same for every
  /// batch of the same shapes (models::Model::repeats), and its results may depend on the batch's tensors only.
  using Pass = std::function<at::Tensor(const data::Batch&)>;

  /// enabled false: run() is pass(). What cannot be recorded goes on as it is, with one line in the log.
  RecordedPass(at::Device device, bool enabled, Pass pass);

  /// The loss, which the next run overwrites. The first batches, and those of other shapes than the first, run plainly.
  at::Tensor run(const data::Batch& batch);
  bool is_recorded() const { return recorded_; }

 private:
  bool fits(const data::Batch& batch);
  void record(const data::Batch& batch);

  at::Device device_;
  Pass pass_;
  std::unique_ptr<parallel::Graph> graph_;  // null: run plainly
  data::Batch inputs_;                      // what the graph reads
  at::Tensor loss_;                         // what it writes
  int64_t plain_runs_ = 0;
  bool recorded_ = false;
};

}  // namespace vitrail::train
