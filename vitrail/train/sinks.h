#pragma once
/// Where the numbers of a run go: terminal, metrics.jsonl, TensorBoard. Only rank 0 has sinks.

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "vitrail/models/metrics.h"

namespace vitrail::train {

/// One logged step. Times and rates are means over the steps since the line before.
struct StepRecord {
  int64_t step = 0;     // optimizer steps done
  double epoch = 0;     // passes over the data done
  int64_t samples = 0;  // seen since the start, all ranks
  double loss = 0;      // of this step, mean over all ranks
  double lr = 0;
  double grad_norm = 0;  // before clipping
  double loss_scale = 0;  // fp16; else 0
  double step_ms = 0;
  double data_wait_ms = 0;
  double images_per_second = 0;  // all ranks
  double tokens_per_second = 0;
  double model_tflops = 0;     // all ranks; recompute not counted
  std::optional<double> mfu;   // of the devices' bf16 peak; none on a CPU
  double peak_memory_gib = 0;  // of rank 0: device memory, on a CPU the process
  double host_memory_gib = 0;  // that rank 0's process holds
  int64_t skipped_samples = 0;  // broken ones that rank 0 replaced so far
  /// Passes over each source so far; empty when there is one.
  std::vector<std::pair<std::string, double>> sources = {};
  /// Parts of the loss by name, without their weights: of rank 0's last micro-batch.
  std::vector<std::pair<std::string, double>> terms = {};
};

struct EvaluationRecord {
  int64_t step = 0;
  double epoch = 0;
  std::string split;
  int64_t samples = 0;
  models::MetricList metrics;
  double seconds = 0;
};

/// What the progress line needs beside the numbers.
struct RunLength {
  std::string name;
  int64_t total_steps = 0;
  int64_t steps_per_epoch = 1;
  int64_t first_step = 0;
};

class MetricSink {
 public:
  virtual ~MetricSink() = default;
  virtual void step(const StepRecord& record) = 0;
  virtual void evaluation(const EvaluationRecord& record) = 0;
  /// Everything given so far is on disk or on the terminal when it returns.
  virtual void flush() {}
};

/// A progress bar that is redrawn on a terminal; else one line `key=value ...` a record. Writes to
/// stdout.
std::unique_ptr<MetricSink> console_sink(const RunLength& length, bool terminal);
/// Appends one JSON object a record to `path`.
/// throws Error naming the file when it cannot be written.
std::unique_ptr<MetricSink> jsonl_sink(const std::string& path);
/// Event files in `folder`, readable by TensorBoard.
std::unique_ptr<MetricSink> tensorboard_sink(const std::string& folder);

/// Several sinks as one.
class SinkList : public MetricSink {
 public:
  void add(std::unique_ptr<MetricSink> sink) { sinks_.push_back(std::move(sink)); }
  void step(const StepRecord& record) override;
  void evaluation(const EvaluationRecord& record) override;
  void flush() override;

 private:
  std::vector<std::unique_ptr<MetricSink>> sinks_;
};

// The texts themselves, for tests.
std::string plain_line(const StepRecord& record);
std::string plain_line(const EvaluationRecord& record);
std::string bar_line(const RunLength& length, const StepRecord& record);
std::string json_line(const StepRecord& record);
std::string json_line(const EvaluationRecord& record);

/// Drops the lines of steps after `step` (and a last line that a crash cut short), so that no step
/// stands twice in the file of a resumed run. A missing file is an empty one.
void truncate_metrics(const std::string& path, int64_t step);

}  // namespace vitrail::train
