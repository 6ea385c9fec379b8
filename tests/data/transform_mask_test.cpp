// Windows, ranges and masks through the transform, against plain tensor operations, NumPy and torch.

#include <algorithm>
#include <cmath>
#include <sstream>

#include <ATen/ops/abs.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/max.h>
#include <fmt/ranges.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "test_data.h"
#include "tests/io/python.h"
#include "vitrail/core/error.h"
#include "vitrail/data/gather.h"
#include "vitrail/data/resize.h"
#include "vitrail/data/transform.h"

namespace vitrail::data {
namespace {

using test::message_of;
using test::noise;
using test::segmenter;
using ::testing::HasSubstr;

/// Classes of a fixed pseudo-random pattern.
Mask mask_noise(std::vector<int64_t> sides, int32_t classes, uint64_t number = 0) {
  const Pixels pixels = noise(std::move(sides), 1, 1000 + number);
  Mask mask{pixels.sides, {}};
  for (const uint8_t value : pixels.values) mask.classes.push_back(value % classes);
  return mask;
}

Pixels as_floats(const Pixels& pixels, float low, float step) {
  Pixels result = pixels;
  result.values.clear();
  for (const uint8_t value : pixels.values)
    result.floats.push_back(low + step * static_cast<float>(value));
  result.full_scale = 1;
  return result;
}

std::pair<at::Tensor, at::Tensor> apply(const Transform& transform, const Decoded& file,
                                        const Window& window, const AugmentPlace& place,
                                        const config::Model& model) {
  std::vector<int64_t> shape{transform.channels()};
  shape.insert(shape.end(), model.image_size.begin(), model.image_size.end());
  at::Tensor image = at::empty(shape, at::kFloat), mask = at::empty(model.image_size, at::kLong);
  transform.apply(file, window, place, image.mutable_data_ptr<float>(),
                  mask.mutable_data_ptr<int64_t>());
  return {image, mask};
}

const std::vector<std::vector<std::string>> kStepLists = {
    {},
    {"flips"},
    {"rot90"},
    {"shift:3", "rot90"},
    {"flips", "rot90", "crop:2", "flip"},
    {"crop:1", "rot90", "shift:2", "flips", "rot90"}};

std::vector<Window> windows_of_image() {
  return {whole_window(0, {9, 9}),
          {0, {3, 2}, {9, 9}, {9, 9}, -1},
          {0, {0, 0}, {9, 9}, {7, 9}, -1},
          {0, {2, 5}, {9, 9}, {5, 4}, -1}};
}

TEST(TransformMask, ImageAndMaskEqualThePlainStepsBitForBit) {
  const config::Model model = segmenter({9, 9}, 3, 5);
  int64_t padded = 0, moved = 0;
  for (const char* normalize : {"unit", "minmax", "percentile", "none"})
    for (const bool is_float : {false, true})
      for (const auto& steps : kStepLists)
        for (size_t k = 0; k < windows_of_image().size(); ++k) {
          config::Source source;
          source.augment = steps;
          source.normalize.value = normalize;
          source.percentile = {5, 90};
          source.mean = {0.4, 0.5, 0.6};
          source.std = {0.2, 0.3, 0.25};
          const Transform transform(source, model, true, false);
          const std::vector<int64_t> sides =
              k == 0 ? std::vector<int64_t>{9, 9} : std::vector<int64_t>{13, 12};
          const Pixels bytes = noise(sides, 3);
          const Decoded file = transform.prepare(is_float ? as_floats(bytes, -50, 0.7f) : bytes,
                                                 mask_noise(sides, 5), "file");
          const Window window = windows_of_image()[k];
          const Transform still({}, model, true, false);
          for (int64_t index = 0; index < 12; ++index) {
            const AugmentPlace place{7, 3, index};
            const auto [image, mask] = apply(transform, file, window, place, model);
            const auto [plain_image, plain_mask] = transform.apply_plain(file, window, place);
            ASSERT_TRUE(at::equal(image, plain_image)) << normalize << " " << k << " " << index;
            ASSERT_TRUE(at::equal(mask, plain_mask)) << normalize << " " << k << " " << index;
            padded += mask.min().item<int64_t>() == -1;
            moved += !at::equal(mask, apply(still, file, window, place, model).second);
          }
        }
  EXPECT_GT(padded, 500);
  EXPECT_GT(moved, 1000) << "the steps must do something";
}

TEST(TransformMask, VolumesAndTheirSlicesEqualThePlainSteps) {
  const std::vector<int64_t> sides{6, 8, 8};
  config::Source source;
  source.augment = {"flips", "shift:1", "rot90"};
  source.normalize.value = "minmax";
  const config::Model volumes = segmenter({5, 8, 8}, 2, 4), slices = segmenter({6, 6}, 2, 4);
  for (int64_t index = 0; index < 30; ++index) {
    const AugmentPlace place{7, 0, index};
    const Transform whole(source, volumes, true, false);
    const Decoded file = whole.prepare(as_floats(noise(sides, 2), 3, 2), mask_noise(sides, 4), "");
    const Window window{0, {1, 0, 0}, {5, 8, 8}, {5, 8, 8}, -1};
    EXPECT_TRUE(at::equal(apply(whole, file, window, place, volumes).first,
                          whole.apply_plain(file, window, place).first));
    EXPECT_TRUE(at::equal(apply(whole, file, window, place, volumes).second,
                          whole.apply_plain(file, window, place).second));
    const Transform flat(source, slices, true, false);
    for (int64_t axis = 0; axis < 3; ++axis) {
      Window slice{0, {0, 1, 2}, {6, 6, 6}, {6, 6, 6}, axis};
      slice.origin[static_cast<size_t>(axis)] = index % 6;
      slice.sides[static_cast<size_t>(axis)] = slice.extent[static_cast<size_t>(axis)] = 1;
      EXPECT_TRUE(at::equal(apply(flat, file, slice, place, slices).first,
                            flat.apply_plain(file, slice, place).first));
      EXPECT_TRUE(at::equal(apply(flat, file, slice, place, slices).second,
                            flat.apply_plain(file, slice, place).second));
    }
  }
}

TEST(TransformMask, FollowsAResizeByTheNearestPixel) {
  const config::Model model = segmenter({8, 8}, 1, 7);
  double worst = 0;
  for (const auto& steps : kStepLists)
    for (int64_t index = 0; index < 10; ++index) {
      config::Source source;
      source.augment = steps;
      source.resize = {11, 11};
      const Transform transform(source, model, true, false);
      const std::vector<int64_t> sides{30, 9 + index};
      const Decoded file = transform.prepare(noise(sides, 1), mask_noise(sides, 7), "");
      const Window window{0, {4, 0}, {28, 9 + index}, {26, 9 + index}, -1};
      const auto [image, mask] = apply(transform, file, window, {7, 3, index}, model);
      const auto [plain_image, plain_mask] = transform.apply_plain(file, window, {7, 3, index});
      EXPECT_TRUE(at::equal(mask, plain_mask));
      worst = std::max(worst, at::max(at::abs(image.sub(plain_image))).item<double>());
    }
  // (v / 255 - 0.5) / 0.5: a rounding of the resize (2e-7) grows twice.
  std::printf("worst difference %g (allowed 1e-6)\n", worst);
  EXPECT_LE(worst, 1e-6);
}

TEST(TransformMask, AMaskThatIsTheImageStaysTheImage) {
  const config::Model model = segmenter({9, 9}, 1, 256);
  for (const auto& steps : kStepLists)
    for (int64_t index = 0; index < 20; ++index) {
      config::Source source;
      source.augment = steps;
      source.normalize.value = "none";
      const Transform transform(source, model, true, false);
      Pixels pixels = noise({12, 12}, 1);
      for (uint8_t& value : pixels.values) value = std::max<uint8_t>(value, 1);
      Mask twin{pixels.sides, {pixels.values.begin(), pixels.values.end()}};
      const Decoded file = transform.prepare(pixels, twin, "");
      const auto [image, mask] =
          apply(transform, file, {0, {1, 2}, {9, 9}, {9, 9}, -1}, {1, 2, index}, model);
      const float* value = image.const_data_ptr<float>();
      const int64_t* label = mask.const_data_ptr<int64_t>();
      for (int64_t i = 0; i < 81; ++i) EXPECT_EQ(label[i], value[i] == 0 ? -1 : value[i]);
    }
}

TEST(Augment, FlipsAndRot90ReachAllEightQuarterTurnsEquallyOften) {
  const config::Model model = segmenter({3, 3}, 1, 9);
  config::Source source;
  source.augment = {"flips", "rot90"};
  source.normalize.value = "none";
  const Transform transform(source, model, true, false);
  Pixels pixels = noise({3, 3}, 1);
  for (size_t i = 0; i < 9; ++i) pixels.values[i] = static_cast<uint8_t>(i);
  const Decoded file = transform.prepare(pixels, {}, "");
  std::map<std::string, int64_t> seen;
  for (int64_t index = 0; index < 8000; ++index) {
    const at::Tensor image =
        apply(transform, file, whole_window(0, {3, 3}), {5, 0, index}, model).first;
    const float* value = image.const_data_ptr<float>();
    ++seen[fmt::format("{}", fmt::join(value, value + 9, " "))];
  }
  EXPECT_EQ(seen.size(), 8u);
  for (const auto& [image, times] : seen)  // Binomial(8000, 1/8): deviation 30; 5 of them
    EXPECT_NEAR(static_cast<double>(times), 1000, 150) << image;
}

TEST(Augment, Rot90NeedsASquare) {
  config::Source source;
  source.augment = {"rot90"};
  EXPECT_THAT(message_of<core::ConfigError>([&] {
                Transform(source, segmenter({4, 6}, 1, 2), true, false);
              }),
              HasSubstr("'rot90' needs the last two sides to be equal but got 4 and 6"));
  EXPECT_NO_THROW(Transform(source, segmenter({4, 6, 6}, 1, 2), true, false));
  source.augment = {"crop:0", "rot90"};
  source.resize = {8, 9};
  EXPECT_NO_THROW(Transform(source, segmenter({6, 6}, 1, 2), true, false));
}

// 1e-6 relative: NumPy interpolates in double between float32 neighbours, we round the result once.
TEST(ValueRange, EqualsNumpysPercentilesAndExtremesPerChannel) {
  const test::TemporaryFolder folder;
  const Pixels pixels = as_floats(noise({7, 11, 5}, 2), -30, 0.37f);
  test::write_bytes(
      folder.path("values.bin"),
      std::string(reinterpret_cast<const char*>(pixels.floats.data()), 4 * pixels.floats.size()));
  std::istringstream said(vitrail::testing::run_python(folder.path(), R"(
import numpy as np
x = np.fromfile("values.bin", "<f4").reshape(-1, 2)
for low, high in ((0, 100), (1, 99), (12.5, 50), (0.1, 99.99)):
    for c in range(2):
        print(*np.percentile(x[:, c].astype(np.float64), [low, high]), x[:, c].min(), x[:, c].max())
)"));
  double worst = 0;
  for (const std::vector<double>& percent :
       std::vector<std::vector<double>>{{0, 100}, {1, 99}, {12.5, 50}, {0.1, 99.99}}) {
    config::Source source;
    source.percentile = percent;
    source.normalize.value = "percentile";
    const ValueRange range = RangeRule(source).of(pixels);
    source.normalize.value = "minmax";
    const ValueRange extremes = RangeRule(source).of(pixels);
    for (size_t c = 0; c < 2; ++c) {
      double low = 0, high = 0;
      float least = 0, largest = 0;
      said >> low >> high >> least >> largest;
      ASSERT_FALSE(said.fail());
      worst = std::max({worst, std::abs(range.low[c] - low) / 30,
                        std::abs(range.low[c] + range.span[c] - high) / 64});
      EXPECT_EQ(extremes.low[c], least);
      EXPECT_EQ(extremes.span[c], largest - least);
    }
    EXPECT_TRUE(range.clips);
    EXPECT_EQ(range.apply(1e9f, 0), 1.0f);
    EXPECT_EQ(range.apply(-1e9f, 0), 0.0f);
  }
  std::printf("worst relative difference of a percentile %g (allowed 1e-6)\n", worst);
  EXPECT_LE(worst, 1e-6);
}

TEST(ValueRange, IsOfTheWholeFileWhateverTheWindow) {
  config::Source source;
  source.normalize.value = "minmax";
  source.mean = {0};
  source.std = {1};
  const config::Model model = segmenter({1, 2}, 1, 2);
  const Transform transform(source, model, true, false);
  Pixels pixels;
  pixels.sides = {1, 4};
  pixels.floats = {-10, 30, 10, 0};
  pixels.full_scale = 1;
  const Decoded file = transform.prepare(pixels, {}, "");
  const at::Tensor image = apply(transform, file, {0, {0, 2}, {1, 2}, {1, 2}, -1}, {}, model).first;
  EXPECT_EQ(image.const_data_ptr<float>()[0], 0.5f);
  EXPECT_EQ(image.const_data_ptr<float>()[1], 0.25f);
  pixels.floats = {5, 5, 5, 5};  // a flat file becomes 0, not NaN
  EXPECT_EQ(apply(transform, transform.prepare(pixels, {}, ""), {0, {0, 2}, {1, 2}, {1, 2}, -1}, {},
                  model)
                .first.abs()
                .max()
                .item<float>(),
            0.0f);
  source.normalize.value = "percentile";
  for (const std::vector<double>& bad :
       std::vector<std::vector<double>>{{}, {1}, {5, 5}, {-1, 50}, {50, 101}}) {
    source.percentile = bad;
    EXPECT_THAT(message_of<core::ConfigError>([&] { RangeRule{source}; }), HasSubstr("percentile"));
  }
}

TEST(ValueRange, NoneLeavesValuesAsTheyAreUnlessMeanAndStdAreGiven) {
  config::Source source;
  source.normalize.value = "none";
  const config::Model model = segmenter({1, 3}, 1, 2);
  Pixels pixels;
  pixels.sides = {1, 3};
  pixels.values = {0, 7, 255};
  const auto values = [&] {
    const Transform transform(source, model, true, false);
    const at::Tensor image =
        apply(transform, transform.prepare(pixels, {}, ""), whole_window(0, {1, 3}), {}, model)
            .first;
    const float* value = image.const_data_ptr<float>();
    return std::vector<float>(value, value + 3);
  };
  EXPECT_THAT(values(), ::testing::ElementsAre(0, 7, 255));
  source.mean = {5};
  source.std = {2};
  EXPECT_THAT(values(), ::testing::ElementsAre(-2.5f, 1, 125));
}

TEST(Resize, OfAMaskEqualsTorchsNearestExact) {
  const test::TemporaryFolder folder;
  std::string script = "import torch\nimport numpy as np\n";
  const std::vector<std::vector<int64_t>> from = {{7, 9}, {32, 5}, {1, 1}, {13, 64}};
  const std::vector<std::vector<int64_t>> to = {{7, 9}, {3, 20}, {64, 4}, {1, 1}, {10, 33}};
  for (const auto& in : from)
    for (const auto& out : to)
      script += fmt::format(
          "x = torch.arange({}.).view(1, 1, {}, {})\n"
          "print(*torch.nn.functional.interpolate(x, ({}, {}), mode='nearest-exact')"
          ".long().flatten().tolist())\n",
          in[0] * in[1], in[0], in[1], out[0], out[1]);
  std::istringstream said(vitrail::testing::run_python(folder.path(), script));
  for (const auto& in : from)
    for (const auto& out : to) {
      Mask mask{in, {}};
      for (int64_t i = 0; i < count(in); ++i) mask.classes.push_back(static_cast<int32_t>(i));
      std::string line;
      std::getline(said, line);
      EXPECT_EQ(fmt::format("{}", fmt::join(resize(mask, out).classes, " ")), line)
          << describe(in) << " to " << describe(out);
    }
}

}  // namespace
}  // namespace vitrail::data
