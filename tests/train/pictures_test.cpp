#include "vitrail/train/pictures.h"

#include <span>

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include "vitrail/io/image.h"
#include "vitrail/ops/patch.h"
#include "vitrail/patching/batch.h"

namespace vitrail::train {
namespace {

io::Image decoded(const std::string& png) {
  return io::decode_image(std::as_bytes(std::span(png)), "picture");
}

config::Model masked_model(bool norm_pix_loss) {
  config::Model model;
  model.kind.value = "mae";
  model.patch_size = 4;
  model.in_channels = 1;
  model.norm_pix_loss = norm_pix_loss;
  return model;
}

TEST(Pictures, APerfectPredictionGivesTheOriginalBack) {
  const at::Tensor image = at::rand({1, 8, 12}) * 2 - 1;
  const at::Tensor patches = ops::patchify(image.unsqueeze(0), 4, ops::PatchOrder::channel_last);
  const at::Tensor mask = at::arange(6, at::kFloat).ge(3).to(at::kFloat);
  for (const bool normalised : {false, true}) {
    at::Tensor prediction = patches;
    if (normalised)
      prediction = (patches - patches.mean(-1, true)) /
                   (patches.var(-1, /*unbiased=*/true, true) + 1e-6).sqrt();
    const MaskedPictures pictures =
        masked_pictures(image, prediction[0], mask, masked_model(normalised), {});
    // Mean 0.5 and std 0.5: a few roundings of values below 1.
    EXPECT_LT((pictures.original - (image * 0.5 + 0.5)).abs().max().item<double>(), 1e-6);
    EXPECT_LT((pictures.reconstruction - pictures.original).abs().max().item<double>(), 1e-5);
    EXPECT_LT((pictures.pasted - pictures.original).abs().max().item<double>(), 1e-5);
    // The lower row of patches is hidden, the upper one is as it was.
    EXPECT_TRUE(pictures.masked.slice(1, 4).eq(0.5).all().item<bool>());
    EXPECT_TRUE(pictures.masked.slice(1, 0, 4).equal(pictures.original.slice(1, 0, 4)));
  }
}

TEST(Pictures, OnlyHiddenPatchesOfThePastedPictureAreGuesses) {
  const at::Tensor image = at::zeros({1, 8, 8});
  const at::Tensor mask = at::arange(4, at::kFloat).eq(1).to(at::kFloat);
  const MaskedPictures pictures =
      masked_pictures(image, at::ones({4, 16}), mask, masked_model(false), {});
  EXPECT_TRUE(pictures.reconstruction.eq(1).all().item<bool>());
  EXPECT_EQ(pictures.pasted.eq(1).sum().item<int64_t>(), 16);
  EXPECT_TRUE(pictures.pasted[0].slice(0, 0, 4).slice(1, 4).eq(1).all().item<bool>());
}

/// Three leaves of edge 4 and four of edge 2 on 8x8 pixels, and padding.
at::Tensor seven_boxes() {
  const std::vector<float> corners{0, 0, 4, 4, 0, 4, 4, 8, 4, 0, 8, 4, 4, 4, 6, 6,
                                   4, 6, 6, 8, 6, 4, 8, 6, 6, 6, 8, 8, 0, 0, 0, 0};
  return at::tensor(corners, at::kFloat).view({8, 4});
}

TEST(Pictures, PredictionsOfLeavesArePastedToTheirBoxes) {
  config::Model model = masked_model(false);
  model.image_size = {8, 8};
  model.in_channels = 2;
  model.adaptive.fixed_length = 8;
  at::Tensor image = at::rand({2, 8, 8}) * 2 - 1;
  image.slice(1, 4).slice(2, 4).fill_(0.25);  // constant where leaves are enlarged
  Leaves leaves{{}, seven_boxes()};
  leaves.tokens = patching::serialise(image.unsqueeze(0), leaves.boxes.unsqueeze(0), 4,
                                      patching::Resample::area)
                      .squeeze(0);
  for (const bool normalised : {false, true}) {
    model.norm_pix_loss = normalised;
    at::Tensor prediction = leaves.tokens.permute({1, 2, 0}).flatten(1);  // [L, S]
    if (normalised)
      prediction = (prediction - prediction.mean(-1, true)) /
                   (prediction.var(-1, /*unbiased=*/true, true) + 1e-6).sqrt();
    const at::Tensor mask = at::tensor({0., 1., 0., 0., 1., 0., 0., 1.}, at::kFloat);
    const MaskedPictures pictures = masked_pictures(image, prediction, mask, model, {}, leaves);
    // A few roundings of values below 1.
    EXPECT_LT((pictures.reconstruction - pictures.original).abs().max().item<double>(), 1e-5);
    EXPECT_LT((pictures.pasted - pictures.original).abs().max().item<double>(), 1e-5);
    // Hidden leaves are grey, borders darker, the rest as it was.
    EXPECT_TRUE(pictures.masked.slice(1, 1, 4).slice(2, 5, 8).eq(0.5).all().item<bool>());
    EXPECT_TRUE(pictures.masked.select(2, 4).eq(0.25).all().item<bool>());
    EXPECT_TRUE(pictures.masked.slice(1, 0, 4).slice(2, 0, 4).equal(
        pictures.original.slice(1, 0, 4).slice(2, 0, 4)));
    const MaskedPictures wrong = masked_pictures(image, prediction + 1, mask, model, {}, leaves);
    EXPECT_EQ(wrong.pasted[0].ne(wrong.original[0]).sum().item<int64_t>(), 16 + 4);
  }
}

TEST(Pictures, LeavesOfAChannelsOwnTreeArePastedToThatChannel) {
  config::Model model = masked_model(false);
  model.image_size = {8, 8};
  model.in_channels = 2;
  model.adaptive.fixed_length = 8;
  model.adaptive.trees.value = "per_channel";
  const at::Tensor image = at::zeros({2, 8, 8});
  const Leaves leaves{at::zeros({1, 16, 16}), at::cat({seven_boxes(), seven_boxes()})};
  const at::Tensor mask = at::arange(16, at::kFloat).eq(9).to(at::kFloat);  // of the second channel
  const MaskedPictures pictures =
      masked_pictures(image, at::ones({16, 16}), mask, model, {}, leaves);
  EXPECT_TRUE(pictures.pasted[0].eq(0.5).all().item<bool>());
  EXPECT_TRUE(pictures.pasted[1].slice(0, 0, 4).slice(1, 4).eq(1).all().item<bool>());
  EXPECT_EQ(pictures.pasted[1].eq(1).sum().item<int64_t>(), 16);
}

TEST(Pictures, MasksShowTheLeavesOnTheImage) {
  const at::Tensor image = at::zeros({1, 8, 8}), truth = at::zeros({8, 8}, at::kLong);
  const MaskPictures plain = mask_pictures(image, truth, truth, {});
  const MaskPictures pictures =
      mask_pictures(image, truth, truth, {}, {at::zeros({1, 8, 16}), seven_boxes()});
  EXPECT_TRUE(pictures.truth.equal(plain.truth));
  EXPECT_TRUE(pictures.errors.equal(plain.errors));
  // Two lines of 8 pixels that cross, and two of 4.
  EXPECT_EQ(pictures.image.ne(plain.image).any(0).sum().item<int64_t>(), 8 + 8 - 1 + 4 + 4 - 3);
}

TEST(Pictures, ValuesWithoutARangeAreShownBetweenTheirExtremes) {
  config::Source source;
  source.normalize.value = "none";
  const at::Tensor image = at::arange(16, at::kFloat).mul(100).view({1, 4, 4});
  EXPECT_TRUE(denormalised(image, source).equal(image));
  const MaskedPictures pictures =
      masked_pictures(image, at::full({1, 16}, 750.0), at::ones({1}), masked_model(false), source);
  EXPECT_EQ(pictures.original.min().item<float>(), 0.0f);
  EXPECT_EQ(pictures.original.max().item<float>(), 1.0f);
  EXPECT_NEAR(pictures.reconstruction.max().item<float>(), 0.5, 1e-6);  // on the original's scale
  config::Source shifted = source;
  shifted.mean = {10};
  shifted.std = {4};
  EXPECT_TRUE(denormalised(image, shifted).equal(image * 4 + 10));
}

TEST(Pictures, MasksColourClassesAndMarkWhatIsWrong) {
  const at::Tensor image = at::zeros({1, 2, 4});  // mid-grey
  at::Tensor truth = at::zeros({2, 4}, at::kLong), predicted = truth.clone();
  truth[0].fill_(1);
  truth[1][3].fill_(-1);     // without a label
  predicted[0][0].fill_(1);  // right
  predicted[0][1].fill_(2);  // another class
  predicted[1][3].fill_(2);  // cannot be wrong
  const MaskPictures pictures = mask_pictures(image, truth, predicted, {});
  ASSERT_EQ(pictures.all().size(), 4u);
  const auto differs = [&](const at::Tensor& picture) {
    return picture.ne(pictures.image).any(0).to(at::kLong);
  };
  EXPECT_TRUE(pictures.image.eq(0.5).all().item<bool>());
  EXPECT_TRUE(differs(pictures.truth).equal(truth.clamp_min(0)));
  EXPECT_EQ(differs(pictures.predicted).sum().item<int64_t>(), 3);
  EXPECT_EQ(differs(pictures.errors).sum().item<int64_t>(), 3);  // three of row 0
  EXPECT_EQ(differs(pictures.errors)[1].sum().item<int64_t>(), 0);
  EXPECT_FALSE(pictures.predicted.select(2, 0).equal(pictures.predicted.select(2, 1)));
}

TEST(Pictures, VolumesAndManyChannelsHavePictures) {
  const at::Tensor volume = at::rand({2, 6, 5, 7});
  const auto slices = depth_slices(volume, 3);
  ASSERT_EQ(slices.size(), 3u);
  for (size_t i = 0; i < 3; ++i)
    EXPECT_TRUE(slices[i].equal(volume.select(1, static_cast<int64_t>(2 * i + 1))));
  const io::Image middle = decoded(png_bytes(volume));
  EXPECT_EQ(middle.height, 5);
  EXPECT_EQ(middle.width, 7);
  EXPECT_EQ(middle.channels, 1);
  EXPECT_EQ(decoded(png_bytes(at::rand({3, 5, 7}))).channels, 3);
  const at::Tensor truth = at::ones({6, 5, 7}, at::kLong);
  EXPECT_EQ(mask_pictures(volume, truth, truth, {}).errors.sizes(), at::IntArrayRef({3, 6, 5, 7}));
}

}  // namespace
}  // namespace vitrail::train
