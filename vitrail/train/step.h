#pragma once
/// One optimizer step: fetch, forward and backward over the micro-batches, clip, update.
///
/// The host runs at most one step ahead of the device: numbers of a step are copied to the host
/// while the next one runs, so that neither a log line nor the check for NaN makes the device wait.

#include <cstdint>
#include <memory>

#include <ATen/core/Tensor.h>

#include "vitrail/comm/communicator.h"
#include "vitrail/config/recipe.h"
#include "vitrail/data/loader.h"
#include "vitrail/models/model.h"
#include "vitrail/parallel/engine.h"
#include "vitrail/train/batch_share.h"
#include "vitrail/train/optimizer.h"
#include "vitrail/train/recorded_pass.h"
#include "vitrail/train/schedule.h"

namespace vitrail::train {

/// Loss and gradient norm of one step on their way to the host.
class StepNumbers;

struct StepReport {
  int64_t step = 0;  // 0-based, the step just done
  double lr = 0;
  double step_ms = 0;       // of the host; the device's in the long run
  double data_wait_ms = 0;  // part of step_ms
  int64_t samples = 0;      // over all data ranks
  /// Mean over the global batch. Waits for the device when it has not come so far.
  double loss() const;
  /// Global L2 norm of the averaged gradient before clipping. Waits likewise.
  double grad_norm() const;
  /// False when the update was left out because the gradient was not finite. Waits likewise.
  bool applied() const;

  std::shared_ptr<const StepNumbers> numbers;
};

class Step {
 public:
  /// All references outlive the step; `model` is the engine's. may_record: with one rank, forward and backward may become
  /// one CUDA graph, as options.cuda_graph says.
  Step(models::Model& model, parallel::Engine& engine, Optimizer& optimizer,
       const Schedule& schedule, const config::Train& options, uint64_t seed,
       bool may_record = true);

  /// Does one step with the loader's next batch.
  /// Every rank calls it; ranks of the axes pipeline, sequence and tensor with the same samples.
  /// throws ConfigError when micro_batches does not divide the local batch; NonFiniteError under
  /// the policy `stop`, alike on every rank, at the latest one step after the one it names (whose
  /// update was not applied).
  /// `share`: how batches come to this rank; without one it reads for itself.
  StepReport run(data::Loader& loader, BatchShare* share = nullptr);
  StepReport run(data::Batch batch, double data_wait_ms = 0);

  /// Waits for the last step and checks it as run() would; call before saving or ending.
  void settle();

  /// The step to be done next.
  int64_t step() const { return step_; }
  /// Steps whose update was left out (policy `skip`), as far as settled.
  int64_t skipped() const { return skipped_; }
  /// Updates applied, as far as settled; Adam's bias correction counts these.
  int64_t update_count() const { return step_ - skipped_; }
  /// Goes on at `step`; for resuming.
  void set_step(int64_t step, int64_t skipped = 0);

 private:
  nn::Draws draws_of(const data::Batch& batch) const;
  at::Tensor forward_backward(const data::Batch& batch);
  at::Tensor pass(const data::Batch& batch);
  GradientNorm update(double lr);
  std::shared_ptr<StepNumbers> publish(const at::Tensor& loss, const GradientNorm& norm);
  void check(const StepNumbers& numbers);

  models::Model& model_;
  parallel::Engine& engine_;
  Optimizer& optimizer_;
  Schedule schedule_;
  config::Train options_;
  uint64_t seed_;
  at::Device device_;
  comm::Communicator& data_group_;  // ranks that see different samples
  int64_t step_ = 0, skipped_ = 0;
  RecordedPass pass_;                       // forward_backward
  std::shared_ptr<StepNumbers> unchecked_;  // of the last step
};

}  // namespace vitrail::train
