#pragma once
/// Small parts of the training loop: the plan in words, the meter behind log lines, signals,
/// weights for others.

#include <cstdint>
#include <optional>
#include <string>

#include <ATen/core/Tensor.h>

#include "vitrail/comm/communicator.h"
#include "vitrail/config/recipe.h"
#include "vitrail/models/model.h"
#include "vitrail/parallel/engine.h"
#include "vitrail/train/report_html.h"
#include "vitrail/train/sinks.h"
#include "vitrail/train/step.h"

namespace vitrail::train {

/// How a run is divided: printed once, shown in the report.
struct Division {
  std::string world, mesh, device, strategy, precision, model, weights;
  std::string layout;    // parallel::Engine::describe()
  std::string pipeline;  // describe_pipeline(), empty without one
  int64_t threads = 1;
  int64_t global_batch = 0, ranks = 1, micro_batches = 1;
  int64_t samples = 0, held_out = 0, steps_per_epoch = 0, total_steps = 0;
  int64_t parameters = 0, parameters_here = 0, tokens = 0;  // of the model, of this rank's part
  double gflops_per_sample = 0;
  std::optional<double> ema_decay;
  Rows rows() const;
};

/// "vit 8x8, patch 2, width 64, depth 4, 4 heads, 10 classes"
std::string describe_model(const config::Model& options);
/// "4 stages, 1f1b, 8 micro-batches, 27 % of the time idle"
std::string describe_pipeline(const config::Parallel& options, int64_t micro_batches);
/// Libraries ("name  version" a line), host and device.
Rows environment_rows(const std::string& libraries, at::Device device);

/// What a model is before it is cut over ranks.
struct ModelFacts {
  int64_t parameters = 0, tokens = 0;
  double flops_per_sample = 0;
};
ModelFacts facts_of(const models::Model& model);

/// Gathers steps into the means of the next log line.
class StepMeter {
 public:
  StepMeter(at::Device device, int64_t ranks, int64_t steps_per_epoch, int64_t global_batch,
            const ModelFacts& facts);
  void add(const StepReport& report);
  /// The line of the step just added; starts the next interval.
  StepRecord record(const StepReport& report);

 private:
  at::Device device_;
  int64_t steps_per_epoch_, global_batch_, tokens_;
  double flops_;
  std::optional<double> peak_flops_;  // of all ranks
  int64_t steps_ = 0, samples_ = 0;
  double step_ms_ = 0, wait_ms_ = 0;
};

/// While it lives, SIGTERM and SIGUSR1 are remembered instead of ending the process.
class StopSignal {
 public:
  StopSignal();
  ~StopSignal();
  StopSignal(const StopSignal&) = delete;
  StopSignal& operator=(const StopSignal&) = delete;
  int received() const;
};
/// The signal that any rank received, the same on every rank; 0 = none.
int agreed_signal(const StopSignal& stop, comm::Communicator& world);
std::string signal_name(int signal);

/// Writes an arena's parameters and the model's fixed tensors in fp32 under the model's own names;
/// the file appears whole or not at all. Every rank calls it, rank 0 writes.
void write_weights(const std::string& path, const models::Model& model, parallel::Engine& engine,
                   const at::Tensor& arena);

}  // namespace vitrail::train
