#include "vitrail/data/balance.h"

#include <algorithm>
#include <numeric>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "test_data.h"
#include "vitrail/core/error.h"
#include "vitrail/core/philox.h"
#include "vitrail/data/mixing.h"
#include <nlohmann/json.hpp>

namespace vitrail::data {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

TEST(Balance, GivesTheWorkedExample) {
  // 10 volumes of 512 x 512 x 128, 20 of 256 x 256 x 128 and 60 of 128^3 in tiles of 64^3: 128, 32
  // and 8 tiles a volume; quotas of 8 ranks 4.27, 2.13 and 1.60.
  EXPECT_THAT(balance({1280, 640, 480}, 8), ElementsAre(4, 2, 2));
}

TEST(Balance, ItsEpochHasEightyIterations) {
  const std::vector<int64_t> files{10, 20, 60}, tiles{128, 32, 8}, ranks{4, 2, 2};
  LoaderOptions options;
  options.global_batch = 32;  // 4 a rank
  options.data_ranks = 8;
  options.mixing = Mixing::rank;
  // Dealing out whole files, as UCF-VIT does, uses 8 of the first 10: 2, 10 and 30 files a rank.
  std::vector<int64_t> by_file, by_window;
  for (size_t s = 0; s < 3; ++s) {
    by_file.push_back(files[s] / ranks[s] * tiles[s] / 4);
    by_window.push_back(files[s] * tiles[s] / (4 * ranks[s]));
  }
  EXPECT_THAT(by_file, ElementsAre(64, 80, 60));
  EXPECT_THAT(by_window, ElementsAre(80, 80, 60)) << "windows leave no file out";
  EXPECT_EQ(*std::max_element(by_file.begin(), by_file.end()), 80);
  EXPECT_EQ(iterations_of_ranks(options, {1280, 640, 480}, ranks), 80);
}

TEST(Balance, FindsWhatIsFeasibleWhereRoundingFailed) {
  EXPECT_THAT(balance({7, 5, 3, 1}, 8), ElementsAre(3, 2, 2, 1));
  EXPECT_THAT(balance({10, 1, 1}, 3), ElementsAre(1, 1, 1));
  EXPECT_THAT(balance({1280, 640, 120}, 8), ElementsAre(5, 2, 1));
  EXPECT_THAT(balance({1000, 1, 1, 1}, 6), ElementsAre(3, 1, 1, 1));
  EXPECT_THAT(balance({1}, 5), ElementsAre(5));
  EXPECT_THAT(balance({1, 1, 1}, 4), ElementsAre(2, 1, 1)) << "of equal ones the first";
}

TEST(Balance, AlwaysGivesEverySourceARankAndEveryRankASource) {
  uint32_t element = 0;
  const auto random = [&](int64_t last) {
    return 1 + static_cast<int64_t>(core::draw({4, core::Stream::test, 0, 0}, 0, element++) %
                                    static_cast<uint64_t>(last));
  };
  for (int round = 0; round < 3000; ++round) {
    std::vector<int64_t> costs(static_cast<size_t>(random(9)));
    for (int64_t& cost : costs) cost = round % 2 == 0 ? random(12) : random(1'000'000'000'000);
    const auto sources = static_cast<int64_t>(costs.size());
    const int64_t ranks = sources - 1 + random(60);
    const std::vector<int64_t> shares = balance(costs, ranks);
    ASSERT_EQ(std::accumulate(shares.begin(), shares.end(), int64_t{0}), ranks);
    const double sum = std::accumulate(costs.begin(), costs.end(), 0.0);
    int64_t lifted = 0;  // parts that got their one share for nothing
    for (const int64_t cost : costs)
      lifted += static_cast<double>(cost) * static_cast<double>(ranks) < sum;
    for (size_t s = 0; s < costs.size(); ++s) {
      ASSERT_GE(shares[s], 1);
      const double quota = static_cast<double>(costs[s]) * static_cast<double>(ranks) / sum;
      ASSERT_LT(static_cast<double>(shares[s]), std::max(quota + 1, 1 + 1e-9));
      if (lifted == 0) {
        ASSERT_GT(static_cast<double>(shares[s]), quota - 1);
      }
      for (size_t other = 0; other < costs.size(); ++other)
        if (costs[s] > costs[other]) {
          ASSERT_GE(shares[s], shares[other]);
        }
    }
  }
}

TEST(Balance, RefusesWhatIsNotFeasible) {
  const auto error = [](const std::vector<int64_t>& costs, int64_t ranks) {
    return test::message_of<core::ConfigError>([&] { balance(costs, ranks); });
  };
  EXPECT_THAT(error({5, 5, 5}, 2), HasSubstr("data ranks for every source but got 2 for 3"));
  EXPECT_THAT(error({}, 2), HasSubstr("for 0 sources"));
  EXPECT_THAT(error({5, 0}, 2), HasSubstr("must cost more than nothing"));
}

/// Two folders of images of different sizes.
class BalanceRecipe : public testing::Test {
 protected:
  void SetUp() override {
    for (int64_t i = 0; i < 6; ++i) {
      test::write_image(folder_.path(fmt::format("large/{}.png", i)), {i == 0 ? 16 : 8, 8}, 3);
      test::write_image(folder_.path(fmt::format("small/{}.png", i)), {4, 4}, 3);
    }
    recipe_.model = test::model_of({4, 4}, 3, 2);
    recipe_.data.batch_size = 16;
    recipe_.data.sources = {test::source_of("images", folder_.path("large")),
                            test::source_of("images", folder_.path("small"))};
    recipe_.data.sources[0].name = "large";
    recipe_.data.sources[1].name = "small";
  }
  test::TemporaryFolder folder_;
  config::Recipe recipe_;
};

TEST_F(BalanceRecipe, MeasuresEveryHeader) {
  std::vector<SourceCost> costs = measure_costs(recipe_.data.sources, recipe_.model, 2);
  EXPECT_EQ(costs[0].cost, (5 * 64 + 128) * 3) << "whole images of different sizes";
  EXPECT_EQ(costs[1].cost, 6 * 16 * 3);
  EXPECT_EQ(costs[0].samples, 6);
  recipe_.data.sources[0].tile = {4, 4};
  recipe_.data.sources[1].weight = 2.5;
  costs = measure_costs(recipe_.data.sources, recipe_.model, 1);
  EXPECT_EQ(costs[0].windows, 5 * 4 + 8);
  EXPECT_EQ(costs[0].cost, 28 * 16 * 3);
  EXPECT_EQ(costs[1].samples, 15);
  EXPECT_EQ(costs[1].cost, 720);
}

TEST_F(BalanceRecipe, NamesABrokenHeader) {
  test::write_bytes(folder_.path("small/3.png"), "broken");
  EXPECT_THAT(test::message_of<core::DataError>(
                  [&] { measure_costs(recipe_.data.sources, recipe_.model, 2); }),
              HasSubstr("small/3.png"));
}

TEST_F(BalanceRecipe, ReportsRanksIterationsAndWhatIsRepeated) {
  recipe_.data.sources[0].tile = {4, 4};
  // 28 and 6 windows of equal cost on 8 ranks: quotas 6.6 and 1.4; 2 samples a rank and step.
  const Balance balance = balance_recipe(recipe_, 8);
  EXPECT_EQ(balance.rows[0].ranks, 7);
  EXPECT_EQ(balance.rows[1].ranks, 1);
  EXPECT_EQ(balance.rows[0].batches, 2);
  EXPECT_EQ(balance.rows[1].batches, 3);
  EXPECT_EQ(balance.iterations, 3);
  EXPECT_DOUBLE_EQ(balance.idle, 1 - 34.0 / 48);
  EXPECT_DOUBLE_EQ(balance.rows[1].idle, 0);
  const auto json = nlohmann::json::parse(to_json(balance));
  EXPECT_EQ(json["sources"][0]["ranks"], 7);
  EXPECT_EQ(json["iterations"], 3);
  EXPECT_THAT(to_text(balance), HasSubstr("3 iterations an epoch"));
  recipe_.data.ranks_per_source = {4, 4};
  EXPECT_EQ(balance_recipe(recipe_, 8).iterations, 4);
  EXPECT_THAT(test::message_of<core::ConfigError>([&] { balance_recipe(recipe_, 5); }),
              HasSubstr("multiple of the data ranks but got 16 for 5"));
}

}  // namespace
}  // namespace vitrail::data
