#pragma once
/// The numbers of a study: one line a run in results.csv, cells with mean and spread in results.json.
///
/// Spread       standard deviation over seeds (n - 1); none for one seed.
/// Difference   to the cell's control, of runs with the same seed: mean and standard deviation of these differences.

#include <cstdint>
#include <string>
#include <vector>

#include "vitrail/train/ablate_runs.h"

namespace vitrail::train {

struct Summary {
  int64_t count = 0;
  double mean = kNoNumber, spread = kNoNumber;
};
/// Of the values that are finite.
Summary summary_of(const std::vector<double>& values);

struct CellSummary {
  size_t cell = 0;
  int64_t parameters = 0;
  int64_t done = 0, failed = 0, planned = 0;  // runs
  Summary last, best;                         // of the metric
  Summary to_control, best_to_control;        // differences; count 0 without a control
  Summary train_seconds, images_per_second, peak_memory_gib;
  std::vector<Summary> evaluations;
};

struct StudyResults {
  std::vector<RunNumbers>
      runs;  // of StudyPlan::runs; numbers of runs that are not done are not summed
  std::vector<CellSummary> cells;
};

StudyResults read_results(const StudyPlan& plan);
/// The metric's name as a column: "accuracy".
std::string metric_word(const StudyPlan& plan);

/// One line a run. Columns   cell, one a factor, seed, state, parameters, epochs, steps, METRIC_last, METRIC_best,
/// best_epoch, train_loss, train_seconds, eval_seconds, images_per_second, peak_memory_gib, METRIC@EVALUATION each,
/// folder, failure. Unknown numbers are empty.
std::string results_csv(const StudyPlan& plan, const StudyResults& results);
std::string results_json(const StudyPlan& plan, const StudyResults& results);

}  // namespace vitrail::train
