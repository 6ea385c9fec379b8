#pragma once
/// Learning rate as a function of the step.

#include <cstdint>

#include "vitrail/config/recipe.h"

namespace vitrail::train {

class Schedule {
 public:
  /// `base` is the rate at the end of the warm-up; total_steps the length of the run.
  Schedule(const config::Schedule& options, double base, int64_t total_steps);
  /// Rate of update `step` (0-based). Warm-up: start + step (base - start) / warmup_steps for step
  /// < warmup_steps; then cosine or linear to min_lr, reached at total_steps - 1 and kept for every
  /// later step.
  double at(int64_t step) const;

 private:
  config::Schedule options_;
  double base_;
  int64_t total_steps_;
};

}  // namespace vitrail::train
