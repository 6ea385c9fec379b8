#include "vitrail/core/philox.h"

#include <cmath>
#include <cstdio>
#include <set>
#include <vector>

#include <gtest/gtest.h>

namespace vitrail::core {
namespace {

struct KnownAnswer {
  uint32_t counter[4], key[2], result[4];
};

// kat_vectors of Random123 1.14, lines "philox4x32 10".
constexpr KnownAnswer kKnownAnswers[] = {
    {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
    {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
     {0xffffffff, 0xffffffff},
     {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
    {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
     {0xa4093822, 0x299f31d0},
     {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
};

TEST(Philox, GivesTheKnownAnswersOfRandom123) {
  for (const KnownAnswer& known : kKnownAnswers) {
    const auto& c = known.counter;
    const Philox4 result = philox4x32({{c[0], c[1], c[2], c[3]}}, known.key[0], known.key[1]);
    for (int i = 0; i < 4; ++i) EXPECT_EQ(result.x[i], known.result[i]);
  }
}

TEST(Philox, EveryFieldOfThePlaceChangesTheDraw) {
  const DrawKey key{7, Stream::mask, 3, 2};
  std::set<uint32_t> seen = {draw(key, 5, 0)};
  const auto is_new = [&](const DrawKey& other, uint64_t sample, uint32_t element) {
    return seen.insert(draw(other, sample, element)).second;
  };
  EXPECT_TRUE(is_new({8, Stream::mask, 3, 2}, 5, 0));
  EXPECT_TRUE(is_new({7, Stream::crop, 3, 2}, 5, 0));
  EXPECT_TRUE(is_new({7, Stream::mask, 4, 2}, 5, 0));
  EXPECT_TRUE(is_new({7, Stream::mask, 3, 1}, 5, 0));
  EXPECT_TRUE(is_new(key, 6, 0));
  EXPECT_TRUE(is_new(key, 5 + (uint64_t{1} << 32), 0));
  EXPECT_TRUE(is_new(key, 5 + (uint64_t{1} << 47), 0));
  for (uint32_t element = 1; element < 9; ++element) EXPECT_TRUE(is_new(key, 5, element));
}

/// Chi-square of `values` (in [0, 1)) in equal bins.
double chi_square(const std::vector<float>& values, int bins) {
  std::vector<int64_t> counts(static_cast<size_t>(bins));
  for (const float value : values) ++counts[static_cast<size_t>(value * static_cast<float>(bins))];
  const double expected = static_cast<double>(values.size()) / bins;
  double sum = 0.0;
  for (const int64_t count : counts) sum += (count - expected) * (count - expected) / expected;
  return sum;
}

TEST(Philox, UniformsFillTheUnitIntervalEvenly) {
  const DrawKey key{1, Stream::test, 0, 0};
  std::vector<float> by_element, by_sample;
  for (uint32_t i = 0; i < 200'000; ++i) {
    by_element.push_back(uniform(key, 0, i));
    by_sample.push_back(uniform(key, i, 0));
  }
  // 255 degrees of freedom: mean 255, standard deviation 22.6; five of them away is a chance of
  // 1e-6.
  for (const auto& values : {by_element, by_sample}) {
    const double statistic = chi_square(values, 256);
    std::printf("chi-square of 256 bins: %.1f (bounds 142 to 368)\n", statistic);
    EXPECT_GT(statistic, 142.0);
    EXPECT_LT(statistic, 368.0);
  }
}

double correlation(const std::vector<double>& a, const std::vector<double>& b) {
  double sum_a = 0, sum_b = 0, aa = 0, bb = 0, ab = 0;
  const auto n = static_cast<double>(a.size());
  for (size_t i = 0; i < a.size(); ++i) {
    sum_a += a[i], sum_b += b[i];
    aa += a[i] * a[i], bb += b[i] * b[i], ab += a[i] * b[i];
  }
  return (ab - sum_a * sum_b / n) / std::sqrt((aa - sum_a * sum_a / n) * (bb - sum_b * sum_b / n));
}

TEST(Philox, NeighboursAreUncorrelated) {
  constexpr uint32_t kCount = 100'000;
  const DrawKey key{2, Stream::noise, 0, 0};
  std::vector<double> here, next_element, next_sample, next_step, next_layer, next_stream,
      next_seed;
  for (uint32_t i = 0; i < kCount; ++i) {
    here.push_back(uniform(key, 0, i));
    next_element.push_back(uniform(key, 0, i + 1));
    next_sample.push_back(uniform(key, 1, i));
    next_step.push_back(uniform({2, Stream::noise, 1, 0}, 0, i));
    next_layer.push_back(uniform({2, Stream::noise, 0, 1}, 0, i));
    next_stream.push_back(uniform({2, Stream::time, 0, 0}, 0, i));
    next_seed.push_back(uniform({3, Stream::noise, 0, 0}, 0, i));
  }
  // Standard deviation 1 / sqrt(kCount) = 0.0032; five of them.
  double worst = 0.0;
  for (const auto* other :
       {&next_element, &next_sample, &next_step, &next_layer, &next_stream, &next_seed})
    worst = std::max(worst, std::abs(correlation(here, *other)));
  std::printf("largest correlation %.4f (bound 0.0158)\n", worst);
  EXPECT_LT(worst, 0.0158);
}

TEST(Philox, UniformsStayBelowOne) {
  EXPECT_EQ(to_uniform(0), 0.0f);
  EXPECT_LT(to_uniform(0xFFFFFFFFu), 1.0f);
}

TEST(Philox, NormalsHaveTheMomentsOfANormal) {
  constexpr int kCount = 400'000;
  const DrawKey key{3, Stream::noise, 0, 0};
  double sums[5] = {};
  double product = 0.0, last = 0.0;
  int beyond_two = 0;
  for (int i = 0; i < kCount; ++i) {
    const double value = normal(key, 11, static_cast<uint32_t>(i));
    ASSERT_LT(std::abs(value), 6.7);
    for (int power = 1; power <= 4; ++power) sums[power] += std::pow(value, power);
    product += value * last;
    last = value;
    beyond_two += std::abs(value) > 2.0;
  }
  // Five standard deviations of each mean: sqrt(1, 2, 15, 96 and 1) / sqrt(kCount); the share
  // beyond 2 is 0.0455.
  const double unit = 5.0 / std::sqrt(static_cast<double>(kCount));
  std::printf("moments %.4f %.4f %.4f %.4f, neighbours %.4f, beyond 2: %.4f\n", sums[1] / kCount,
              sums[2] / kCount, sums[3] / kCount, sums[4] / kCount, product / kCount,
              double(beyond_two) / kCount);
  EXPECT_NEAR(sums[1] / kCount, 0.0, unit);
  EXPECT_NEAR(sums[2] / kCount, 1.0, unit * std::sqrt(2.0));
  EXPECT_NEAR(sums[3] / kCount, 0.0, unit * std::sqrt(15.0));
  EXPECT_NEAR(sums[4] / kCount, 3.0, unit * std::sqrt(96.0));
  EXPECT_NEAR(product / kCount, 0.0, unit);
  EXPECT_NEAR(double(beyond_two) / kCount, 0.0455, unit * 0.21);
}

}  // namespace
}  // namespace vitrail::core
