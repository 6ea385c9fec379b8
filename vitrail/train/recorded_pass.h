#pragma once
/// A step's work on batches of one shape, recorded on a GPU and repeated as one launch.

#include <functional>
#include <memory>
#include <vector>

#include <ATen/core/Tensor.h>

#include "vitrail/data/batch.h"
#include "vitrail/parallel/graph.h"

namespace vitrail::train {

class RecordedPass {
 public:
  /// pass(batch): works on the device and returns a tensor. It must launch the same for every batch of the same shapes
  /// (models::Model::repeats): what it does may depend on the batch's tensors and on memory that stays, on nothing else.
  using Pass = std::function<at::Tensor(const data::Batch&)>;

  /// enabled false: run() is pass(). What cannot be recorded goes on as it is, with one line in the log.
  RecordedPass(at::Device device, bool enabled, Pass pass);

  /// What pass returns; the next run overwrites it. The first batches, and those of other shapes than the first, run plainly.
  at::Tensor run(const data::Batch& batch);
  bool is_recorded() const { return recorded_; }

 private:
  bool fits(const data::Batch& batch);
  void record(const data::Batch& batch);

  at::Device device_;
  Pass pass_;
  std::unique_ptr<parallel::Graph> graph_;  // null: run plainly
  data::Batch inputs_;                      // what the graph reads
  at::Tensor result_;                       // what it writes
  int64_t plain_runs_ = 0;
  bool recorded_ = false;
};

}  // namespace vitrail::train
