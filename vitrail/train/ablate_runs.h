#pragma once
/// The runs of a study, and the numbers that each left in its folder.

#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "vitrail/config/recipe.h"
#include "vitrail/config/study.h"
#include "vitrail/train/report_svg.h"

namespace vitrail::train {

struct StudyRun {
  size_t cell = 0;  // of StudyPlan::cells
  int64_t seed = 0;
  std::string name;       // "CELL/seed-S"
  std::string folder;     // OUTPUT/STUDY/CELL/seed-S
  config::Overrides set;  // seed and folder included
  config::Recipe recipe;  // with them
};

struct StudyPlan {
  config::Study study;
  std::vector<config::StudyCell> cells;
  std::vector<int64_t> parameters;  // of each cell's model
  std::vector<StudyRun> runs;       // cell by cell
  std::string folder;               // OUTPUT/STUDY
};

/// Reads every recipe. throws ConfigError naming the cell (or the evaluation) that is refused.
StudyPlan plan_study(const config::Study& study);

constexpr double kNoNumber = std::numeric_limits<double>::quiet_NaN();

/// What is known of a run. Numbers that are not known are NaN.
struct RunNumbers {
  enum class State { missing, partial, done, failed };
  State state = State::missing;
  bool is_trained = false;       // to its end; further evaluations may be missing
  bool is_other_recipe = false;  // the folder holds a run with other settings
  std::string failure;           // of the last try
  double last = kNoNumber;       // the metric at the last evaluation
  double best = kNoNumber;       // over all evaluations
  double best_epoch = kNoNumber;
  double epochs = kNoNumber, steps = kNoNumber;  // done
  double train_loss = kNoNumber;                 // of the last logged step
  double train_seconds = kNoNumber;              // of all steps, evaluations and start not included
  double eval_seconds = kNoNumber;               // of all evaluations while training
  double images_per_second = kNoNumber;          // median of the logged steps
  double peak_memory_gib = kNoNumber;
  std::vector<double> evaluations;  // the metric of each of the study's
  Series curve, loss;               // metric over epochs; loss over epochs
};

/// The run's files, as far as they are there.
RunNumbers read_run(const config::Study& study, const StudyRun& run);
const char* word(RunNumbers::State state);

/// Where a further evaluation of a run is kept.
std::string evaluation_path(const StudyRun& run, const std::string& evaluation);
/// What process `output` printed for that evaluation is kept; the changes are noted beside it.
void keep_evaluation(const StudyRun& run, const config::NamedChanges& evaluation,
                     const std::string& output);
/// Why the last try of a run ended; empty text takes the note away.
void note_failure(const StudyRun& run, const std::string& text);

}  // namespace vitrail::train
