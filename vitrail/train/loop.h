#pragma once
/// One training run from recipe to report: the order of everything that happens.

#include <cstdint>
#include <string>
#include <vector>

#include "vitrail/comm/communicator.h"
#include "vitrail/comm/launch.h"
#include "vitrail/config/recipe.h"
#include "vitrail/train/evaluate.h"

namespace vitrail::train {

struct TrainOptions {
  std::string resume =
      "auto";  // auto: newest valid checkpoint of the run; never; or a checkpoint or run folder
  bool dry_run = false;  // build everything, print the plan, run no step
  bool print = true;     // progress and summary on the terminal
  std::string
      trace;  // file for the times of steps 10 to 12 (the first ones of a shorter run); empty = none
  std::string command_line;  // for the report
  std::string version;       // of the program, for the report and the checkpoint
  std::string libraries;     // for the report: "name  version", one a line
  comm::Launch launch;       // which GPU of this host, how many ranks share it
};

struct RunResult {
  std::string folder;
  int64_t first_step = 0;      // 0, or where the run was resumed
  int64_t steps = 0;           // optimizer steps done over the whole run
  std::vector<double> losses;  // of the steps of this call; mean over all ranks
  std::vector<SplitResult> evaluation;
  std::string report;  // path of report.html; empty when it was not asked for
};

/// Trains, evaluates, saves and reports. Every rank of `world` calls it; only rank 0 writes to the
/// run's folder, checkpoints aside. Errors   ConfigError before anything is written: layout, batch
/// and ranks do not fit. core::Preempted after SIGTERM
///          or SIGUSR1: the step was finished and the state saved. NonFiniteError by
///          train.on_non_finite.
RunResult run_training(const config::ResolvedRecipe& resolved, comm::Communicator& world,
                       const TrainOptions& options);

}  // namespace vitrail::train
