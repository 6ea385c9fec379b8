#include "vitrail/core/permutation.h"

#include <algorithm>
#include <cstdio>
#include <map>
#include <set>
#include <vector>

#include <gtest/gtest.h>

#include "vitrail/core/clock.h"
#include "vitrail/core/error.h"
#include "vitrail/core/philox.h"

namespace vitrail::core {
namespace {

std::vector<uint64_t> order(uint64_t size, uint64_t key) {
  const KeyedPermutation permutation(size, key);
  std::vector<uint64_t> result(size);
  for (uint64_t i = 0; i < size; ++i) result[i] = permutation(i);
  return result;
}

void expect_bijection(uint64_t size, uint64_t key) {
  std::vector<bool> seen(size);
  for (const uint64_t value : order(size, key)) {
    ASSERT_LT(value, size);
    ASSERT_FALSE(seen[value]) << "size " << size << " key " << key << " value " << value;
    seen[value] = true;
  }
}

TEST(Permutation, IsABijectionForEverySizeUpTo200) {
  for (uint64_t size = 1; size <= 200; ++size)
    for (uint64_t key = 0; key < 5; ++key) expect_bijection(size, key);
}

TEST(Permutation, IsABijectionForLargeSizes) {
  for (const uint64_t size : {1'023u, 1'024u, 1'025u, 50'000u, 65'536u, 65'537u, 1'281'167u})
    expect_bijection(size, mix64(size));
}

TEST(Permutation, StaysInRangeForHugeSizes) {
  for (const uint64_t size : {uint64_t{1} << 40, (uint64_t{1} << 62) + 1, ~uint64_t{0}}) {
    const KeyedPermutation permutation(size, 9);
    std::set<uint64_t> seen;
    int upper_half = 0;
    for (uint64_t i = 0; i < 1000; ++i)
      for (const uint64_t value : {permutation(i), permutation(size - 1 - i)}) {
        EXPECT_LT(value, size);
        EXPECT_TRUE(seen.insert(value).second);
        upper_half += value >= size / 2;
      }
    // 2,000 fair coins: 1,000 heads, standard deviation 22; five of them.
    EXPECT_NEAR(upper_half, 1000, 112);
  }
}

TEST(Permutation, DependsOnTheKeyAlone) {
  EXPECT_EQ(order(1000, 5), order(1000, 5));
  const auto first = order(1000, 5), second = order(1000, 6);
  int equal = 0;
  for (size_t i = 0; i < first.size(); ++i) equal += first[i] == second[i];
  // Places on which two random orders agree: Poisson of mean 1; more than 9 is a chance of 1e-7.
  EXPECT_LE(equal, 9);
}

TEST(Permutation, SendsEveryIndexEverywhereEquallyOften) {
  // 20 places, 20,000 keys: each cell expects 1,000.
  constexpr uint64_t kSize = 20, kKeys = 20'000;
  std::vector<int64_t> counts(kSize * kSize);
  for (uint64_t key = 0; key < kKeys; ++key) {
    const KeyedPermutation permutation(kSize, key);
    for (uint64_t i = 0; i < kSize; ++i) ++counts[i * kSize + permutation(i)];
  }
  double statistic = 0.0;
  for (const int64_t count : counts) {
    const double difference = static_cast<double>(count) - double{kKeys} / kSize;
    statistic += difference * difference / (double{kKeys} / kSize);
  }
  // 19 * 19 = 361 degrees of freedom: standard deviation 26.9; five of them is a chance of 1e-6.
  std::printf("chi-square of index x place: %.1f (bounds 226 to 496)\n", statistic);
  EXPECT_GT(statistic, 226.0);
  EXPECT_LT(statistic, 496.0);
}

TEST(Permutation, ReachesEveryOrderOfFive) {
  // 120 orders, 60,000 keys: each expects 500. Catches what single places do not show.
  std::map<std::vector<uint64_t>, int64_t> counts;
  for (uint64_t key = 0; key < 60'000; ++key) ++counts[order(5, key)];
  ASSERT_EQ(counts.size(), 120u);
  double statistic = 0.0;
  for (const auto& [unused, count] : counts) statistic += (count - 500.0) * (count - 500.0) / 500.0;
  // 119 degrees of freedom, standard deviation 15.4; five of them. Four rounds give 410, a network
  // on 16 places 680.
  std::printf("chi-square of 120 orders: %.1f (bound 196)\n", statistic);
  EXPECT_LT(statistic, 196.0);
}

TEST(Permutation, BreaksUpNeighbours) {
  const auto shuffled = order(50'000, 1);
  int64_t neighbours = 0;
  for (size_t i = 1; i < shuffled.size(); ++i)
    neighbours += shuffled[i] == shuffled[i - 1] + 1 || shuffled[i] + 1 == shuffled[i - 1];
  // Poisson of mean 2; more than 14 is a chance of 1e-8.
  EXPECT_LE(neighbours, 14);
}

TEST(Permutation, RefusesWhatIsOutside) {
  EXPECT_THROW(KeyedPermutation(0, 1), Error);
  EXPECT_THROW(KeyedPermutation(10, 1)(10), Error);
}

}  // namespace
}  // namespace vitrail::core
