#pragma once
/// Time of whole training steps of a recipe on random data, and of the kernels they cannot do
/// without.

#include <cstdint>
#include <optional>
#include <string>

#include "vitrail/comm/communicator.h"
#include "vitrail/comm/launch.h"
#include "vitrail/config/recipe.h"
#include "vitrail/train/kernel_profile.h"

namespace vitrail::train {

struct StepBenchOptions {
  int64_t steps = 20;
  int64_t warmup = 5;
  bool ceiling = false;          // also time the bare kernels
  double ceiling_seconds = 1.5;  // for each trunk
  int64_t traced = 3;            // steps behind exposed_share (several ranks) and the profile
  std::string profile;           // file for a trace of every kernel; empty = none
  comm::Launch launch;           // which GPU of this host
  std::string version;           // of the program, compared between ranks
};

struct StepBench {
  std::string recipe, preset, device, precision, engine;
  std::string mesh, layout;  // with several ranks: comm::Mesh and parallel::Engine in words
  int64_t ranks = 1;
  int64_t batch_size = 0;  // of all ranks
  int64_t tokens = 0;      // of one sample
  double ms_median = 0, ms_p10 = 0, ms_p90 = 0;
  double images_per_second = 0, tokens_per_second = 0;
  double model_tflops = 0;            // TFLOP/s of all ranks, recompute not counted
  std::optional<double> mfu;          // of peak_tflops x ranks; none where the peak is not known
  std::optional<double> peak_tflops;  // of one rank
  double peak_memory_gib = 0;         // of the rank that needs most
  /// Share of a step in which communication is under way and nothing is computed beside it; the largest of all ranks.
  std::optional<double> exposed_share;
  std::optional<double> kernel_ceiling_ms, ceiling_ratio;
  std::optional<KernelProfile> kernels;  // of this rank
};

/// `name` stands for the recipe in the result. Every rank of `world` calls it and gets the same times and sizes; the
/// layout is the recipe's.
/// throws ConfigError when recipe and ranks do not fit, or for a ceiling of several ranks.
StepBench bench_step(const config::ResolvedRecipe& resolved, comm::Communicator& world,
                     const std::string& name, const StepBenchOptions& options);
std::string describe(const StepBench& result);
/// One JSON object with the keys that `bench step --json` promises.
std::string to_json(const StepBench& result);

/// Peak dense bf16 rate of a GPU by its name, in TFLOP/s; none for devices not listed.
std::optional<double> peak_bf16_tflops(const std::string& device_name);

}  // namespace vitrail::train
