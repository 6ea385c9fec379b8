#include "vitrail/data/mixing.h"

#include <algorithm>
#include <numeric>

#include <fmt/ranges.h>

#include "vitrail/core/error.h"
#include "vitrail/core/permutation.h"
#include "vitrail/core/philox.h"
#include "vitrail/data/batch_plan.h"

namespace vitrail::data {
namespace {

int64_t sum_of(const std::vector<int64_t>& values) {
  return std::accumulate(values.begin(), values.end(), int64_t{0});
}

std::vector<SourceStream> streams_of(const std::vector<int64_t>& sizes, uint64_t seed) {
  std::vector<SourceStream> streams;
  int64_t first = 0;
  for (size_t s = 0; s < sizes.size(); ++s) {
    streams.emplace_back(static_cast<int64_t>(s), first, sizes[s], seed);
    first += sizes[s];
  }
  return streams;
}

/// Every batch takes its samples from all sources.
class SampleOrder : public Order {
 public:
  SampleOrder(const LoaderOptions& options, const std::vector<int64_t>& sizes)
      : sizes_(sizes),
        size_(sum_of(sizes)),
        plan_(options, size_),
        sequence_(size_, options.seed, options.training),
        batch_(options.global_batch) {}

  int64_t batches_per_epoch() const override { return plan_.batches_per_epoch(); }
  int64_t places(LoaderState at) const override { return plan_.places(at.batch); }
  int64_t source(LoaderState) const override { return -1; }
  int64_t first_slot(LoaderState at) const override { return plan_.first_slot(at.batch); }

  Pick pick(LoaderState at, int64_t p, int64_t t) const override {
    const int64_t slot = plan_.slot(at.batch, p);
    if (slot < 0) return {-1, at.epoch};
    return {sequence_.sample_at(at.epoch, (slot + t) % size_), at.epoch};
  }

  double delivered(LoaderState at, int64_t source) const override {
    const auto batches = static_cast<double>(at.epoch * plan_.batches_per_epoch() + at.batch);
    return batches * static_cast<double>(batch_) *
           static_cast<double>(sizes_[static_cast<size_t>(source)]) / static_cast<double>(size_);
  }

 private:
  std::vector<int64_t> sizes_;
  int64_t size_;
  BatchPlan plan_;
  Sequence sequence_;
  int64_t batch_;
};

/// Every global batch is of one source; the batches of an epoch are shuffled as samples are.
class BatchOrder : public Order {
 public:
  BatchOrder(const LoaderOptions& options, const std::vector<int64_t>& sizes)
      : streams_(streams_of(sizes, options.seed)),
        batches_(batches_of_sources(options, sizes)),
        all_(sum_of(batches_)),
        batch_(options.global_batch),
        share_(options.global_batch / options.data_ranks),
        rank_(options.data_rank),
        sequence_(all_, options.seed, /*shuffle=*/true, /*stream=*/kBatchStream) {
    int64_t end = 0;
    for (const int64_t n : batches_) ends_.push_back(end += n);
  }

  int64_t batches_per_epoch() const override { return all_; }
  int64_t places(LoaderState) const override { return share_; }
  int64_t source(LoaderState at) const override { return turn(at).source; }
  int64_t first_slot(LoaderState at) const override { return at.batch * batch_ + rank_ * share_; }

  Pick pick(LoaderState at, int64_t p, int64_t t) const override {
    const Turn now = turn(at);
    return streams_[static_cast<size_t>(now.source)].at(now.batch * batch_ + rank_ * share_ + p, t);
  }

  double delivered(LoaderState at, int64_t source) const override {
    int64_t batches = at.epoch * batches_[static_cast<size_t>(source)];
    for (int64_t b = 0; b < at.batch; ++b) batches += turn({at.epoch, b}).source == source;
    return static_cast<double>(batches * batch_);
  }

 private:
  // Beside 0, the stream of the sample order, and 1, 2, ... of the sources.
  static constexpr uint64_t kBatchStream = uint64_t{1} << 40;

  struct Turn {
    int64_t source;
    int64_t batch;  // of the source's stream
  };
  Turn turn(LoaderState at) const {
    const int64_t q = sequence_.sample_at(at.epoch, at.batch);
    const auto s =
        static_cast<size_t>(std::upper_bound(ends_.begin(), ends_.end(), q) - ends_.begin());
    const int64_t in_epoch = q - (ends_[s] - batches_[s]);
    return {static_cast<int64_t>(s), at.epoch * batches_[s] + in_epoch};
  }

  std::vector<SourceStream> streams_;
  std::vector<int64_t> batches_, ends_;  // of each source in an epoch; running sums
  int64_t all_, batch_, share_, rank_;
  Sequence sequence_;
};

/// Every rank reads one source. All do equally many iterations; a source that ends before goes on
/// with its next pass.
class RankOrder : public Order {
 public:
  RankOrder(const LoaderOptions& options, const std::vector<int64_t>& sizes,
            const std::vector<int64_t>& ranks)
      : streams_(streams_of(sizes, options.seed)),
        ranks_(ranks),
        iterations_(iterations_of_ranks(options, sizes, ranks)),
        batch_(options.global_batch),
        share_(options.global_batch / options.data_ranks),
        rank_(options.data_rank) {
    int64_t first = 0;
    while (rank_ >= first + ranks_[static_cast<size_t>(source_)])
      first += ranks_[static_cast<size_t>(source_++)];
    rank_in_source_ = rank_ - first;
  }

  int64_t batches_per_epoch() const override { return iterations_; }
  int64_t places(LoaderState) const override { return share_; }
  int64_t source(LoaderState) const override { return source_; }
  int64_t first_slot(LoaderState at) const override { return at.batch * batch_ + rank_ * share_; }

  Pick pick(LoaderState at, int64_t p, int64_t t) const override {
    const int64_t together = share_ * ranks_[static_cast<size_t>(source_)];
    const int64_t iteration = at.epoch * iterations_ + at.batch;
    return streams_[static_cast<size_t>(source_)].at(
        iteration * together + rank_in_source_ * share_ + p, t);
  }

  double delivered(LoaderState at, int64_t source) const override {
    const int64_t iteration = at.epoch * iterations_ + at.batch;
    return static_cast<double>(iteration * share_ * ranks_[static_cast<size_t>(source)]);
  }

 private:
  std::vector<SourceStream> streams_;
  std::vector<int64_t> ranks_;
  int64_t iterations_, batch_, share_, rank_;
  int64_t source_ = 0, rank_in_source_ = 0;
};

/// Common to the two mixings whose batches are of one source.
void check_batch(const LoaderOptions& options, const std::vector<int64_t>& sizes) {
  // Batch size and ranks are checked as for mixed samples.
  LoaderOptions plain = options;
  plain.drop_last = false;
  BatchPlan(plain, sum_of(sizes));
  for (size_t s = 0; s < sizes.size(); ++s)
    VT_REQUIRE(ConfigError, sizes[s] > 0,
               "[data] data.sources[{}] must hold at least one sample for data.mixing batch and "
               "rank; give it a larger weight or leave it out",
               s);
}

}  // namespace

Pick SourceStream::at(int64_t j, int64_t t) const {
  const int64_t pass = j / size();
  return {first_ + sequence_.sample_at(pass, (j % size() + t) % size()), pass};
}

std::vector<int64_t> batches_of_sources(const LoaderOptions& options,
                                        const std::vector<int64_t>& sizes) {
  check_batch(options, sizes);
  const int64_t all = sum_of(sizes), batch = options.global_batch;
  const int64_t batches = options.drop_last ? all / batch : (all + batch - 1) / batch;
  return balance(sizes, std::max(batches, static_cast<int64_t>(sizes.size())), "batches");
}

int64_t iterations_of_ranks(const LoaderOptions& options, const std::vector<int64_t>& sizes,
                            const std::vector<int64_t>& ranks) {
  check_batch(options, sizes);
  VT_REQUIRE(ConfigError,
             ranks.size() == sizes.size() && sum_of(ranks) == options.data_ranks &&
                 *std::min_element(ranks.begin(), ranks.end()) >= 1,
             "[data] data.ranks_per_source must give each of {} sources at least one rank and {} "
             "ranks in all but is [{}]",
             sizes.size(), options.data_ranks, fmt::join(ranks, ", "));
  const int64_t share = options.global_batch / options.data_ranks;
  int64_t iterations = 1;
  for (size_t s = 0; s < sizes.size(); ++s) {
    const int64_t together = share * ranks[s];
    iterations = std::max(iterations, (sizes[s] + together - 1) / together);
  }
  return iterations;
}

std::vector<int64_t> assign_ranks(const std::vector<SourceCost>& costs,
                                  const std::vector<int64_t>& asked, int64_t data_ranks) {
  if (asked.empty()) {
    std::vector<int64_t> values;
    for (const SourceCost& cost : costs) values.push_back(cost.cost);
    return balance(values, data_ranks);
  }
  VT_REQUIRE(ConfigError,
             asked.size() == costs.size() && sum_of(asked) == data_ranks &&
                 *std::min_element(asked.begin(), asked.end()) >= 1,
             "[data] data.ranks_per_source must give each of {} sources at least one rank and {} "
             "ranks in all but is [{}]",
             costs.size(), data_ranks, fmt::join(asked, ", "));
  return asked;
}

std::unique_ptr<Order> make_order(const LoaderOptions& options, const std::vector<int64_t>& sizes,
                                  const std::vector<int64_t>& ranks) {
  if (options.training && options.mixing == Mixing::batch)
    return std::make_unique<BatchOrder>(options, sizes);
  if (options.training && options.mixing == Mixing::rank)
    return std::make_unique<RankOrder>(options, sizes, ranks);
  return std::make_unique<SampleOrder>(options, sizes);
}

}  // namespace vitrail::data
