#pragma once
/// Which slots of an epoch's sequence a rank's batches hold: arithmetic, no state.

#include <cstdint>

#include "vitrail/data/loader.h"

namespace vitrail::data {

class BatchPlan {
 public:
  /// size: samples in the list. throws ConfigError; see Loader.
  BatchPlan(const LoaderOptions& options, int64_t size);

  int64_t batches_per_epoch() const { return batches_; }
  /// Places of this rank in batch b of an epoch, padding included.
  int64_t places(int64_t b) const;
  /// The slot of this rank's place p of batch b; -1 = padding.
  int64_t slot(int64_t b, int64_t p) const;
  /// The slot that place 0 stands for, counted without regard to the end of the list.
  int64_t first_slot(int64_t b) const { return b * global_batch_ + rank_ * places(b); }

 private:
  /// Samples in global batch b.
  int64_t global_places(int64_t b) const;

  int64_t size_, global_batch_, rank_, ranks_;
  bool training_;
  int64_t batches_;
};

}  // namespace vitrail::data
