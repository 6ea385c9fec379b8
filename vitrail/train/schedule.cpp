#include "vitrail/train/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace vitrail::train {

Schedule::Schedule(const config::Schedule& options, double base, int64_t total_steps)
    : options_(options), base_(base), total_steps_(total_steps) {}

double Schedule::at(int64_t step) const {
  const int64_t warmup = options_.warmup_steps;
  if (step < warmup)
    return options_.warmup_start_lr + static_cast<double>(step) *
                                          (base_ - options_.warmup_start_lr) /
                                          static_cast<double>(warmup);
  if (options_.kind == "constant") return base_;
  // The first step after the warm-up has the base rate, the last step of the run min_lr.
  const auto span = static_cast<double>(std::max<int64_t>(total_steps_ - 1 - warmup, 1));
  const double progress = std::clamp(static_cast<double>(step - warmup) / span, 0.0, 1.0);
  const double share = options_.kind == "cosine"
                           ? 0.5 * (1.0 + std::cos(std::numbers::pi * progress))
                           : 1.0 - progress;
  return options_.min_lr + share * (base_ - options_.min_lr);
}

}  // namespace vitrail::train
