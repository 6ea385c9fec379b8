#pragma once
/// A batch in the making: its memory, and where each sample goes in it.

#include <atomic>
#include <cstdint>
#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "vitrail/data/leaves.h"
#include "vitrail/data/loader.h"
#include "vitrail/data/mixing.h"
#include "vitrail/data/source_list.h"

namespace vitrail::data {

struct BrokenSample {
  std::string path;
  std::string message;
};

/// What was found for one place of a batch.
struct PlaceResult {
  std::exception_ptr error;          // nothing could be put there
  std::vector<BrokenSample> broken;  // skipped on the way
};

/// Threads  different places are filled by different threads; `done` tells when all are.
struct PendingBatch {
  LoaderState at;
  int64_t source = 0;  // that its layout is of: its only one, or the first of all
  Batch batch;
  std::vector<PlaceResult> results;
  std::atomic<int64_t> done{0};

  int64_t size() const { return static_cast<int64_t>(results.size()); }
  bool is_done() const { return done.load(std::memory_order_acquire) == size(); }
};

/// Makes batches of the shapes that a list of sources needs.
class BatchLayout {
 public:
  /// throws   ConfigError: Patching::loader with augment steps that are done on the device, after it.
  BatchLayout(const SourceList& list, const Order& order, const config::Model& model,
              const LoaderOptions& options);
  std::unique_ptr<PendingBatch> allocate(LoaderState at) const;
  /// Writes a sample that was read to place p.
  void place(const ReadSample& sample, PendingBatch& pending, int64_t p) const;
  /// Makes place p count nowhere: zero image, no leaf, label -1 or NaN, sample id -1.
  void pad(PendingBatch& pending, int64_t p) const;
  /// With model.single_channel: keeps the variable whose turn it is, the same on every rank.
  void keep_one_variable(PendingBatch& pending) const;

 private:
  /// The variable that a batch keeps; -1 = all of them.
  int64_t turn(const PendingBatch& pending) const;
  void place_leaves(const ReadSample& sample, const PendingBatch& pending, int64_t p) const;

  const SourceList& list_;
  const Order& order_;
  bool pin_memory_;
  bool takes_turns_;
  bool has_ranges_;
  std::optional<LeafRows> leaves_;
  std::vector<std::string> all_variables_;  // of the model
};

}  // namespace vitrail::data
