// From an image to tokens, and how long it takes.

#include "vitrail/patching/adaptive.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <set>

#include <gtest/gtest.h>

#include "vitrail/core/error.h"
#include "vitrail/core/philox.h"
#include "vitrail/patching/resample.h"

namespace vitrail::patching {
namespace {

constexpr core::DrawKey kKey{5, core::Stream::test, 0, 3};

const std::vector<float> kUnit{0, 1};
const std::vector<float> kUnit3{0, 1, 0, 1, 0, 1};  // black and white of three channels

/// Soft discs (balls) of several sizes with a little noise, values in [0, 1].
std::vector<float> picture(int64_t channels, const std::vector<int64_t>& sides, uint64_t sample) {
  int64_t pixels = 1;
  for (const int64_t side : sides) pixels *= side;
  std::vector<float> image(static_cast<size_t>(channels * pixels));
  for (int64_t i = 0; i < channels * pixels; ++i) {
    int64_t place = i % pixels;
    float value = 0.2f;
    float at[3] = {};
    for (size_t axis = sides.size(); axis-- > 0; place /= sides[axis])
      at[axis] = static_cast<float>(place % sides[axis]) / static_cast<float>(sides[axis]);
    for (uint32_t disc = 0; disc < 6; ++disc) {
      float distance = 0;
      for (uint32_t axis = 0; axis < sides.size(); ++axis) {
        const float d = at[axis] - core::uniform(kKey, sample, 8 * disc + axis);
        distance += d * d;
      }
      const float radius = 0.02f + 0.2f * core::uniform(kKey, sample, 8 * disc + 7);
      if (distance < radius * radius) value = 0.3f + 0.1f * static_cast<float>(disc + i / pixels);
    }
    image[static_cast<size_t>(i)] =
        value + 0.02f * core::uniform(kKey, sample + 1000, static_cast<uint32_t>(i));
  }
  return image;
}

TEST(Adaptive, TokensAndBoxesHaveTheBatchsLayout) {
  const std::vector<int64_t> sides{64, 48};
  const auto image = picture(3, sides, 1);
  const LeafOptions options{61, 8, 8};
  const Leaves leaves = patchify(image, 3, sides, kUnit3, options);
  ASSERT_EQ(leaves.tokens.size(), 3u * 61 * 64);
  ASSERT_EQ(leaves.boxes.size(), 61u * 4);
  ASSERT_EQ(leaves.importance.size(), 64u * 48);
  EXPECT_GT(leaves.count, 20);
  double area = 0;
  for (size_t leaf = 0; leaf < 61; ++leaf) {
    const float* box = leaves.boxes.data() + 4 * leaf;
    const float height = box[2] - box[0], width = box[3] - box[1];
    area += height * width;
    EXPECT_EQ(height > 0 && width > 0, static_cast<int64_t>(leaf) < leaves.count);
    // Channel by channel, the mean of a token is that of its leaf.
    for (size_t c = 0; c < 3 && height > 0; ++c) {
      double token = 0, pixels = 0;
      for (size_t p = 0; p < 64; ++p) token += leaves.tokens[(c * 61 + leaf) * 64 + p] / 64.0;
      for (auto y = static_cast<size_t>(box[0]); y < static_cast<size_t>(box[2]); ++y)
        for (auto x = static_cast<size_t>(box[1]); x < static_cast<size_t>(box[3]); ++x)
          pixels += image[(c * 64 + y) * 48 + x] / (height * width);
      EXPECT_NEAR(token, pixels, 1e-6);  // floats of about 1 round at 6e-8
    }
  }
  EXPECT_EQ(area, 64 * 48);
}

TEST(Adaptive, CallersMemoryGetsTheSame) {
  const std::vector<int64_t> sides{24, 32, 16};
  const auto image = picture(2, sides, 2);
  const LeafOptions options{64, 4, 4};
  const EdgeOptions edges = drawn_edges(1, 2, 3);
  const Leaves leaves = patchify(image, 2, sides, {}, options, edges);
  std::vector<float> tokens(static_cast<size_t>(token_values(options, 2, 3)), 7.0f);
  std::vector<float> boxes(static_cast<size_t>(box_values(options, 3)), 7.0f);
  EXPECT_EQ(patchify(image, 2, sides, {}, options, edges, tokens, boxes), leaves.count);
  EXPECT_EQ(tokens, leaves.tokens);
  EXPECT_EQ(boxes, leaves.boxes);
}

TEST(Adaptive, SmallLeavesLieOnEdges) {
  const std::vector<int64_t> sides{128, 128};
  const Leaves leaves = patchify(picture(1, sides, 3), 1, sides, {}, {196, 4, 4});
  double small = 0, large = 0, small_area = 0, large_area = 0;
  for (size_t leaf = 0; leaf < 196; ++leaf) {
    const float* box = leaves.boxes.data() + 4 * leaf;
    double edges = 0;
    for (auto y = static_cast<size_t>(box[0]); y < static_cast<size_t>(box[2]); ++y)
      for (auto x = static_cast<size_t>(box[1]); x < static_cast<size_t>(box[3]); ++x)
        edges += leaves.importance[y * 128 + x];
    const bool is_small = box[2] - box[0] <= 4;
    (is_small ? small : large) += edges;
    (is_small ? small_area : large_area) += (box[2] - box[0]) * (box[3] - box[1]);
  }
  std::printf("edge pixels: %.3f of small leaves, %.4f of others\n", small / small_area,
              large / large_area);
  EXPECT_GT(small / small_area, 10 * large / large_area);
}

TEST(Adaptive, TrainingThresholdsChangeTheTree) {
  const std::vector<int64_t> sides{128, 128};
  const auto image = picture(1, sides, 4);
  std::set<std::vector<float>> trees;
  for (int64_t epoch = 0; epoch < 20; ++epoch)
    trees.insert(patchify(image, 1, sides, kUnit, {100, 4, 4}, drawn_edges(0, epoch, 5)).boxes);
  EXPECT_GE(trees.size(), 3u);  // three blurs at least
  EXPECT_EQ(patchify(image, 1, sides, kUnit, {100, 4, 4}).boxes,
            patchify(image, 1, sides, kUnit, {100, 4, 4}).boxes);
}

TEST(Adaptive, DefinesWhatOddImagesBecome) {
  for (const std::vector<int64_t>& sides :
       {std::vector<int64_t>{1, 1}, {1, 50}, {17, 3}, {1, 1, 1}, {2, 30, 1}, {7, 9, 11}}) {
    int64_t pixels = 1;
    for (const int64_t side : sides) pixels *= side;
    std::vector<float> image(static_cast<size_t>(pixels), 0.5f);
    image[static_cast<size_t>(pixels / 2)] = 1.0f;
    const LeafOptions options{32, 4, 4};
    const Leaves leaves = patchify(image, 1, sides, {}, options);
    EXPECT_GE(leaves.count, 1);
    std::vector<float> back(image.size());
    paste(leaves.tokens, 1, sides, leaves.boxes, 4, back);
    for (const float value : back) EXPECT_GE(value, 0.5f);  // every pixel is in a leaf
  }
}

TEST(Adaptive, RefusesWhatDoesNotFit) {
  const std::vector<float> image(64, 0.0f);
  const std::vector<int64_t> sides{8, 8};
  std::vector<float> tokens(4 * 16), boxes(4 * 4);
  const LeafOptions options{4, 4, 4};
  EXPECT_EQ(patchify(image, 1, sides, {}, options, {}, tokens, boxes), 4);
  EXPECT_THROW(patchify(image, 2, sides, {}, options, {}, tokens, boxes), core::Error);
  EXPECT_THROW(patchify(image, 1, std::vector<int64_t>{64}, {}, options, {}, tokens, boxes),
               core::Error);
  EXPECT_THROW(patchify(image, 1, sides, {}, {5, 4, 4}, {}, tokens, boxes), core::Error);
  EXPECT_THROW(patchify(image, 1, sides, {}, {4, 5, 4}, {}, tokens, boxes), core::Error);
  EXPECT_THROW(patchify(image, 1, sides, {}, {0, 4, 4}), core::Error);
  EXPECT_THROW(patchify(image, 1, sides, {}, {4, 0, 4}), core::Error);
  EXPECT_THROW(patchify(image, 1, sides, {}, {4, 4, -1}), core::Error);
  std::vector<float> broken = image;
  broken[7] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THROW(patchify(broken, 1, sides, {}, options), core::Error);
}

/// Prints ms of the best of five.
template <class Body>
double best_ms(Body&& body) {
  double best = 1e9;
  for (int i = 0; i < 5; ++i) {
    const auto start = std::chrono::steady_clock::now();
    body();
    const std::chrono::duration<double, std::milli> time = std::chrono::steady_clock::now() - start;
    best = std::min(best, time.count());
  }
  return best;
}

TEST(Adaptive, PrintsItsTimes) {
  struct Size {
    std::vector<int64_t> sides;
    int64_t channels, length, patch, min_leaf;
  };
  for (const Size& size :
       {Size{{256, 256}, 1, 196, 8, 2}, Size{{512, 512}, 3, 1024, 8, 8},
        Size{{64, 64, 64}, 1, 512, 4, 2}, Size{{128, 128, 128}, 1, 4096, 8, 2}}) {
    const auto image = picture(size.channels, size.sides, 9);
    const LeafOptions options{size.length, size.patch, size.min_leaf};
    std::vector<uint8_t> bytes(image.size()),
        edges(image.size() / static_cast<size_t>(size.channels));
    const auto axes = std::ssize(size.sides);
    std::vector<float> tokens(static_cast<size_t>(token_values(options, size.channels, axes)));
    std::vector<float> boxes(static_cast<size_t>(box_values(options, axes)));
    int64_t count = 0;
    const double edge_ms = best_ms([&] {
      scale_to_bytes(image, size.channels, {}, bytes);
      edge_map(bytes, size.channels, size.sides, {}, edges);
    });
    const double tree_ms = best_ms([&] { count = leaf_boxes(edges, size.sides, options, boxes); });
    const double token_ms =
        best_ms([&] { serialise(image, size.channels, size.sides, boxes, size.patch, tokens); });
    std::string sides;
    for (const int64_t side : size.sides)
      sides += (sides.empty() ? "" : "x") + std::to_string(side);
    std::printf("%lld x %s -> %lld leaves of %lld: edges %.2f ms, tree %.2f ms, tokens %.2f ms\n",
                static_cast<long long>(size.channels), sides.c_str(), static_cast<long long>(count),
                static_cast<long long>(size.patch), edge_ms, tree_ms, token_ms);
    EXPECT_EQ(count, size.length);
  }
}

}  // namespace
}  // namespace vitrail::patching
