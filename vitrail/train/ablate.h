#pragma once
/// Runs a study (config/study.h): every cell with every seed as a process of its own, several at once, then one table.
///
/// Folder    OUTPUT/NAME/CELL/seed-S is the folder of a run; process.txt there is what its processes printed, evaluations/
///           holds what further evaluations gave. OUTPUT/NAME/ holds results.csv, results.json and report.html, written
///           again after every run that ends.
/// Again     a run that is done is left alone: its recipe is what the study asks for and its last evaluation was at its last
///           step. One that was begun goes on from its newest checkpoint; one whose recipe has changed begins anew.
/// Signals   SIGTERM and SIGUSR1 are handed on to the runs, which save their state; then Preempted is thrown. Runs get
///           SIGTERM too when this process is killed.

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "vitrail/config/study.h"

namespace vitrail::train {

struct AblateOptions {
  int64_t jobs = 0;      // runs at once; 0 = one a GPU, or one where there is none
  std::string only;      // regular expression searched for in "CELL/seed-S"; others are not started
  bool dry_run = false;  // say what would run, start and write nothing
  std::string program;   // what has the verbs train and eval
  std::function<void(const std::string&)> say = [](const std::string&) {};
};

struct AblateResult {
  std::string folder;
  int64_t done = 0, failed = 0, missing = 0;  // runs
};

/// throws ConfigError naming the cell whose recipe is refused; Error at the end when a run failed, the others are done by
/// then; Preempted.
AblateResult run_study(const config::Study& study, const AblateOptions& options);

}  // namespace vitrail::train
