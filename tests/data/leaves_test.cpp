// Rows of adaptive patches in a batch, and the mosaics of labels that go with them.

#include "vitrail/data/leaves.h"

#include <cmath>

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <gtest/gtest.h>

#include "vitrail/core/error.h"

namespace vitrail::data {
namespace {

config::Model model_of(const std::string& kind, int64_t length) {
  config::Model model;
  model.kind.value = kind;
  model.image_size = {16, 16};
  model.patch_size = 4;
  model.in_channels = 2;
  model.adaptive.fixed_length = length;
  return model;
}

/// A disc on nothing, [2, 16, 16], normalised by (v - 0.5) / 0.5.
std::vector<float> disc() {
  std::vector<float> image;
  for (int c = 0; c < 2; ++c)
    for (int y = 0; y < 16; ++y)
      for (int x = 0; x < 16; ++x)
        image.push_back((x - 5) * (x - 5) + (y - 5) * (y - 5) < 12 ? 0.5f + 0.1f * float(c)
                                                                   : -1.0f);
  return image;
}

const patching::ByteRange kHalf{{0.5f}, {0.5f}, false};

TEST(LeafRows, AreOffWithoutAdaptivePatches) {
  EXPECT_FALSE(LeafRows(model_of("vit", 0), true).is_on());
  EXPECT_TRUE(LeafRows(model_of("vit", 7), true).is_on());
  EXPECT_THROW(LeafRows(model_of("sap", 7), true), core::ConfigError);
}

TEST(LeafRows, FillTheirRowAndNoOther) {
  const LeafRows rows(model_of("vit", 7), false);
  Batch batch;
  rows.allocate(batch, 3, 2, false);
  EXPECT_EQ(batch.leaf_tokens.sizes(), (std::vector<int64_t>{3, 2, 7, 16}));
  EXPECT_EQ(batch.leaf_boxes.sizes(), (std::vector<int64_t>{3, 7, 4}));
  EXPECT_EQ(batch.size(), 3);
  batch.leaf_tokens.fill_(9);
  batch.leaf_boxes.fill_(9);
  const std::vector<float> image = disc();
  rows.place({image, {}, {}}, kHalf, {}, batch, 1);
  rows.pad(batch, 2);
  EXPECT_TRUE(batch.leaf_tokens[0].eq(9).all().item<bool>());
  EXPECT_TRUE(batch.leaf_boxes[0].eq(9).all().item<bool>());
  EXPECT_TRUE(batch.leaf_tokens[2].eq(0).all().item<bool>());
  EXPECT_TRUE(batch.leaf_boxes[2].eq(0).all().item<bool>());
  patching::AdaptiveOptions options{7, 4};
  options.range = kHalf;
  const patching::Leaves expected =
      patching::patchify(image, 2, std::vector<int64_t>{16, 16}, options);
  EXPECT_EQ(expected.count, 7);
  const float* tokens = batch.leaf_tokens[1].const_data_ptr<float>();
  const float* boxes = batch.leaf_boxes[1].const_data_ptr<float>();
  EXPECT_TRUE(std::equal(expected.tokens.begin(), expected.tokens.end(), tokens));
  EXPECT_TRUE(std::equal(expected.boxes.begin(), expected.boxes.end(), boxes));
}

TEST(LeafRows, DrawTheirThresholdsOnlyInTraining) {
  // A long weak border, which only low thresholds without a blur see, and a strong spot elsewhere.
  std::vector<float> image(2 * 256, -1.0f);
  for (size_t i = 0; i < image.size(); ++i) {
    const size_t y = i % 256 / 16, x = i % 16;
    if (y >= 2 && y < 4 && x >= 11 && x < 13) image[i] = 0.8f;
    if (y >= 8 && x >= 2 && x < 6) image[i] = -1.0f + 2.0f * 30 / 255;
  }
  const auto trees = [&](bool training) {
    const LeafRows rows(model_of("vit", 7), training);
    Batch batch;
    rows.allocate(batch, 40, 2, false);
    for (int64_t p = 0; p < 40; ++p) rows.place({image, {}, {}}, kHalf, {7, 1, p}, batch, p);
    return batch.leaf_boxes;
  };
  const at::Tensor fixed = trees(false), drawn = trees(true);
  EXPECT_TRUE(at::equal(fixed, fixed[0].expand_as(fixed)));
  EXPECT_FALSE(at::equal(drawn, drawn[0].expand_as(drawn)));
  EXPECT_TRUE(at::equal(drawn, trees(true)));
}

TEST(LeafRows, MakeMosaicsOfMasks) {
  const LeafRows rows(model_of("sap", 16), false);
  ASSERT_TRUE(rows.has_mosaics());
  Batch batch;
  batch.label = at::empty({2, 16, 16}, at::kLong);
  rows.allocate(batch, 2, 2, false);
  EXPECT_EQ(batch.label.sizes(), (std::vector<int64_t>{2, 16, 16}));  // 4 x 4 leaves of edge 4
  const std::vector<float> image = disc();
  std::vector<int64_t> mask(256);
  for (size_t i = 0; i < 256; ++i) mask[i] = static_cast<int64_t>(i);
  rows.place({image, mask, {}}, kHalf, {}, batch, 1);
  // 16 leaves of a 16 x 16 image are its patches, in Morton order.
  for (int64_t leaf = 0; leaf < 16; ++leaf) {
    const at::Tensor box = batch.leaf_boxes[1][leaf];
    const auto y = static_cast<int64_t>(box[0].item<float>());
    const auto x = static_cast<int64_t>(box[1].item<float>());
    EXPECT_EQ(batch.label[1][leaf / 4 * 4][leaf % 4 * 4].item<int64_t>(), y * 16 + x);
    EXPECT_EQ(batch.label[1][leaf / 4 * 4 + 1][leaf % 4 * 4 + 2].item<int64_t>(),
              (y + 1) * 16 + x + 2);
  }
}

TEST(LeafRows, MakeMosaicsOfValues) {
  config::Model model = model_of("sap", 64);
  const LeafRows rows(model, false);
  Batch batch;
  batch.label = at::empty({1, 3, 16, 16}, at::kFloat);
  rows.allocate(batch, 1, 2, false);
  EXPECT_EQ(batch.label.sizes(), (std::vector<int64_t>{1, 3, 32, 32}));
  const std::vector<float> image = disc(), values(3 * 256, 5.0f);
  rows.place({image, {}, values}, kHalf, {}, batch, 0);
  // 16 real leaves fill the first quarter of the rows, padding counts nowhere.
  EXPECT_TRUE(batch.label.slice(2, 0, 8).eq(5).all().item<bool>());
  EXPECT_TRUE(batch.label.slice(2, 8).isnan().all().item<bool>());
}

}  // namespace
}  // namespace vitrail::data
