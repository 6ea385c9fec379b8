#include "vitrail/data/transform.h"

#include <map>

#include <ATen/ops/_upsample_bilinear2d_aa.h>
#include <ATen/ops/abs.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/max.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "test_data.h"
#include "vitrail/core/error.h"
#include "vitrail/data/resize.h"

namespace vitrail::data {
namespace {

using test::model_of;
using test::noise;

at::Tensor apply(const Transform& transform, const Pixels& pixels, const AugmentPlace& place,
                 const config::Model& model) {
  std::vector<int64_t> shape{model.in_channels};
  shape.insert(shape.end(), model.image_size.begin(), model.image_size.end());
  at::Tensor image = at::empty(shape, at::kFloat);
  transform.apply(pixels, place, "file", image.mutable_data_ptr<float>());
  return image;
}

config::Source with_steps(std::vector<std::string> steps) {
  config::Source source;
  source.augment = std::move(steps);
  source.mean = {0.485, 0.456, 0.406};
  source.std = {0.229, 0.224, 0.225};
  return source;
}

const std::vector<std::vector<std::string>> kStepLists = {
    {},
    {"flip"},
    {"crop:4"},
    {"shift:3"},
    {"shift:40"},
    {"crop:0"},
    {"flip", "crop:2"},
    {"shift:2", "crop:3"},
    {"crop:1", "shift:5", "flip", "crop:2", "flip"}};

// Both versions compute (v / 255 - mean) / std in the same order in float, so they agree bit for
// bit.
TEST(Transform, OnePassEqualsThePlainStepsBitForBit) {
  const config::Model model = model_of({13, 10}, 3, 10);
  int differing_from_start = 0;
  for (const auto& steps : kStepLists)
    for (int64_t index = 0; index < 40; ++index) {
      const Transform transform(with_steps(steps), model, /*training=*/true, /*raw=*/false);
      const AugmentPlace place{7, 3, index};
      const Pixels pixels = noise({13, 10}, index % 2 == 0 ? 3 : 1);
      const at::Tensor fast = apply(transform, pixels, place, model);
      ASSERT_TRUE(at::equal(fast, transform.apply_plain(pixels, place, "file")))
          << steps.size() << " " << index;
      const Transform still(with_steps({}), model, true, false);
      differing_from_start += !at::equal(fast, apply(still, pixels, place, model));
    }
  EXPECT_GT(differing_from_start, 200) << "the steps must do something";
}

TEST(Transform, OnePassEqualsThePlainStepsInThreeDimensions) {
  const config::Model model = model_of({5, 7, 6}, 1, 0);
  config::Source source = with_steps({"crop:1", "flip", "shift:2"});
  source.mean = {0.25};
  source.std = {2};
  const Transform transform(source, model, true, false);
  for (int64_t index = 0; index < 40; ++index) {
    const Pixels pixels = noise({5, 7, 6}, 1);
    const AugmentPlace place{7, 0, index};
    ASSERT_TRUE(at::equal(apply(transform, pixels, place, model),
                          transform.apply_plain(pixels, place, "file")));
  }
}

// 2e-6: values are (v / 255 - 0.45) / 0.225, so a rounding of the resize (below 2e-7) grows 4.5
// times.
TEST(Transform, ResizeThenAugmentEqualsThePlainSteps) {
  const config::Model model = model_of({8, 10}, 3, 10);
  double worst = 0;
  for (const auto& steps : kStepLists)
    for (int64_t index = 0; index < 10; ++index) {
      config::Source source = with_steps(steps);
      source.resize = {11, 12};
      const Transform transform(source, model, true, false);
      const Pixels pixels = noise({30, 9 + index}, 3);
      const at::Tensor difference = apply(transform, pixels, {7, 3, index}, model) -=
          transform.apply_plain(pixels, {7, 3, index}, "file");
      worst = std::max(worst, at::max(at::abs(difference)).item<double>());
    }
  std::cout << "worst difference " << worst << " (allowed 2e-6)\n";
  EXPECT_LE(worst, 2e-6);
}

// 1e-6 on values in [0, 1]: both sum a few float products; ATen may use another order of summation.
TEST(Resize, EqualsAtenAntialiasedBilinear) {
  double worst = 0;
  const std::vector<std::vector<int64_t>> from = {{32, 32},   {100, 75}, {7, 9},
                                                  {375, 500}, {64, 5},   {1, 1}};
  const std::vector<std::vector<int64_t>> to = {{32, 32}, {8, 8}, {224, 224}, {33, 17}, {1, 64}};
  for (const auto& in : from)
    for (const auto& out : to)
      for (const int64_t channels : {1, 3}) {
        const Pixels pixels = noise(in, channels);
        const Pixels mine = resize(pixels, out);
        const at::Tensor expected =
            at::_upsample_bilinear2d_aa(to_tensor(pixels).unsqueeze(0), out, false)
                .squeeze(0)
                .contiguous();
        const float* value = expected.const_data_ptr<float>();
        for (int64_t c = 0; c < channels; ++c)
          for (int64_t i = 0; i < count(out); ++i)
            worst = std::max<double>(
                worst,
                std::abs(mine.floats[static_cast<size_t>(i * channels + c)] / 255.0f - *value++));
      }
  std::cout << "worst difference " << worst << " (allowed 1e-6)\n";
  EXPECT_LE(worst, 1e-6);
}

TEST(Resize, OfAVolumeIsTheRuleAlongEveryAxis) {
  // A volume that is constant along the first axis resizes like its slice; 1e-4 of 255: float sums
  // of a few products.
  const Pixels slice = noise({9, 6}, 1);
  Pixels volume = slice;
  volume.sides = {4, 9, 6};
  for (int copy = 0; copy < 3; ++copy)
    volume.values.insert(volume.values.end(), slice.values.begin(), slice.values.end());
  const Pixels small = resize(volume, {3, 5, 4});
  const Pixels expected = resize(slice, {5, 4});
  ASSERT_EQ(small.floats.size(), 3 * expected.floats.size());
  for (size_t i = 0; i < small.floats.size(); ++i)
    EXPECT_NEAR(small.floats[i], expected.floats[i % expected.floats.size()], 1e-4);
}

TEST(Augment, FlipsHalfOfTheSamples) {
  const AugmentStep flip{AugmentKind::flip};
  int64_t flipped = 0;
  for (int64_t index = 0; index < 10'000; ++index)
    flipped += draw_step(flip, 0, {5, 1, index}, {8, 8}, {8, 8})[0];
  // Binomial(10000, 1/2) has standard deviation 50; 4 of them.
  EXPECT_NEAR(static_cast<double>(flipped), 5000.0, 200.0);
}

TEST(Augment, CropAndShiftReachEveryOffsetEquallyOften) {
  for (const AugmentStep& step :
       {AugmentStep{AugmentKind::crop, {2}}, AugmentStep{AugmentKind::shift, {2}}}) {
    std::map<std::vector<int64_t>, int64_t> seen;
    for (int64_t index = 0; index < 25'000; ++index)
      ++seen[draw_step(step, 0, {5, 1, index}, {8, 8}, {8, 8})];
    EXPECT_EQ(seen.size(), 25u);
    for (const auto& [offset, times] : seen) {
      EXPECT_TRUE(offset[0] >= -2 && offset[0] <= 2 && offset[1] >= -2 && offset[1] <= 2);
      // Binomial(25000, 1/25): mean 1000, standard deviation 31; 5 of them.
      EXPECT_NEAR(static_cast<double>(times), 1000.0, 155.0);
    }
  }
}

TEST(Augment, DrawsDependOnSeedEpochSampleAndPositionOnly) {
  const AugmentStep step{AugmentKind::shift, {1000}};
  const auto draw = [&](uint64_t seed, int64_t epoch, int64_t index, uint16_t layer) {
    return draw_step(step, layer, {seed, epoch, index}, {8, 8}, {8, 8});
  };
  EXPECT_EQ(draw(1, 2, 3, 0), draw(1, 2, 3, 0));
  EXPECT_NE(draw(1, 2, 3, 0), draw(2, 2, 3, 0));
  EXPECT_NE(draw(1, 2, 3, 0), draw(1, 3, 3, 0));
  EXPECT_NE(draw(1, 2, 3, 0), draw(1, 2, 4, 0));
  EXPECT_NE(draw(1, 2, 3, 0), draw(1, 2, 3, 1));
}

TEST(Augment, IsLeftOutOfEvaluationAndOfRawSamples) {
  const config::Model model = model_of({6, 6}, 3, 10);
  const Pixels pixels = noise({6, 6}, 3);
  const Transform evaluation(with_steps({"shift:6"}), model, /*training=*/false, false);
  const Transform raw(with_steps({"shift:6"}), model, true, /*raw=*/true);
  const Transform plain(with_steps({}), model, true, false);
  for (int64_t index = 0; index < 10; ++index) {
    EXPECT_TRUE(at::equal(apply(evaluation, pixels, {1, 0, index}, model),
                          apply(plain, pixels, {}, model)));
    EXPECT_TRUE(at::equal(apply(raw, pixels, {1, 0, index}, model), to_tensor(pixels)));
  }
}

TEST(Augment, ShiftedInPixelsAreZeroBeforeNormalisation) {
  const config::Model model = model_of({4, 4}, 1, 10);
  config::Source source = with_steps({"shift:3"});
  source.mean = {0.5};
  source.std = {0.25};
  const Transform transform(source, model, true, false);
  Pixels white = noise({4, 4}, 1);
  std::fill(white.values.begin(), white.values.end(), 255);
  bool has_moved = false;
  for (int64_t index = 0; index < 20; ++index) {
    const at::Tensor image = apply(transform, white, {1, 0, index}, model).contiguous();
    for (int64_t i = 0; i < 16; ++i) {
      const float value = image.const_data_ptr<float>()[i];
      EXPECT_TRUE(value == 2.0f || value == -2.0f) << value;
      has_moved |= value == -2.0f;
    }
  }
  EXPECT_TRUE(has_moved);
}

TEST(Pixels, GreyAndRgbConvertIntoEachOtherAsPillowDoes) {
  Pixels rgb;
  rgb.sides = {1, 4};
  rgb.channels = 3;
  rgb.values = {255, 0, 0, 0, 255, 0, 0, 0, 255, 10, 200, 77};
  // PIL.Image.convert("L") of these four pixels (Pillow 11).
  EXPECT_THAT(to_channels(rgb, 1, "file").values, testing::ElementsAre(76, 150, 29, 129));
  Pixels grey = noise({2, 2}, 1);
  const Pixels back = to_channels(to_channels(grey, 3, "file"), 1, "file");
  EXPECT_EQ(back.values, grey.values);
}

TEST(Pixels, OtherChannelCountsNameTheFile) {
  const Pixels four = noise({2, 2}, 4);
  try {
    to_channels(four, 3, "folder/x.png");
    FAIL();
  } catch (const core::DataError& error) {
    EXPECT_THAT(error.what(), testing::AllOf(testing::HasSubstr("folder/x.png"),
                                             testing::HasSubstr("but the file has 4")));
  }
}

void expect_config_error(const config::Source& source, const config::Model& model,
                         const std::string& text) {
  try {
    const Transform transform(source, model, true, false);
    FAIL() << "expected: " << text;
  } catch (const core::ConfigError& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr(text));
  }
}

TEST(Transform, RefusesWhatCannotBeMeant) {
  const config::Model model = model_of({8, 8}, 3, 10);
  for (const char* step : {"flipp", "crop", "crop:", "crop:-1", "crop:x", "shift:2.5",
                           "shift:99999999", "flip:1", ""}) {
    SCOPED_TRACE(step);
    expect_config_error(with_steps({step}), model, "augment step");
  }
  config::Source source;
  source.mean = {0.1, 0.2};
  expect_config_error(source, model, "mean must have 1 or 3");
  source = {};
  source.std = {0.0};
  expect_config_error(source, model, "std must be above zero");
  source = {};
  source.resize = {8};
  expect_config_error(source, model, "resize must have 2 sides");
  source.resize = {7, 9};
  expect_config_error(source, model, "resize must be at least");
}

}  // namespace
}  // namespace vitrail::data
