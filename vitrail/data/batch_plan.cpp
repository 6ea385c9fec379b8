#include "vitrail/data/batch_plan.h"

#include <algorithm>

#include "vitrail/core/error.h"

namespace vitrail::data {
namespace {

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace

BatchPlan::BatchPlan(const LoaderOptions& options, int64_t size)
    : size_(size),
      global_batch_(options.global_batch),
      rank_(options.data_rank),
      ranks_(options.data_ranks),
      training_(options.training) {
  VT_REQUIRE(ConfigError, size_ > 0,
             "[data] the sources hold no sample; give one of them a weight above 0");
  VT_REQUIRE(ConfigError, global_batch_ > 0, "[data] data.batch_size must be at least 1 but is {}",
             global_batch_);
  VT_REQUIRE(ConfigError, ranks_ > 0 && rank_ >= 0 && rank_ < ranks_,
             "[data] the data rank must lie in [0, data ranks) but got {} of {}", rank_, ranks_);
  VT_REQUIRE(ConfigError, !training_ || global_batch_ % ranks_ == 0,
             "[data] data.batch_size must be a multiple of the data ranks but got {} for {} ranks",
             global_batch_, ranks_);
  const bool drop_last = training_ && options.drop_last;
  VT_REQUIRE(ConfigError, !drop_last || size_ >= global_batch_,
             "[data] data.batch_size must not exceed the number of samples but got {} for {} "
             "samples; lower it or set "
             "data.drop_last to false",
             global_batch_, size_);
  batches_ = drop_last ? size_ / global_batch_ : ceil_div(size_, global_batch_);
}

int64_t BatchPlan::global_places(int64_t b) const {
  return training_ ? global_batch_ : std::min(global_batch_, size_ - b * global_batch_);
}

int64_t BatchPlan::places(int64_t b) const { return ceil_div(global_places(b), ranks_); }

int64_t BatchPlan::slot(int64_t b, int64_t p) const {
  const int64_t in_batch = rank_ * places(b) + p;
  if (in_batch >= global_places(b)) return -1;
  // Only the last training batch without drop_last goes past the end: it is filled from the start.
  return (b * global_batch_ + in_batch) % size_;
}

}  // namespace vitrail::data
