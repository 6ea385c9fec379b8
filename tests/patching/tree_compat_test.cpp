// What compat: ucf-vit divides by, and what it refuses. Its trees and patches: tests/parity/ucf_tree.py.

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>

#include <gtest/gtest.h>

#include "vitrail/core/error.h"
#include "vitrail/core/philox.h"
#include "vitrail/patching/adaptive.h"
#include "vitrail/patching/compat_ucf.h"

namespace vitrail::patching {
namespace {

/// A bright disc (ball) in the middle.
std::vector<uint8_t> ball(const std::vector<int64_t>& sides) {
  int64_t pixels = 1;
  for (const int64_t side : sides) pixels *= side;
  std::vector<uint8_t> bytes(static_cast<size_t>(pixels), 20);
  for (int64_t i = 0; i < pixels; ++i) {
    double square = 0;
    int64_t place = i;
    for (size_t axis = sides.size(); axis-- > 0; place /= sides[axis]) {
      const double d =
          static_cast<double>(place % sides[axis]) + 0.5 - static_cast<double>(sides[axis]) / 2;
      square += d * d;
    }
    if (square < 0.09 * static_cast<double>(sides[0] * sides[0]))
      bytes[static_cast<size_t>(i)] = 220;
  }
  return bytes;
}

TEST(UcfMap, OfImagesIsTheEdgeMap) {
  const std::vector<int64_t> sides{64, 64};
  const auto bytes = ball(sides);
  std::vector<uint8_t> edges(bytes.size());
  edge_map(bytes, 1, sides, {3, 60, 110}, edges);
  const UcfMap map = ucf_map(bytes, 1, sides, {3, 60, 110});
  EXPECT_EQ(map.unit, 1);
  EXPECT_TRUE(std::equal(edges.begin(), edges.end(), map.values.begin(), map.values.end()));
  EXPECT_GT(std::count(edges.begin(), edges.end(), 1), 50);
}

TEST(UcfMap, WithoutSmoothingIsUniformNoise) {
  const std::vector<int64_t> sides{128, 128};
  const auto bytes = ball(sides);
  const UcfMap map = ucf_map(bytes, 1, sides, {0, 60, 110});
  EXPECT_EQ(map.values, ucf_map(bytes, 1, sides, {0, 90, 140}).values);
  double sum = 0, squares = 0;
  for (const int32_t value : map.values) {
    const double v = value / 65536.0;
    EXPECT_TRUE(v >= 0 && v < 1);
    sum += v, squares += v * v;
  }
  const double n = static_cast<double>(map.values.size()), mean = sum / n;
  // Standard errors of 16384 uniform draws: 0.0023 of the mean, 0.0006 of the variance; four of each.
  std::printf("mean %.4f, variance %.4f\n", mean, squares / n - mean * mean);
  EXPECT_NEAR(mean, 0.5, 0.0092);
  EXPECT_NEAR(squares / n - mean * mean, 1.0 / 12, 0.0024);
  auto other = bytes;
  other[0] ^= 1;
  EXPECT_NE(map.values, ucf_map(other, 1, sides, {0, 60, 110}).values);
}

TEST(UcfMap, OfVolumesHoldsTheUpperHalfOfTheDirections) {
  const std::vector<int64_t> sides{32, 32, 32};
  const auto bytes = ball(sides);
  const UcfMap map = ucf_map(bytes, 1, sides, {1, 50, 100});
  int64_t upper = 0, lower = 0;
  for (size_t i = 0; i < map.values.size(); ++i)
    ((i / 32 % 32) < 16 ? upper : lower) += map.values[i];
  std::printf("edges: %lld in one half of the slices, %lld in the other\n",
              static_cast<long long>(upper), static_cast<long long>(lower));
  // Directions go from -pi to pi; the upper half is that of gradients towards higher rows.
  EXPECT_GT(upper, 200);
  EXPECT_LT(lower, upper / 20);
  EXPECT_EQ(ucf_map(std::vector<uint8_t>(32 * 32 * 32, 9), 1, sides, {3, 50, 100}).values,
            std::vector<int32_t>(32 * 32 * 32, 0));
}

TEST(UcfMap, DrawsFourSmoothings) {
  std::array<int, 6> counts{};
  std::set<int64_t> lows;
  for (int64_t i = 0; i < 4000; ++i) {
    const EdgeOptions drawn = drawn_ucf_edges(1, i % 7, i);
    ++counts[static_cast<size_t>(drawn.blur)];
    lows.insert(drawn.low);
    EXPECT_EQ(drawn.high, drawn.low + 50);
  }
  for (const size_t blur : {0, 1, 3, 5}) EXPECT_NEAR(counts[blur], 1000, 110);  // four sigma
  EXPECT_EQ(counts[2] + counts[4], 0);
  EXPECT_EQ(*lows.begin(), 50);
  EXPECT_EQ(*lows.rbegin(), 99);
  EXPECT_EQ(lows.size(), 50u);
}

TEST(UcfTree, RefusesWhatUcfVitRefuses) {
  std::vector<float> boxes(4 * 4);
  const UcfMap map{std::vector<int32_t>(64), 1};
  EXPECT_EQ(ucf_boxes(map, std::vector<int64_t>{8, 8}, 4, boxes), 4);
  EXPECT_THROW(ucf_boxes(map, std::vector<int64_t>{4, 16}, 4, boxes), core::Error);
  EXPECT_THROW(ucf_boxes({std::vector<int32_t>(36), 1}, std::vector<int64_t>{6, 6}, 4, boxes),
               core::Error);
  boxes.resize(5 * 4);
  EXPECT_THROW(ucf_boxes(map, std::vector<int64_t>{8, 8}, 5, boxes), core::Error);
}

TEST(UcfTree, ReachesPatchifyThroughItsOption) {
  const std::vector<int64_t> sides{64, 64};
  const auto bytes = ball(sides);
  const std::vector<float> image(bytes.begin(), bytes.end());
  LeafOptions options{61, 8, 8};
  const Leaves ours = patchify(image, 1, sides, {}, options);
  options.compat = true;
  const Leaves theirs = patchify(image, 1, sides, {}, options);
  EXPECT_NE(ours.boxes, theirs.boxes);
  EXPECT_EQ(theirs.count, 61);
  EXPECT_GT(theirs.boxes[0], 0);  // the lower rows come first
}

TEST(Adaptive, DividesByTheOptionsImportance) {
  const std::vector<int64_t> sides{64, 64};
  const auto bytes = ball(sides);
  std::vector<float> image(2 * bytes.size(), 0.0f);
  std::copy(bytes.begin(), bytes.end(), image.begin());
  image[64 * 64 + 64 * 5 + 9] = 255;  // the second channel: one bright pixel
  std::set<std::vector<float>> trees;
  for (const Importance importance :
       {Importance::edges, Importance::gradient, Importance::variance, Importance::given}) {
    LeafOptions options{61, 8, 4};
    options.importance = importance;
    options.importance_channel = 1;
    options.value_floor = 0;
    const Leaves leaves = patchify(image, 2, sides, {}, options);
    trees.insert(leaves.boxes);
    if (importance != Importance::given) continue;
    EXPECT_EQ(leaves.count, 13);  // 64 to 4 in four splits
  }
  EXPECT_GE(trees.size(), 3u);
}

}  // namespace
}  // namespace vitrail::patching
