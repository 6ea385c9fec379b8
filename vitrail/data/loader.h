#pragma once
/// From files to batches: readers behind one interface, a global order without state, a prefetching
/// loader.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "vitrail/config/recipe.h"
#include "vitrail/data/batch.h"
#include "vitrail/data/reader.h"
#include "vitrail/data/windows.h"

namespace vitrail::data {

/// Order of an epoch: a keyed permutation of (seed, epoch, index); no memory, no state.
class Sequence {
 public:
  /// shuffle false: slot i holds sample i (evaluation).
  Sequence(int64_t size, uint64_t seed, bool shuffle);
  int64_t size() const { return size_; }
  int64_t sample_at(int64_t epoch, int64_t slot) const;

 private:
  int64_t size_;
  uint64_t seed_;
  bool shuffle_;
};

struct LoaderOptions {
  int64_t global_batch = 64;
  int64_t data_rank = 0, data_ranks = 1;
  int64_t workers = 2, prefetch = 4;  // workers 0: next() decodes by itself
  bool training = true;   // shuffle, augment, drop_last, weights; false: sorted, every sample once
  bool drop_last = true;  // false: the last training batch is filled from the start of its epoch
  bool skip_errors = false;
  bool pin_memory = false;
  uint64_t seed = 0;
  bool raw = false;  // before augmentation and normalisation
};

/// Place in the stream: the next global batch to be returned.
struct LoaderState {
  int64_t epoch = 0;
  int64_t batch = 0;  // within the epoch
};

/// All sources of a list as one.
///
/// Order    the samples of global batch b do not depend on data_ranks: it is slots [b * G, (b + 1)
///          * G) of the epoch's sequence (G = global_batch), of which rank r of R gets the
///          contiguous places [r * G/R, (r + 1) * G/R).
/// Weights  training: a source of weight w counts as llround(w * size) samples of the list; over
///          the epochs each of its samples comes equally often. Evaluation: every sample exactly
///          once, whatever the weights.
/// Labels   a class per sample, or for models that segment a mask per sample (int64 [B, sides...], -1
///          where a pixel counts nowhere).
/// Channels model.in_channels, or those of the sources' variables, which must be equal for all
///          sources of a loader; Batch::variables names them. With model.single_channel a batch
///          holds one of them, which take turns from batch to batch, in evaluation too.
/// Eval     every rank gets the same number of batches and, of a batch of n samples, ceil(n / R)
///          places; places past the end are padding: zero image, label -1, sample id -1.
/// Errors   stop: next() throws the DataError of the first broken sample in order. skip_errors:
///          training takes the next good sample of the epoch's order instead, evaluation a padding
///          place; each broken file is named once in the log; more than 1 % of the samples (at
///          least 10) is an error.
/// Memory   the loader holds at most prefetch batches, whatever the consumer's speed.
/// Threads  one consumer; the workers run no ATen operations.
class Loader {
 public:
  /// throws   ConfigError: training batch not divisible by data_ranks, batch larger than the list
  ///          under drop_last; DataError: a source that cannot be opened, classes that do not fit
  ///          the model or each other.
  Loader(const std::vector<config::Source>& sources, const config::Model& model,
         const LoaderOptions& options, LoaderState start = {});
  ~Loader();

  int64_t samples() const;  // in the list (training: weighted, before drop_last)
  int64_t batches_per_epoch() const;
  /// The next batch, on the host; at the end of an epoch goes on with the next. Order is kept
  /// whatever the threads do.
  Batch next();
  LoaderState state() const;
  /// Time the last next() waited for the workers.
  double waited_ms() const;
  /// Broken samples replaced so far.
  int64_t skipped() const;
  /// Batches allocated and not yet returned.
  int64_t in_flight() const;
  std::vector<std::string> class_names() const;
  const Reader& reader(int64_t source) const;
  /// The source of a sample id of a batch.
  int64_t source_of(int64_t sample_id) const;
  /// The file (place in its source's reader) and box that a sample of a batch comes from.
  Window window(int64_t epoch, int64_t sample_id) const;
  /// Entries of a window's origin; the largest over all sources.
  int64_t file_axes() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace vitrail::data
