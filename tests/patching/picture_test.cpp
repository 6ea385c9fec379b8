#include "vitrail/patching/picture.h"

#include <algorithm>
#include <array>

#include <gtest/gtest.h>

#include "vitrail/core/error.h"

namespace vitrail::patching {
namespace {

using Colour = std::array<int, 3>;

Colour at(const Picture& picture, int64_t y, int64_t x) {
  const uint8_t* rgb = picture.rgb.data() + 3 * (y * picture.width + x);
  return {rgb[0], rgb[1], rgb[2]};
}

/// A 4x4 image in leaves of 2x2, one of them padding, patches of 2x2.
struct Small {
  std::vector<int64_t> sides{4, 4};
  std::vector<uint8_t> bytes = std::vector<uint8_t>(16, 40), pasted = std::vector<uint8_t>(16, 60),
                       importance = std::vector<uint8_t>(16, 0);
  std::vector<float> boxes{0, 0, 2, 2, 0, 2, 2, 4, 2, 0, 4, 4, 0, 0, 0, 0};
  std::vector<uint8_t> tokens;
  Small() {
    for (int leaf = 0; leaf < 4; ++leaf)
      tokens.insert(tokens.end(), 4, static_cast<uint8_t>(100 + leaf));
    importance[5] = 3;
  }
  PictureParts parts() const { return {1, sides, bytes, importance, pasted, boxes, tokens, 2, 0}; }
};

// 4 pixels are shown 128 times as large (512 in all), with 6 pixels between panels.
constexpr int64_t kZoom = 128, kStep = 4 * kZoom + 6;

TEST(Picture, ShowsImageImportanceTokensAndMosaicSideBySide) {
  const Small small;
  const Picture picture = draw_leaves(small.parts());
  ASSERT_EQ(picture.width, 4 * kStep - 6);
  ASSERT_EQ(picture.height, 4 * kZoom);
  EXPECT_EQ(at(picture, 10, 10), (Colour{40, 40, 40}));
  EXPECT_EQ(at(picture, kZoom + 10, kStep + kZoom + 10), (Colour{255, 255, 255}))
      << "largest importance";
  EXPECT_EQ(at(picture, 10, kStep + 10), (Colour{0, 0, 0})) << "no importance";
  EXPECT_EQ(at(picture, 10, 2 * kStep + 10), (Colour{60, 60, 60}));
  EXPECT_EQ(at(picture, 10, 4 * kZoom + 3), (Colour{255, 255, 255})) << "the gap";
}

TEST(Picture, DrawsTheLowSidesOfEveryLeaf) {
  const Small small;
  const Picture picture = draw_leaves(small.parts());
  const Colour border{255, 214, 0};
  EXPECT_EQ(at(picture, 0, 77), border);
  EXPECT_EQ(at(picture, 77, 2 * kZoom), border) << "between the first two leaves";
  EXPECT_EQ(at(picture, 2 * kZoom, 77), border);
  EXPECT_EQ(at(picture, 3 * kZoom, 2 * kZoom), (Colour{40, 40, 40})) << "inside the third leaf";
}

TEST(Picture, PutsLeavesInOrderIntoTheMosaicAndLeavesPaddingWhite) {
  const Small small;
  const Picture picture = draw_leaves(small.parts());
  const int64_t left = 3 * kStep, cell = 2 * kZoom;
  EXPECT_EQ(at(picture, 5, left + 5), (Colour{100, 100, 100}));
  EXPECT_EQ(at(picture, 5, left + cell + 5), (Colour{101, 101, 101}));
  EXPECT_EQ(at(picture, cell + 5, left + 5), (Colour{102, 102, 102}));
  EXPECT_EQ(at(picture, cell + 5, left + cell + 5), (Colour{255, 255, 255}));
}

TEST(Picture, ReducesLargeImagesAndKeepsTheirEdges) {
  const std::vector<int64_t> sides{8, 5000};
  std::vector<uint8_t> bytes(40000), importance(40000, 0);
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = i % 3 == 0 ? 90 : 0;
  importance[3 * 5000 + 3001] = 1;
  const std::vector<float> boxes{0, 0, 8, 5000};
  const std::vector<uint8_t> tokens(4, 0);
  const Picture picture = draw_leaves({1, sides, bytes, importance, bytes, boxes, tokens, 2, 0});
  const int64_t width = (5000 + 2) / 3;  // a third, so that no side is above 2048
  EXPECT_GE(picture.width, 3 * width + 12);
  EXPECT_EQ(at(picture, 1, width + 6 + 3001 / 3), (Colour{255, 255, 255}))
      << "one edge pixel of nine";
  EXPECT_EQ(at(picture, 1, 100), (Colour{30, 30, 30})) << "the mean of nine pixels";
}

TEST(Picture, HasARowForEverySliceOfAVolume) {
  const std::vector<int64_t> sides{8, 8, 8};
  std::vector<uint8_t> bytes(512);
  for (size_t i = 0; i < bytes.size(); ++i)
    bytes[i] = static_cast<uint8_t>(i / 64 * 10);  // by the first axis
  const std::vector<uint8_t> importance(512, 0), tokens(8, 7);
  const std::vector<float> boxes{0, 0, 0, 8, 8, 8};
  PictureParts parts{1, sides, bytes, importance, bytes, boxes, tokens, 2, 0};
  const Picture three = draw_leaves(parts);
  EXPECT_EQ(three.height, 3 * 512 + 2 * 6);
  EXPECT_EQ(at(three, 100, 100), (Colour{40, 40, 40})) << "the middle slice, 4 of 8";
  parts.slices = 4;
  const Picture seven = draw_leaves(parts);
  EXPECT_EQ(seven.height, 7 * 512 + 6 * 6);
  for (int64_t i = 0; i < 4; ++i)
    EXPECT_EQ(at(seven, (3 + i) * (512 + 6) + 100, 100)[0], 10 + 20 * i) << "slices 1, 3, 5, 7";
}

TEST(Picture, RefusesPartsOfAnotherSize) {
  Small small;
  small.tokens.pop_back();
  EXPECT_THROW(draw_leaves(small.parts()), core::Error);
  small = {};
  small.importance.pop_back();
  EXPECT_THROW(draw_leaves(small.parts()), core::Error);
}

}  // namespace
}  // namespace vitrail::patching
