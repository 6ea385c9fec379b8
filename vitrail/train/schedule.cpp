#include "vitrail/train/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace vitrail::train {
namespace {

/// A warm-up by logarithm reaches 1 one step before its end; log 1 would never rise.
constexpr int64_t kLeastSteps = 2;

}  // namespace

Schedule::Schedule(const config::Schedule& options, double base, int64_t total_steps)
    : options_(options),
      base_(base),
      counts_as_deepspeed_(options.counting == "deepspeed"),
      warmup_(options.warmup_steps),
      total_(options.total_steps.value_or(total_steps)) {
  if (counts_as_deepspeed_) warmup_ = std::max(warmup_, kLeastSteps);
}

double Schedule::at(int64_t step) const {
  if (step < warmup_) {
    const double start = options_.warmup_start_lr;
    return start + risen(step) * (base_ - start);
  }
  if (options_.kind == "constant") return base_;
  const double end = options_.min_lr;
  return end + remaining(step) * (base_ - end);
}

/// Share of the warm-up that is done.
double Schedule::risen(int64_t step) const {
  const auto t = static_cast<double>(step), whole = static_cast<double>(warmup_);
  if (options_.warmup == "linear") return t / whole;
  return std::log(t + 1) / std::log(std::max(whole, static_cast<double>(kLeastSteps)));
}

/// What is left of the way down to min_lr.
double Schedule::remaining(int64_t step) const {
  const bool falls_as_cosine = options_.kind == "cosine";
  // vitrail: the first step after the warm-up has the base rate, the last one min_lr. DeepSpeed: its cosine is one step
  // ahead of that, its line reaches min_lr one step after the last.
  int64_t done = step - warmup_, all = total_ - 1 - warmup_;
  if (counts_as_deepspeed_) {
    all = total_ - warmup_;
    if (falls_as_cosine) ++done;
  }
  const double progress = std::clamp(
      static_cast<double>(done) / static_cast<double>(std::max<int64_t>(all, 1)), 0.0, 1.0);
  return falls_as_cosine ? 0.5 * (1.0 + std::cos(std::numbers::pi * progress)) : 1.0 - progress;
}

}  // namespace vitrail::train
