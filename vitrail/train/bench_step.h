#pragma once
/// Time of whole training steps of a recipe on random data, and of the kernels they cannot do
/// without.

#include <cstdint>
#include <optional>
#include <string>

#include "vitrail/config/recipe.h"

namespace vitrail::train {

struct StepBenchOptions {
  int64_t steps = 20;
  int64_t warmup = 5;
  bool ceiling = false;          // also time the bare kernels
  double ceiling_seconds = 1.5;  // for each trunk
};

struct StepBench {
  std::string recipe, preset, device, precision, engine;
  int64_t batch_size = 0;
  int64_t tokens = 0;  // of one sample
  double ms_median = 0, ms_p10 = 0, ms_p90 = 0;
  double images_per_second = 0, tokens_per_second = 0;
  double model_tflops = 0;    // TFLOP/s, recompute not counted
  std::optional<double> mfu;  // of peak_tflops; none where the peak is not known
  std::optional<double> peak_tflops;
  double peak_memory_gib = 0;
  std::optional<double> kernel_ceiling_ms, ceiling_ratio;
};

/// `name` stands for the recipe in the result. One rank.
StepBench bench_step(const config::Recipe& recipe, const std::string& name,
                     const StepBenchOptions& options);
std::string describe(const StepBench& result);
/// One JSON object with the keys that `bench step --json` promises.
std::string to_json(const StepBench& result);

/// Peak dense bf16 rate of a GPU by its name, in TFLOP/s; none for devices not listed.
std::optional<double> peak_bf16_tflops(const std::string& device_name);

}  // namespace vitrail::train
