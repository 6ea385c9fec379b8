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
  /// shuffle false: slot i holds sample i (evaluation). Streams have orders of their own.
  Sequence(int64_t size, uint64_t seed, bool shuffle, uint64_t stream = 0);
  int64_t size() const { return size_; }
  int64_t sample_at(int64_t epoch, int64_t slot) const;

 private:
  int64_t size_;
  uint64_t seed_, stream_;
  bool shuffle_;
};

/// What is made of several sources in training; evaluation takes them one after another.
///
/// sample   a batch takes its samples from all sources.
/// batch    every global batch is of one source.
/// rank     every data rank reads one source.
enum class Mixing { sample, batch, rank };

/// Where leaves of model.adaptive are made, of those that threads can make (data/leaves.h).
///
/// automatic  by the threads, unless steps of an augment list are left for the device.
/// loader     by the threads.
/// step       by the model, of the batch's image and pixel_range.
enum class Patching { automatic, loader, step };

struct LoaderOptions {
  int64_t global_batch = 64;
  int64_t data_rank = 0, data_ranks = 1;
  int64_t workers = 2, prefetch = 4;  // workers 0: next() decodes by itself, without a time-out
  bool training = true;   // shuffle, augment, drop_last, weights; false: sorted, every sample once
  bool drop_last = true;  // false: the last training batch is filled from the start of its epoch
  bool skip_errors = false;
  bool pin_memory = false;
  uint64_t seed = 0;
  bool raw = false;             // before augmentation and normalisation
  double max_broken = 0.01;     // skip_errors: share of the samples that may be broken
  double read_timeout_s = 600;  // of one read; 0 = never
  int64_t read_retries = 1;
  int64_t cache_bytes = int64_t{2} << 30;  // decoded files that are kept
  Mixing mixing = Mixing::sample;
  std::vector<int64_t> ranks_per_source;  // Mixing::rank; empty = by measured cost
  Patching patching = Patching::automatic;
  /// False: knows lists, order and place, but reads no sample: skip() takes the place of next().
  bool reads = true;
};

/// The options of a recipe's training: data.*, run.seed. pin: the run's device is a GPU.
LoaderOptions loader_options(const config::Recipe& recipe, int64_t data_rank, int64_t data_ranks,
                             bool pin);
/// The same for evaluation: eval.batch_size where it is given, sorted order, every sample once.
LoaderOptions evaluation_options(const config::Recipe& recipe, int64_t data_rank,
                                 int64_t data_ranks, bool pin);

/// Place in the stream: the next global batch to be returned.
struct LoaderState {
  int64_t epoch = 0;
  int64_t batch = 0;  // within the epoch
};

/// How far a source has come, over all ranks.
struct SourceProgress {
  std::string name;
  double samples = 0;  // delivered since the first epoch
  double epochs = 0;   // passes over it
};

/// All sources of a list as one.
///
/// Order    the samples of global batch b do not depend on data_ranks: it is slots [b * G, (b + 1)
///          * G) of the epoch's sequence (G = global_batch), of which rank r of R gets the
///          contiguous places [r * G/R, (r + 1) * G/R).
/// Mixing   sample: one sequence over all sources. batch: every source has a stream, pass after pass
///          over its samples without a gap; each global batch goes on with one stream, and an epoch has
///          a number of batches of each in proportion to its samples (balance(), at least one), in
///          a shuffled order. rank: every data rank reads one source, its ranks (ranks_per_source, or
///          balance() of the measured costs) sharing its stream; an epoch has as many batches as the
///          source that needs most for one pass, and the others go on with their next. This is the
///          one order that depends on the number of ranks.
/// Weights  training: a source of weight w counts as llround(w * size) samples of the list; over
///          the epochs each of its samples comes equally often. Evaluation: every sample exactly
///          once, whatever the weights.
/// Labels   a class per sample; for models that segment a mask per sample (int64 [B, S...], -1 where a
///          pixel counts nowhere); for models that learn values float [B, V] or [B, V, S...], NaN
///          where it counts nowhere. Sources with boxes: Batch::boxes, padded to the most of any image.
/// Shapes   S is model.image_size, or with steps left for the device (Batch::augment_plan) the largest
///          staging sides of the sources; augmented() (augment_batch.h) finishes such a batch.
/// Channels model.in_channels, or those of the source's variables; Batch::variables names them. A batch
///          has one set of them: with Mixing::sample all sources must agree. With
///          model.single_channel a batch holds one of them, which take turns from batch to batch, in
///          evaluation too.
/// Leaves   models with leaves (Model::num_leaves) get pixel_range, rows of 0 in padding places, and with
///          `patching` leaf_tokens and leaf_boxes; image and labels are always those of the image.
/// Eval     every rank gets the same number of batches and, of a batch of n samples, ceil(n / R)
///          places; places past the end are padding: zero image, label -1 (NaN), sample id -1.
/// Errors   a read that fails or takes longer than read_timeout_s is tried read_retries more times; then
///          its sample is broken. stop: next() throws the DataError of the first broken sample in
///          order. skip_errors: training takes the next good sample of the same order instead,
///          evaluation a padding place; each broken file is named once in the log and not read again;
///          more than max_broken of the samples (at least 10) is an error.
/// Memory   the loader holds at most prefetch batches, whatever the consumer's speed, and cache_bytes of
///          decoded files; when less than a tenth of the host's memory is left, it halves that.
/// Threads  one consumer; the workers run no ATen operations. A thread whose read never returns is left
///          behind, also at the end.
class Loader {
 public:
  /// throws   ConfigError: training batch not divisible by data_ranks, batch larger than the list
  ///          under drop_last, ranks that do not fit the sources, Patching::loader with augment steps
  ///          that are left for the device; DataError: a source that cannot be
  ///          opened, classes that do not fit the model or each other.
  Loader(const std::vector<config::Source>& sources, const config::Model& model,
         const LoaderOptions& options, LoaderState start = {});
  Loader(Loader&&) noexcept;
  ~Loader();

  int64_t samples() const;  // in the list (training: weighted, before drop_last)
  int64_t batches_per_epoch() const;
  /// The next batch, on the host; at the end of an epoch goes on with the next. Order is kept
  /// whatever the threads do.
  Batch next();
  /// Goes on as next() does without a batch, which another rank reads.
  /// throws Error: options.reads is true.
  void skip();
  LoaderState state() const;
  /// Of each source, as it follows from state(). Mixing::sample: the expected numbers, since a batch
  /// draws from all of them.
  std::vector<SourceProgress> progress() const;
  /// Time the last next() waited for the workers.
  double waited_ms() const;
  /// Broken samples replaced so far.
  int64_t skipped() const;
  /// Reads given up for taking too long so far.
  int64_t timed_out() const;
  /// Batches allocated and not yet returned.
  int64_t in_flight() const;
  std::vector<std::string> class_names() const;
  /// model.image_size, in which augmented() leaves a batch.
  const std::vector<int64_t>& image_size() const { return image_size_; }
  const Reader& reader(int64_t source) const;
  /// The source of a sample id of a batch.
  int64_t source_of(int64_t sample_id) const;
  /// The file (place in its source's reader) and box that a sample of a batch comes from, before
  /// augmentation. `epoch` is that of the sample's draws.
  Window window(int64_t epoch, int64_t sample_id) const;
  /// The epoch of the draws of place p of a batch of this loader: that of the batch with
  /// Mixing::sample, else the pass over its source.
  int64_t draw_epoch(const Batch& batch, int64_t p) const;
  /// Entries of a window's origin; the largest over all sources.
  int64_t file_axes() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
  std::vector<int64_t> image_size_;
};

}  // namespace vitrail::data
