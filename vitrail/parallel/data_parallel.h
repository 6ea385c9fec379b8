#pragma once
/// Strategies `none` and `ddp`: every rank holds the whole model; gradients are averaged in buckets
/// whose all-reduce starts while backward still runs.

#include <memory>
#include <vector>

#include "vitrail/comm/communicator.h"
#include "vitrail/parallel/unit.h"

namespace vitrail::parallel {

/// Watches the model's stacks, so it must not outlive the model. Use, once a step:
///   for each micro-batch: begin_backward(is_last); loss.backward(); end_backward();
/// After the last end_backward() units.gradient() holds the mean over all ranks of the sum over
/// micro-batches.
class GradientReducer {
 public:
  /// `group`: the ranks that see different samples; a group of one reduces nothing.
  GradientReducer(models::Model& model, UnitSet& units, comm::Communicator& group,
                  double bucket_mib);
  ~GradientReducer();
  void begin_backward(bool last_micro_batch);
  void end_backward();
  int64_t bucket_count() const;
  /// Buckets whose all-reduce began before backward ended, in the last step that reduced.
  int64_t early_starts() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

/// Rank 0's weights to every rank.
void broadcast_weights(UnitSet& units, comm::Communicator& group);

}  // namespace vitrail::parallel
