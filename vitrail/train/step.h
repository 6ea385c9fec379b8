#pragma once
/// One optimizer step: fetch, forward and backward over the micro-batches, clip, update.
///
/// Ahead    The host runs at most one step ahead of the device: numbers of a step are copied to the host while the next one
///          runs, so that neither a log line nor the check for NaN makes the device wait.
/// Graph    What the device does between two batches is the same work every step: gradients to zero, forward, backward, norm,
///          clipping, update, average. Learning rate, step and count of updates lie in its memory (kernels::Pace), so that
///          the work can be recorded once and repeated as one launch (RecordedPass).

#include <cstdint>
#include <memory>
#include <vector>

#include <ATen/core/Tensor.h>

#include "vitrail/comm/communicator.h"
#include "vitrail/config/recipe.h"
#include "vitrail/data/loader.h"
#include "vitrail/models/model.h"
#include "vitrail/parallel/engine.h"
#include "vitrail/train/batch_share.h"
#include "vitrail/train/loss_scale.h"
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
  /// fp16: what the loss was multiplied by; else 0. Waits likewise.
  double loss_scale() const;

  std::shared_ptr<const StepNumbers> numbers;
};

class Step {
 public:
  /// All references outlive the step; `model` is the engine's. may_record: with one rank, the work of a step may become one
  /// CUDA graph, as options.cuda_graph says.
  Step(models::Model& model, parallel::Engine& engine, Optimizer& optimizer,
       const Schedule& schedule, const config::Train& options, uint64_t seed,
       bool may_record = true);
  ~Step();

  /// Does one step with the loader's next batch.
  /// Every rank calls it; ranks of the axes pipeline, sequence and tensor with the same samples.
  /// throws ConfigError when micro_batches does not divide the local batch; NonFiniteError under
  /// the policy `stop`, alike on every rank, at the latest one step after the one it names (whose
  /// update was not applied). In fp16 a gradient that is not finite only lowers the loss scale, until that is at its minimum.
  /// `share`: how batches come to this rank; without one it reads for itself.
  StepReport run(data::Loader& loader, BatchShare* share = nullptr);
  StepReport run(data::Batch batch, double data_wait_ms = 0);

  /// Null unless the precision is fp16.
  LossScaler* loss_scaler() { return scaler_.get(); }
  /// Waits for the last step and checks it as run() would; call before saving or ending.
  void settle();

  /// Whether steps are repeated as one launch by now.
  bool is_recorded() const { return pass_.is_recorded(); }
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
  at::Tensor work(const data::Batch& batch);
  at::Tensor forward_backward(const data::Batch& batch);
  GradientNorm update();
  at::Tensor numbers_of(const at::Tensor& loss, const GradientNorm& norm) const;
  std::shared_ptr<StepNumbers> publish(const at::Tensor& numbers);
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
  std::unique_ptr<LossScaler> scaler_;      // fp16
  RecordedPass pass_;                       // work
  std::shared_ptr<StepNumbers> unchecked_;  // of the last step
  std::vector<std::shared_ptr<StepNumbers>>
      numbers_;  // all there are; used again when nobody holds them
};

}  // namespace vitrail::train
