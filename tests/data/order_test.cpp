// Order and mixing at the level of the plan: nothing is decoded, so that many ranks are quick.

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "test_data.h"
#include "vitrail/core/error.h"
#include "vitrail/data/mixing.h"

namespace vitrail::data {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

const std::vector<int64_t> kSizes{97, 61, 5};
constexpr int64_t kAll = 163;

LoaderOptions options_of(int64_t batch, int64_t rank, int64_t ranks,
                         Mixing mixing = Mixing::sample) {
  LoaderOptions options;
  options.global_batch = batch;
  options.data_rank = rank;
  options.data_ranks = ranks;
  options.seed = 21;
  options.mixing = mixing;
  return options;
}

int64_t source_of(int64_t index) { return index < 97 ? 0 : index < 158 ? 1 : 2; }

/// What all ranks together get of a batch, in the order of the ranks.
std::vector<Pick> global_batch(LoaderOptions options, LoaderState at,
                               const std::vector<int64_t>& ranks = {}) {
  std::vector<Pick> picks;
  for (options.data_rank = 0; options.data_rank < options.data_ranks; ++options.data_rank) {
    const std::unique_ptr<Order> order = make_order(options, kSizes, ranks);
    for (int64_t p = 0; p < order->places(at); ++p) picks.push_back(order->pick(at, p));
  }
  return picks;
}

std::vector<std::pair<int64_t, int64_t>> pairs(const std::vector<Pick>& picks) {
  std::vector<std::pair<int64_t, int64_t>> result;
  for (const Pick& pick : picks) result.emplace_back(pick.index, pick.epoch);
  return result;
}

TEST(Order, ShardsAreDisjointAndCompleteForEveryNumberOfRanks) {
  for (int64_t ranks = 1; ranks <= 64; ++ranks)
    for (const int64_t share : {1, 2})
      for (const bool drop_last : {true, false})
        for (const int64_t epoch : {0, 1, 9}) {
          LoaderOptions options = options_of(ranks * share, 0, ranks);
          options.drop_last = drop_last;
          const int64_t batches = make_order(options, kSizes, {})->batches_per_epoch();
          ASSERT_EQ(batches, drop_last ? kAll / (ranks * share)
                                       : (kAll + ranks * share - 1) / (ranks * share));
          std::vector<int64_t> times(kAll, 0);
          for (int64_t b = 0; b < batches; ++b)
            for (const Pick& pick : global_batch(options, {epoch, b})) {
              ASSERT_EQ(pick.epoch, epoch);
              ++times[static_cast<size_t>(pick.index)];
            }
          const int64_t places = batches * ranks * share;
          // What is left over, or filled up, are single samples; none comes three times.
          ASSERT_EQ(std::count(times.begin(), times.end(), 1), std::min(places, 2 * kAll - places));
          ASSERT_EQ(*std::max_element(times.begin(), times.end()), places > kAll ? 2 : 1);
          ASSERT_EQ(*std::min_element(times.begin(), times.end()), places < kAll ? 0 : 1);
        }
}

TEST(Order, EvaluationGivesEverySampleToExactlyOneRank) {
  for (int64_t ranks = 1; ranks <= 64; ++ranks)
    for (const int64_t batch : {1, 7, 64}) {
      LoaderOptions options = options_of(batch, 0, ranks);
      options.training = false;
      options.mixing = Mixing::rank;  // of no meaning there
      std::vector<int64_t> seen;
      const int64_t batches = make_order(options, kSizes, {})->batches_per_epoch();
      for (int64_t b = 0; b < batches; ++b)
        for (const Pick& pick : global_batch(options, {0, b}))
          if (pick.index >= 0) seen.push_back(pick.index);
      ASSERT_EQ(static_cast<int64_t>(seen.size()), kAll);
      ASSERT_TRUE(std::is_sorted(seen.begin(), seen.end()));
      ASSERT_EQ(std::set<int64_t>(seen.begin(), seen.end()).size(), seen.size());
    }
}

TEST(Order, TheGlobalSequenceIsTheSameForEveryNumberOfRanks) {
  for (const Mixing mixing : {Mixing::sample, Mixing::batch})
    for (const int64_t ranks : {2, 3, 8, 64})
      for (int64_t epoch = 0; epoch < 3; ++epoch) {
        LoaderOptions options = options_of(192, 0, ranks, mixing);
        options.drop_last = false;
        LoaderOptions alone = options_of(192, 0, 1, mixing);
        alone.drop_last = false;
        const int64_t batches = make_order(alone, kSizes, {})->batches_per_epoch();
        ASSERT_EQ(make_order(options, kSizes, {})->batches_per_epoch(), batches);
        for (int64_t b = 0; b < batches; ++b)
          ASSERT_EQ(pairs(global_batch(options, {epoch, b})),
                    pairs(global_batch(alone, {epoch, b})));
      }
}

/// Over so many samples each one came equally often, but for those of the pass that is under way;
/// no two of them with the same draws.
void expect_even(const std::map<int64_t, std::vector<int64_t>>& passes_of, int64_t delivered,
                 int64_t size) {
  ASSERT_LE(static_cast<int64_t>(passes_of.size()), size);
  for (const auto& [index, passes] : passes_of) {
    EXPECT_GE(static_cast<int64_t>(passes.size()), delivered / size);
    EXPECT_LE(static_cast<int64_t>(passes.size()), (delivered + size - 1) / size);
    EXPECT_EQ(std::set<int64_t>(passes.begin(), passes.end()).size(), passes.size());
  }
}

TEST(BatchMixing, EveryGlobalBatchIsOfOneSourceInExactProportion) {
  const LoaderOptions options = options_of(8, 0, 4, Mixing::batch);
  const std::unique_ptr<Order> order = make_order(options, kSizes, {});
  // 163 / 8 = 20 batches; quotas 11.9, 7.5 and 0.6.
  EXPECT_THAT(batches_of_sources(options, kSizes), ElementsAre(12, 7, 1));
  ASSERT_EQ(order->batches_per_epoch(), 20);
  std::vector<std::map<int64_t, std::vector<int64_t>>> passes(3);
  std::vector<int64_t> delivered(3, 0);
  std::set<std::vector<int64_t>> turns;
  for (int64_t epoch = 0; epoch < 12; ++epoch) {
    std::vector<int64_t> turn;
    for (int64_t b = 0; b < 20; ++b) {
      const int64_t source = order->source({epoch, b});
      turn.push_back(source);
      for (size_t s = 0; s < 3; ++s)
        ASSERT_EQ(order->delivered({epoch, b}, static_cast<int64_t>(s)), delivered[s]);
      for (const Pick& pick : global_batch(options, {epoch, b})) {
        ASSERT_EQ(source_of(pick.index), source);
        passes[static_cast<size_t>(source)][pick.index].push_back(pick.epoch);
        ++delivered[static_cast<size_t>(source)];
      }
    }
    EXPECT_EQ(std::count(turn.begin(), turn.end(), 0), 12);
    EXPECT_EQ(std::count(turn.begin(), turn.end(), 1), 7);
    EXPECT_EQ(std::count(turn.begin(), turn.end(), 2), 1);
    turns.insert(turn);
  }
  EXPECT_EQ(turns.size(), 12u) << "the sources take turns in another order in every epoch";
  for (size_t s = 0; s < 3; ++s) expect_even(passes[s], delivered[s], kSizes[s]);
}

TEST(BatchMixing, GivesASmallSourceABatchEvenWhenItsShareIsLess) {
  LoaderOptions options = options_of(64, 0, 1, Mixing::batch);
  EXPECT_THAT(batches_of_sources(options, kSizes), ElementsAre(1, 1, 1));
  EXPECT_EQ(make_order(options, kSizes, {})->batches_per_epoch(), 3);
}

TEST(RankMixing, EveryRankReadsOneSourceAndNoneRunsDry) {
  const std::vector<int64_t> ranks{4, 3, 1};
  const LoaderOptions options = options_of(24, 0, 8, Mixing::rank);
  // 97 / 12, 61 / 9 and 5 / 3, each filled up.
  EXPECT_EQ(iterations_of_ranks(options, kSizes, ranks), 9);
  std::vector<std::map<int64_t, std::vector<int64_t>>> passes(3);
  std::vector<int64_t> delivered(3, 0);
  for (int64_t rank = 0; rank < 8; ++rank) {
    const std::unique_ptr<Order> order =
        make_order(options_of(24, rank, 8, Mixing::rank), kSizes, ranks);
    ASSERT_EQ(order->batches_per_epoch(), 9);
    const int64_t source = rank < 4 ? 0 : rank < 7 ? 1 : 2;
    for (int64_t epoch = 0; epoch < 5; ++epoch)
      for (int64_t b = 0; b < 9; ++b) {
        ASSERT_EQ(order->source({epoch, b}), source);
        for (int64_t p = 0; p < order->places({epoch, b}); ++p) {
          const Pick pick = order->pick({epoch, b}, p);
          ASSERT_EQ(source_of(pick.index), source);
          passes[static_cast<size_t>(source)][pick.index].push_back(pick.epoch);
          ++delivered[static_cast<size_t>(source)];
        }
      }
  }
  const std::unique_ptr<Order> order = make_order(options, kSizes, ranks);
  for (size_t s = 0; s < 3; ++s) {
    expect_even(passes[s], delivered[s], kSizes[s]);
    EXPECT_EQ(order->delivered({5, 0}, static_cast<int64_t>(s)), delivered[s]);
  }
  EXPECT_EQ(passes[2].begin()->second.size(), 27u) << "5 samples, 135 places";
}

TEST(RankMixing, RefusesRanksThatDoNotFit) {
  const auto error = [](const std::vector<int64_t>& ranks) {
    return test::message_of<core::ConfigError>(
        [&] { make_order(options_of(24, 0, 8, Mixing::rank), kSizes, ranks); });
  };
  for (const std::vector<int64_t>& ranks : {std::vector<int64_t>{4, 4}, {4, 3, 2}, {8, 0, 0}, {}})
    EXPECT_THAT(error(ranks), HasSubstr("at least one rank and 8 ranks in all"));
  EXPECT_THAT(test::message_of<core::ConfigError>([] {
                make_order(options_of(24, 0, 8, Mixing::rank), {5, 0, 3}, {4, 2, 2});
              }),
              HasSubstr("data.sources[1] must hold at least one sample"));
}

TEST(Replacement, StaysInTheSameOrderAndEpoch) {
  for (const Mixing mixing : {Mixing::sample, Mixing::batch, Mixing::rank}) {
    const std::unique_ptr<Order> order =
        make_order(options_of(24, 1, 8, mixing), kSizes, {4, 3, 1});
    for (int64_t b = 0; b < 3; ++b)
      for (int64_t t = 0; t < 4; ++t) {
        // The sample after place p is, but for the end of a pass, that of place p + 1.
        const Pick instead = order->pick({2, b}, 0, t + 1), next = order->pick({2, b}, 1, t);
        if (instead.epoch == next.epoch) {
          EXPECT_EQ(instead.index, next.index);
        }
      }
  }
}

}  // namespace
}  // namespace vitrail::data
