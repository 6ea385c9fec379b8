// Classes of leaves, and mosaics.

#include <algorithm>
#include <cstdio>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/patching/resample_cases.h"
#include "vitrail/core/error.h"

namespace vitrail::patching {
namespace {

using test::Case;
using test::case_of;
using test::kKey;
using test::random_case;
using test::serialised;
using testing::ElementsAre;

std::vector<int64_t> labelled(const std::vector<int64_t>& labels, const std::vector<int64_t>& sides,
                              const std::vector<float>& boxes, int64_t patch,
                              LabelRule rule = LabelRule::majority) {
  std::vector<int64_t> out(static_cast<size_t>(case_of(1, sides, boxes, patch).token_values()), 55);
  serialise_labels(labels, sides, boxes, patch, out, rule);
  return out;
}

TEST(Resample, NearestLabelsAreThoseAtThePlacesCentres) {
  // 5 pixels to 2: centres at 1.25 and 3.75; 3 to 2: at 0.75 and 2.25; 2 to 4: at 0.25, 0.75, 1.25, 1.75
  const auto nearest = [](const std::vector<int64_t>& row, int64_t patch) {
    const auto n = std::ssize(row);
    return labelled(row, {1, n}, {0, 0, 1, static_cast<float>(n)}, patch, LabelRule::nearest);
  };
  EXPECT_THAT(nearest({1, 2, 3, 4, 5}, 2), ElementsAre(2, 4, 2, 4));
  EXPECT_THAT(nearest({1, -1, 3}, 2), ElementsAre(1, 3, 1, 3));
  EXPECT_THAT(nearest({1, -1, 3}, 1), ElementsAre(-1));
  EXPECT_THAT(nearest({1, 2}, 4), testing::ElementsAreArray({1, 1, 2, 2, 1, 1, 2, 2,  //
                                                             1, 1, 2, 2, 1, 1, 2, 2}));
}

/// By counting, without looking at how the library does it.
int64_t plain_majority(const std::vector<int64_t>& votes) {
  int64_t winner = -1, most = 0;
  for (int64_t label = 0; label < 20; ++label) {
    const auto count = std::count(votes.begin(), votes.end(), label);
    if (count > most) winner = label, most = count;
  }
  return winner;
}

TEST(Resample, LabelsOfWholeCellsAreThePlainMajority) {
  for (uint64_t sample = 0; sample < 10; ++sample) {
    const auto labels = test::random_classes(12 * 12 * 12, 4, sample);
    const auto found = labelled(labels, {12, 12, 12}, {0, 0, 0, 12, 12, 12}, 4);
    for (int64_t p = 0; p < 64; ++p) {
      std::vector<int64_t> votes;
      for (int64_t i = 0; i < 27; ++i)
        votes.push_back(labels[static_cast<size_t>(
            ((p / 16 * 3 + i / 9) * 12 + p / 4 % 4 * 3 + i / 3 % 3) * 12 + p % 4 * 3 + i % 3)]);
      EXPECT_EQ(found[static_cast<size_t>(p)], plain_majority(votes)) << sample << ", " << p;
    }
  }
}

TEST(Resample, SharesAreTheSerialisedMasks) {
  constexpr int64_t kClasses = 3;
  double worst = 0, worst_sum = 0;
  for (uint64_t sample = 0; sample < 20; ++sample) {
    Case made = random_case(sample, 2 + sample % 2, 1 + static_cast<int64_t>(sample % 5), 4);
    made.channels = 1;
    const auto labels = test::random_classes(static_cast<size_t>(made.pixels()), kClasses, sample);
    const auto leaf_values = static_cast<size_t>(made.token_values());
    std::vector<float> shares(kClasses * leaf_values, 7.0f);
    serialise_shares(labels, kClasses, made.sides, made.boxes, made.patch, shares);
    std::vector<double> sums(leaf_values, 0.0);
    for (int64_t label = -1; label < kClasses; ++label) {
      std::vector<float> mask;
      for (const int64_t value : labels) mask.push_back(value == label ? 1.0f : 0.0f);
      const auto expected = serialised(made, mask);
      for (size_t i = 0; i < leaf_values; ++i) {
        const float share =
            label < 0 ? expected[i] : shares[static_cast<size_t>(label) * leaf_values + i];
        worst = std::max(worst, static_cast<double>(std::abs(share - expected[i])));
        sums[i] += share;
      }
    }
    const auto padding = static_cast<size_t>(2 * made.patch_pixels());
    for (size_t i = 0; i < leaf_values; ++i)
      worst_sum = std::max(worst_sum, std::abs(sums[i] - (i < leaf_values - padding ? 1.0 : 0.0)));
  }
  std::printf("worst share %.1e, sum %.1e (allowed 1e-6)\n", worst, worst_sum);
  EXPECT_LE(worst, 1e-6);  // floats of 1 round at 6e-8
  EXPECT_LE(worst_sum, 1e-6);
  std::vector<float> none(4);
  EXPECT_THROW(serialise_shares(std::vector<int64_t>(16), 3, std::vector<int64_t>{4, 4},
                                std::vector<float>{0, 0, 4, 4}, 2, none),
               core::Error);
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

}  // namespace
}  // namespace vitrail::patching
