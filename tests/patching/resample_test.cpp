// Leaves to patches and back, by hand and by what must hold for any image.

#include "vitrail/patching/resample.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "vitrail/core/error.h"
#include "vitrail/core/philox.h"
#include "vitrail/patching/adaptive.h"

namespace vitrail::patching {
namespace {

using testing::ElementsAre;

constexpr core::DrawKey kKey{5, core::Stream::test, 0, 2};

std::vector<float> random_values(size_t count, uint64_t sample) {
  std::vector<float> values(count);
  for (size_t i = 0; i < count; ++i)
    values[i] = core::normal(kKey, sample, static_cast<uint32_t>(i));
  return values;
}

std::vector<float> serialised(const std::vector<float>& image, int64_t channels,
                              const std::vector<int64_t>& sides, const std::vector<float>& boxes,
                              int64_t patch) {
  const auto axes = std::ssize(sides);
  AdaptiveOptions options{std::ssize(boxes) / (2 * axes), patch};
  std::vector<float> tokens(static_cast<size_t>(token_values(options, channels, axes)));
  serialise(image, channels, sides, boxes, patch, tokens);
  return tokens;
}

TEST(Resample, KeepsChannelsApartAndPixelsInOrder) {
  // 2 channels of 2 x 4, two leaves of 2 x 2
  const std::vector<float> image{1, 2, 3, 4, 5, 6, 7, 8, 11, 12, 13, 14, 15, 16, 17, 18};
  EXPECT_THAT(serialised(image, 2, {2, 4}, {0, 0, 2, 2, 0, 2, 2, 4}, 2),
              ElementsAre(1, 2, 5, 6, 3, 4, 7, 8, 11, 12, 15, 16, 13, 14, 17, 18));
}

TEST(Resample, AveragesAreasWhereItShrinks) {
  const std::vector<float> image{0, 4, 8, 12, 16, 20, 24, 28, 1, 1, 1, 1, 3, 3, 3, 3};
  EXPECT_THAT(serialised(image, 1, {4, 4}, {0, 0, 4, 4}, 2), ElementsAre(10, 18, 2, 2));
  // 3 pixels to 2: each takes one and a half
  EXPECT_THAT(serialised({3, 6, 12}, 1, {1, 3}, {0, 0, 1, 3}, 2), ElementsAre(4, 10, 4, 10));
}

TEST(Resample, InterpolatesBetweenCentresWhereItGrows) {
  // 2 pixels to 4: centres at 0, 1/4, 3/4, 1 between them
  EXPECT_THAT(serialised({0, 8}, 1, {1, 2}, {0, 0, 1, 2}, 4),
              ElementsAre(0, 2, 6, 8, 0, 2, 6, 8, 0, 2, 6, 8, 0, 2, 6, 8));
}

TEST(Resample, TakesVolumesAxisByAxis) {
  std::vector<float> volume;
  for (int z = 0; z < 4; ++z)
    for (int y = 0; y < 2; ++y)
      for (int x = 0; x < 4; ++x) volume.push_back(static_cast<float>(100 * z + 10 * y + x));
  // z and x shrink by 2, y stays
  EXPECT_THAT(serialised(volume, 1, {4, 2, 4}, {0, 0, 0, 4, 2, 4}, 2),
              ElementsAre(50.5, 52.5, 60.5, 62.5, 250.5, 252.5, 260.5, 262.5));
}

TEST(Resample, PaddingIsZeroAndPastesNothing) {
  const std::vector<float> image{1, 2, 3, 4};
  const std::vector<float> boxes{0, 0, 2, 2, 0, 0, 0, 0};
  const std::vector<float> tokens = serialised(image, 1, {2, 2}, boxes, 2);
  EXPECT_THAT(tokens, ElementsAre(1, 2, 3, 4, 0, 0, 0, 0));
  std::vector<float> back(4, 9.0f);
  std::vector<float> noisy = tokens;
  noisy[5] = 77;
  paste(noisy, 1, std::vector<int64_t>{2, 2}, boxes, 2, back);
  EXPECT_EQ(back, image);
}

/// Trees over random importance: sides, boxes and a channel count.
struct Case {
  std::vector<int64_t> sides;
  int64_t channels, patch;
  std::vector<float> boxes;
};

Case random_case(uint64_t sample, size_t axes, int64_t min_leaf, int64_t patch) {
  Case made;
  made.channels = 1 + core::draw(kKey, sample, 0) % 3;
  made.patch = patch;
  int64_t pixels = 1;
  for (uint32_t axis = 0; axis < axes; ++axis) {
    made.sides.push_back(1 + core::draw(kKey, sample, 1 + axis) % (axes == 2 ? 60 : 24));
    pixels *= made.sides.back();
  }
  std::vector<uint8_t> importance(static_cast<size_t>(pixels));
  for (size_t i = 0; i < importance.size(); ++i)
    importance[i] = core::draw(kKey, sample, static_cast<uint32_t>(10 + i)) % 50 == 0;
  AdaptiveOptions options{40, patch, min_leaf};
  made.boxes.resize(static_cast<size_t>(box_values(options, std::ssize(made.sides))));
  leaf_boxes(importance, made.sides, options, made.boxes);
  return made;
}

int64_t pixels_in(const Case& made) {
  int64_t pixels = 1;
  for (const int64_t side : made.sides) pixels *= side;
  return pixels;
}

std::vector<float> there_and_back(const Case& made, const std::vector<float>& image) {
  const auto tokens = serialised(image, made.channels, made.sides, made.boxes, made.patch);
  std::vector<float> back(image.size(), -1.0f);
  paste(tokens, made.channels, made.sides, made.boxes, made.patch, back);
  return back;
}

TEST(Resample, BringsLeavesOfPatchSizeBackExactly) {
  for (const std::vector<int64_t>& sides :
       {std::vector<int64_t>{16, 24}, std::vector<int64_t>{8, 16, 12}}) {
    Case made{sides, 3, 4, {}};
    AdaptiveOptions options{pixels_in(made), 4};
    made.boxes.resize(static_cast<size_t>(box_values(options, std::ssize(sides))));
    const std::vector<uint8_t> importance(static_cast<size_t>(pixels_in(made)), 1);
    leaf_boxes(importance, sides, options, made.boxes);
    const auto image = random_values(static_cast<size_t>(3 * pixels_in(made)), 1);
    EXPECT_EQ(there_and_back(made, image), image);
  }
}

TEST(Resample, BringsImagesThatAreConstantOnTheirLeavesBackExactly) {
  for (uint64_t sample = 0; sample < 60; ++sample) {
    const Case made = random_case(sample, 2 + sample % 2, 1 + static_cast<int64_t>(sample % 5), 4);
    const auto k = made.sides.size();
    std::vector<float> image(static_cast<size_t>(made.channels * pixels_in(made)));
    for (size_t i = 0; i < image.size(); ++i) {
      size_t place = i % static_cast<size_t>(pixels_in(made));
      const size_t channel = i / static_cast<size_t>(pixels_in(made));
      std::vector<float> at(k);
      for (size_t axis = k; axis-- > 0;) {
        at[axis] = static_cast<float>(place % static_cast<size_t>(made.sides[axis]));
        place /= static_cast<size_t>(made.sides[axis]);
      }
      for (size_t leaf = 0; leaf * 2 * k < made.boxes.size(); ++leaf) {
        bool inside = true;
        for (size_t axis = 0; axis < k; ++axis)
          inside = inside && at[axis] >= made.boxes[leaf * 2 * k + axis] &&
                   at[axis] < made.boxes[leaf * 2 * k + k + axis];
        if (inside) image[i] = core::normal(kKey, 99, static_cast<uint32_t>(leaf * 3 + channel));
      }
    }
    EXPECT_EQ(there_and_back(made, image), image) << "sample " << sample;
  }
}

TEST(Resample, StaysWithinTheLeafsOwnRange) {
  for (uint64_t sample = 0; sample < 20; ++sample) {
    const Case made = random_case(sample, 2, 3, 5);
    const auto image = random_values(static_cast<size_t>(made.channels * pixels_in(made)), sample);
    const auto [low, high] = std::minmax_element(image.begin(), image.end());
    for (const float value : there_and_back(made, image)) {
      EXPECT_GE(value, *low);
      EXPECT_LE(value, *high);
    }
  }
}

std::vector<int64_t> labelled(const std::vector<int64_t>& labels, const std::vector<int64_t>& sides,
                              const std::vector<float>& boxes, int64_t patch) {
  const auto axes = std::ssize(sides);
  AdaptiveOptions options{std::ssize(boxes) / (2 * axes), patch};
  std::vector<int64_t> out(static_cast<size_t>(token_values(options, 1, axes)), 55);
  serialise_labels(labels, sides, boxes, patch, out);
  return out;
}

TEST(Resample, LabelsFollowTheMajority) {
  const std::vector<int64_t> labels{0,  0,  2, 2,  //
                                    0,  1,  1, 1,  //
                                    -1, -1, 3, 4,  //
                                    -1, 7,  4, 3};
  // 2 and 1 twice each: the least of equals; -1 has no vote; 3 and 4 likewise
  EXPECT_THAT(labelled(labels, {4, 4}, {0, 0, 4, 4, 0, 0, 0, 0}, 2),
              ElementsAre(0, 1, 7, 3, -1, -1, -1, -1));
  EXPECT_THAT(labelled({-1, -1, -1, -1}, {2, 2}, {0, 0, 2, 2}, 1), ElementsAre(-1));
  // 3 pixels to 2: the middle one's centre begins the second place
  EXPECT_THAT(labelled({5, 6, 6}, {1, 3}, {0, 0, 1, 3}, 2), ElementsAre(5, 6, 5, 6));
  // 2 pixels to 4: the nearest
  EXPECT_THAT(labelled({5, 6}, {1, 2}, {0, 0, 1, 2}, 4),
              ElementsAre(5, 5, 6, 6, 5, 5, 6, 6, 5, 5, 6, 6, 5, 5, 6, 6));
}

TEST(Resample, LabelsOfPatchSizedLeavesAreTheMask) {
  std::vector<int64_t> labels;
  for (uint32_t i = 0; i < 64; ++i) labels.push_back(core::draw(kKey, 3, i) % 5);
  std::vector<float> boxes;
  std::vector<int64_t> expected;
  for (int64_t y = 0; y < 8; y += 4)
    for (int64_t x = 0; x < 8; x += 4) {
      for (const int64_t v : {y, x, y + 4, x + 4}) boxes.push_back(static_cast<float>(v));
      for (int64_t p = 0; p < 16; ++p)
        expected.push_back(labels[static_cast<size_t>((y + p / 4) * 8 + x + p % 4)]);
    }
  EXPECT_EQ(labelled(labels, {8, 8}, boxes, 4), expected);
}

TEST(Resample, MosaicsAreRowsOfLeaves) {
  // four leaves of 2 x 2
  std::vector<int64_t> leaves(16), mosaic(16);
  for (int64_t i = 0; i < 16; ++i) leaves[static_cast<size_t>(i)] = i;
  to_mosaic<int64_t>(leaves, 2, 2, mosaic);
  EXPECT_THAT(mosaic, ElementsAre(0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15));
  const std::vector<float> values(mosaic.begin(), mosaic.end());
  std::vector<float> back(16);
  from_mosaic<float>(values, 2, 2, back);
  EXPECT_TRUE(std::equal(back.begin(), back.end(), leaves.begin()));
  // eight leaves of 2 x 2 x 2
  std::vector<int64_t> cube(64), built(64);
  for (int64_t i = 0; i < 64; ++i) cube[static_cast<size_t>(i)] = i;
  to_mosaic<int64_t>(cube, 3, 2, built);
  EXPECT_EQ(built[0], 0);
  EXPECT_EQ(built[2], 8);        // x = 2: the second leaf
  EXPECT_EQ(built[2 * 4], 16);   // y = 2: the third
  EXPECT_EQ(built[2 * 16], 32);  // z = 2: the fifth
  EXPECT_EQ(built[16], 4);       // z = 1: inside the first
  std::vector<int64_t> wrong(12);
  EXPECT_THROW(to_mosaic<int64_t>(std::vector<int64_t>(12), 2, 2, wrong), core::Error);
}

TEST(Resample, RefusesBoxesThatAreNone) {
  const std::vector<float> image(16, 1.0f);
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const std::vector<float>& box : {std::vector<float>{0, 0, 4, 5},
                                        {-1, 0, 4, 4},
                                        {2, 0, 1, 4},
                                        {0.5, 0, 4, 4},
                                        {nan, 0, 4, 4},
                                        {0, 0, 4, 1e30f}})
    EXPECT_THROW(serialised(image, 1, {4, 4}, box, 2), core::Error);
  std::vector<float> tokens(3);
  EXPECT_THROW(
      serialise(image, 1, std::vector<int64_t>{4, 4}, std::vector<float>{0, 0, 4, 4}, 2, tokens),
      core::Error);
}

}  // namespace
}  // namespace vitrail::patching
