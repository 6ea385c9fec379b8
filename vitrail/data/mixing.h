#pragma once
/// Which sample stands in each place of each batch of a rank: arithmetic, no state.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "vitrail/data/balance.h"
#include "vitrail/data/loader.h"

namespace vitrail::data {

/// A sample and the epoch of its draws.
struct Pick {
  int64_t index = -1;  // global sample index; -1 = padding
  int64_t epoch = 0;
};

/// The samples of one source, pass after pass over them, each pass in an order of its own.
class SourceStream {
 public:
  SourceStream(int64_t source, int64_t first, int64_t size, uint64_t seed)
      : first_(first), sequence_(size, seed, /*shuffle=*/true, static_cast<uint64_t>(source) + 1) {}
  /// Place j of the stream, or the t-th sample after it in the same pass; epoch is the pass.
  Pick at(int64_t j, int64_t t = 0) const;
  int64_t size() const { return sequence_.size(); }

 private:
  int64_t first_;
  Sequence sequence_;
};

/// The order of LoaderOptions::mixing as one rank sees it.
class Order {
 public:
  virtual ~Order() = default;
  virtual int64_t batches_per_epoch() const = 0;
  /// Places of this rank in a batch, padding included.
  virtual int64_t places(LoaderState at) const = 0;
  /// What stands in place p; t > 0: the t-th sample to take instead.
  virtual Pick pick(LoaderState at, int64_t p, int64_t t = 0) const = 0;
  /// The source that this rank's batch is of; -1 = of all of them.
  virtual int64_t source(LoaderState at) const = 0;
  /// The slot of place 0 in the epoch's global sequence.
  virtual int64_t first_slot(LoaderState at) const = 0;
  /// Samples of a source that all ranks together were given before `at`; mixing sample: expected.
  virtual double delivered(LoaderState at, int64_t source) const = 0;
};

/// `sizes`: samples of each source in an epoch; their global indices follow each other.
/// `ranks`: data ranks of each source, for Mixing::rank.
/// throws   ConfigError; see Loader.
std::unique_ptr<Order> make_order(const LoaderOptions& options, const std::vector<int64_t>& sizes,
                                  const std::vector<int64_t>& ranks);

/// `asked` where it is given, else balance() of the costs.
/// throws   ConfigError: asked for another number of sources or ranks, or for none for a source.
std::vector<int64_t> assign_ranks(const std::vector<SourceCost>& costs,
                                  const std::vector<int64_t>& asked, int64_t data_ranks);

/// The batches of each source in an epoch of mixing: batch; those of an epoch in all are their sum.
std::vector<int64_t> batches_of_sources(const LoaderOptions& options,
                                        const std::vector<int64_t>& sizes);

/// Batches of an epoch of mixing: rank, on every rank: the most that any source needs for one pass.
int64_t iterations_of_ranks(const LoaderOptions& options, const std::vector<int64_t>& sizes,
                            const std::vector<int64_t>& ranks);

}  // namespace vitrail::data
