#pragma once
/// From files to batches: readers behind one interface, a global order without state, a prefetching loader.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "vitrail/config/recipe.h"
#include "vitrail/data/batch.h"

namespace vitrail::data {

/// What is known of a sample without decoding it.
struct SampleInfo {
  std::string path;
  int64_t label = -1;
};

/// A sorted list of samples. Thread-safe: read() is called from many threads.
class Reader {
 public:
  virtual ~Reader() = default;
  virtual int64_t size() const = 0;
  virtual SampleInfo describe(int64_t i) const = 0;
  /// Pixels as stored, float [C, H, W] in [0, 1], C as asked for by the model (grey <-> RGB).
  /// throws DataError naming the file.
  virtual Sample read(int64_t i) const = 0;
  /// Class names in label order; empty when labels have no names.
  virtual std::vector<std::string> class_names() const { return {}; }
};

/// throws DataError: missing folder, no images, an empty class folder.
std::unique_ptr<Reader> open_reader(const config::Source& source, const config::Model& model);

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
  int64_t workers = 2, prefetch = 4;
  bool training = true;   // shuffle, augment, drop_last; false: sorted, last batch padded with label -1
  bool drop_last = true;
  bool skip_errors = false;
  bool pin_memory = false;
  uint64_t seed = 0;
  bool raw = false;       // before augmentation and normalisation
};

/// Place in the stream: the next global batch to be returned.
struct LoaderState {
  int64_t epoch = 0;
  int64_t batch = 0;  // within the epoch
};

/// All sources of a list as one; the samples of global batch b do not depend on data_ranks: rank r of R gets its
/// contiguous share (global_batch / R samples). Evaluation batches of ranks are equally long; padding has label -1 and
/// sample id -1.
class Loader {
 public:
  Loader(const std::vector<config::Source>& sources, const config::Model& model, const LoaderOptions& options,
         LoaderState start = {});
  ~Loader();

  int64_t samples() const;             // in the list (training: before drop_last)
  int64_t batches_per_epoch() const;
  /// The next batch, on the host; at the end of an epoch goes on with the next. Order is kept whatever the threads do.
  /// throws DataError of the first broken sample in order (or skips it, by option).
  Batch next();
  LoaderState state() const;
  /// Time the last next() waited for the workers.
  double waited_ms() const;
  /// Broken samples replaced so far.
  int64_t skipped() const;
  std::vector<std::string> class_names() const;
  const Reader& reader(int64_t source) const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace vitrail::data
