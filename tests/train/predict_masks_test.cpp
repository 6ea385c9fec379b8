#include "vitrail/train/predict_masks.h"

#include <cmath>
#include <filesystem>
#include <functional>

#include <ATen/ops/rand.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/data/test_data.h"
#include "tests/train/pixel_model.h"
#include "tests/train/tiny_run.h"
#include "vitrail/core/error.h"
#include "vitrail/io/image.h"
#include "vitrail/io/nifti.h"
#include "vitrail/train/sliding_window.h"

namespace vitrail::train {
namespace {

namespace fs = std::filesystem;
using data::test::write_grey;
using testing::ElementsAre;
using testing::HasSubstr;

/// Bytes well inside one of the three classes, a function of the place.
uint8_t pattern(int64_t z, int64_t y, int64_t x) {
  constexpr uint8_t kValues[] = {20, 128, 240};
  return kValues[static_cast<size_t>((z * 5 + y * 3 + x * 7 + y * x) % 11 % 3)];
}

std::vector<uint8_t> slice(int64_t z, int64_t height, int64_t width) {
  std::vector<uint8_t> values;
  for (int64_t y = 0; y < height; ++y)
    for (int64_t x = 0; x < width; ++x) values.push_back(pattern(z, y, x));
  return values;
}

/// A recipe around PixelModel; tiles keep the scale of the files.
config::Recipe recipe_of(std::vector<int64_t> size, const std::string& reader) {
  config::Recipe recipe;
  recipe.model.kind.value = "sap";
  recipe.model.image_size = size;
  recipe.model.in_channels = 1;
  recipe.model.num_classes = 3;
  config::Source source;
  source.reader.value = reader;
  source.tile = std::move(size);
  recipe.data.sources = {source};
  return recipe;
}

int64_t predict(PixelModel& model, const config::Recipe& recipe, const std::string& input,
                const std::string& output) {
  return predict_masks(model, recipe, recipe.data.sources.front(), *comm::self_communicator(),
                       input, output, at::kCPU);
}

std::vector<std::string> names_in(const std::string& folder) {
  std::vector<std::string> names;
  for (const auto& entry : fs::recursive_directory_iterator(folder))
    if (entry.is_regular_file()) names.push_back(fs::relative(entry.path(), folder).string());
  std::sort(names.begin(), names.end());
  return names;
}

/// Pixels of slice z that are not what PixelModel says of `pattern`, `values` standing for the classes.
int64_t wrong_pixels(const std::string& png, int64_t z, int64_t height, int64_t width,
                     const std::vector<int>& values = {0, 1, 2}) {
  const io::Image mask = io::read_image(png);
  EXPECT_EQ(mask.height, height);
  EXPECT_EQ(mask.width, width);
  EXPECT_EQ(mask.channels, 1);
  int64_t wrong = 0;
  for (int64_t y = 0; y < height; ++y)
    for (int64_t x = 0; x < width; ++x)
      wrong += mask.pixels[static_cast<size_t>(y * width + x)] !=
               values[static_cast<size_t>(class_of(pattern(z, y, x)))];
  return wrong;
}

TEST(PredictMasks, ImagesGetMasksOfTheirOwnSidesAlsoBelowAWindow) {
  const Workplace place;
  fs::create_directories(place.file("in"));
  write_grey(place.file("in/b.png"), {29, 17}, slice(0, 29, 17));
  write_grey(place.file("in/a.png"), {5, 6}, slice(1, 5, 6));
  PixelModel model;
  EXPECT_EQ(predict(model, recipe_of({8, 8}, "images"), place.file("in"), place.file("out")), 2);
  EXPECT_THAT(names_in(place.file("out")), ElementsAre("00000-a.png", "00001-b.png"));
  EXPECT_EQ(wrong_pixels(place.file("out/00000-a.png"), 1, 5, 6), 0);
  EXPECT_EQ(wrong_pixels(place.file("out/00001-b.png"), 0, 29, 17), 0);
  // Strides of half a window: 7 x 4 places, and one of the small image.
  EXPECT_EQ(model.windows, 7 * 4 + 1);
  // What is outside the small image is black, as in training, not the mean.
  EXPECT_NEAR(model.least, -1.0, 1e-6);
}

TEST(PredictMasks, LabelValuesStandForClassesWhereTheyFitAByte) {
  const Workplace place;
  write_grey(place.file("a.png"), {9, 9}, slice(0, 9, 9));
  PixelModel model;
  config::Recipe recipe = recipe_of({8, 8}, "images");
  recipe.data.sources[0].label_values = {1, 255, 0};
  predict(model, recipe, place.file("a.png"), place.file("named"));
  EXPECT_EQ(wrong_pixels(place.file("named/00000-a.png"), 0, 9, 9, {1, 255, 0}), 0);
  recipe.data.sources[0].label_values = {0, 600, -1};
  predict(model, recipe, place.file("a.png"), place.file("plain"));
  EXPECT_EQ(wrong_pixels(place.file("plain/00000-a.png"), 0, 9, 9), 0);
}

TEST(PredictMasks, AStackIsSegmentedSliceBySliceAlongAnyAxisOrWhole) {
  const Workplace place;
  fs::create_directories(place.file("in/stack"));
  for (int64_t z = 0; z < 5; ++z)
    write_grey(place.file(fmt::format("in/stack/{}.png", z)), {11, 7}, slice(z, 11, 7));
  for (const int64_t axis : {-1, 0, 1, 2}) {
    PixelModel model;
    config::Recipe recipe = recipe_of(
        axis < 0 ? std::vector<int64_t>{4, 4, 4} : std::vector<int64_t>{4, 4}, "image_stack");
    if (axis > 0) recipe.data.sources[0].slices = axis;  // unset is axis 0
    const std::string out = place.file(fmt::format("out{}", axis));
    EXPECT_EQ(predict(model, recipe, place.file("in"), out), 1);
    EXPECT_EQ(names_in(out).size(), 5u);
    for (int64_t z = 0; z < 5; ++z)
      EXPECT_EQ(wrong_pixels(fmt::format("{}/00000-stack/{:04}.png", out, z), z, 11, 7), 0)
          << "slices " << axis << ", " << z;
  }
  PixelModel model;
  predict(model, recipe_of({4, 4}, "image_stack"), place.file("in/stack/*.png"),
          place.file("glob"));
  EXPECT_EQ(names_in(place.file("glob")).front(), "00000-stack/0000.png");
}

TEST(PredictMasks, AVolumeKeepsItsPlaceInSpace) {
  const Workplace place;
  io::NiftiGeometry geometry;
  geometry.voxel_size = {0.5, 1.25, 3};
  geometry.units = 2;
  geometry.qform_code = 1;
  geometry.sform_code = 2;
  geometry.quaternion = {0.1, -0.2, 0.3};
  geometry.offset = {-12.5, 7, 40};
  geometry.sform = {{{-0.5, 0.1, 0, 11}, {0, 1.25, 0.2, -22}, {0.05, 0, 3, 33}}};
  const std::vector<int64_t> sides{6, 7, 9};
  std::vector<float> values;
  for (int64_t z = 0; z < 6; ++z)
    for (const uint8_t value : slice(z, 7, 9))
      values.push_back(value == 20 ? -300.0f : value == 128 ? 100.0f : 500.0f);
  io::write_nifti(place.file("scan.nii.gz"), sides, values, geometry);
  for (const size_t axes : {2u, 3u}) {
    PixelModel model;
    config::Recipe recipe = recipe_of(std::vector<int64_t>(axes, 4), "nifti");
    recipe.data.sources[0].normalize.value = "minmax";
    const std::string out = place.file(fmt::format("out{}", axes));
    EXPECT_EQ(predict(model, recipe, place.file("scan.nii.gz"), out), 1);
    EXPECT_THAT(names_in(out), ElementsAre("00000-scan.nii.gz"));
    const io::NiftiVolume mask = io::read_nifti(out + "/00000-scan.nii.gz");
    EXPECT_EQ(mask.header.sides, sides);
    EXPECT_EQ(mask.header.datatype, 2);  // unsigned bytes
    const io::NiftiGeometry& found = mask.header.geometry;
    EXPECT_EQ(found.qform_code, 1);
    EXPECT_EQ(found.sform_code, 2);
    EXPECT_EQ(found.units, 2);
    for (size_t row = 0; row < 3; ++row) {
      // Stored as fp32.
      EXPECT_FLOAT_EQ(static_cast<float>(found.voxel_size[row]),
                      static_cast<float>(geometry.voxel_size[row]));
      EXPECT_FLOAT_EQ(static_cast<float>(found.quaternion[row]),
                      static_cast<float>(geometry.quaternion[row]));
      EXPECT_FLOAT_EQ(static_cast<float>(found.offset[row]),
                      static_cast<float>(geometry.offset[row]));
      for (size_t k = 0; k < 4; ++k)
        EXPECT_FLOAT_EQ(static_cast<float>(found.sform[row][k]),
                        static_cast<float>(geometry.sform[row][k]));
    }
    int64_t wrong = 0;
    for (int64_t z = 0, i = 0; z < 6; ++z)
      for (const uint8_t value : slice(z, 7, 9))
        wrong += mask.values[static_cast<size_t>(i++)] != static_cast<float>(class_of(value));
    EXPECT_EQ(wrong, 0) << axes << " axes";
  }
}

/// Four quadrants of one value each.
std::vector<uint8_t> quadrants(int64_t side) {
  std::vector<uint8_t> values;
  for (int64_t y = 0; y < side; ++y)
    for (int64_t x = 0; x < side; ++x)
      values.push_back(y < side / 2 ? (x < side / 2 ? 20 : 240) : (x < side / 2 ? 240 : 128));
  return values;
}

TEST(PredictMasks, AModelOfWholeFilesSeesThemAtItsOwnSize) {
  const Workplace place;
  write_grey(place.file("large.png"), {32, 32}, quadrants(32));
  config::Recipe recipe = recipe_of({8, 8}, "images");
  recipe.data.sources[0].tile.clear();
  PixelModel model;
  predict(model, recipe, place.file("large.png"), place.file("out"));
  EXPECT_EQ(model.windows, 1);
  const io::Image mask = io::read_image(place.file("out/00000-large.png"));
  ASSERT_EQ(mask.height, 32);
  int64_t wrong = 0, inside = 0;
  for (int64_t y = 0; y < 32; ++y)
    for (int64_t x = 0; x < 32; ++x) {
      // Within two pixels of the small picture from an edge two classes mix.
      if (std::abs(y - 15.5) < 8 || std::abs(x - 15.5) < 8) continue;
      ++inside;
      wrong += mask.pixels[static_cast<size_t>(y * 32 + x)] !=
               class_of(quadrants(32)[static_cast<size_t>(y * 32 + x)]);
    }
  EXPECT_GT(inside, 200);
  EXPECT_EQ(wrong, 0);
  recipe.data.sources[0].resize = {16, 16};
  PixelModel at_resize;
  predict(at_resize, recipe, place.file("large.png"), place.file("out2"));
  EXPECT_EQ(at_resize.windows, 9);         // 3 x 3 windows of 8 in 16
  recipe.data.sources[0].tile = {16, 16};  // which training resizes to 8 x 8
  PixelModel at_tile;
  recipe.data.sources[0].resize.clear();
  predict(at_tile, recipe, place.file("large.png"), place.file("out3"));
  EXPECT_EQ(at_tile.windows, 9);
  recipe.data.sources[0].resize = {16, 16};  // tiles keep their scale and are cropped
  PixelModel at_both;
  predict(at_both, recipe, place.file("large.png"), place.file("out4"));
  EXPECT_EQ(at_both.windows, 49);
  recipe.data.sources[0].tile.clear();
  recipe.data.sources[0].resize.clear();
  recipe.data.sources[0].random_crop.per_epoch = 2;  // of model.image_size
  PixelModel at_crop;
  predict(at_crop, recipe, place.file("large.png"), place.file("out5"));
  EXPECT_EQ(at_crop.windows, 49);
}

TEST(PredictMasks, WhatDoesNotFitIsNamedAndNothingIsWritten) {
  const Workplace place;
  PixelModel model;
  const auto fails = [&]<class Kind>(std::type_identity<Kind>, const config::Recipe& recipe,
                                     const std::string& input, const char* words) {
    const std::string message =
        data::test::message_of<Kind>([&] { predict(model, recipe, input, place.file("out")); });
    EXPECT_THAT(message, HasSubstr(words));
    EXPECT_FALSE(fs::exists(place.file("out"))) << message;
  };
  write_grey(place.file("a.png"), {9, 9}, slice(0, 9, 9));
  fails(std::type_identity<core::DataError>(), recipe_of({8, 8}, "images"), place.file("none"),
        "none");
  fails(std::type_identity<core::ConfigError>(), recipe_of({4, 4, 4}, "images"),
        place.file("a.png"), "model.image_size");
  config::Recipe many = recipe_of({8, 8}, "images");
  many.model.num_classes = 257;
  fails(std::type_identity<core::ConfigError>(), many, place.file("a.png"), "257");
  data::test::write_bytes(place.file("broken/b.png"), "no picture");
  EXPECT_THAT(
      data::test::message_of<core::DataError>([&] {
        predict(model, recipe_of({8, 8}, "images"), place.file("broken"), place.file("out2"));
      }),
      HasSubstr("b.png"));
}

TEST(PredictMasks, ASlidingWindowDoesNotDependOnTheBatchSize) {
  double worst = 0;
  for (const char* kind : {"sap", "unetr"}) {
    const config::Model options =
        config::parse_recipe(fmt::format("model: {{kind: {}, image_size: [16, 16], patch_size: 4, "
                                         "in_channels: 1, num_classes: 3, embed_dim: 32, depth: 4, "
                                         "num_heads: 2, decoder_embed_dim: 16, feature_size: 4}}\n",
                                         kind),
                             "window.yaml", {})
            .recipe.model;
    const auto model = models::make_model(options, 3);
    const at::Tensor image = at::rand({1, 41, 29});
    const at::Tensor one = segment(*model, options, image, at::kCPU, {.batch_size = 1});
    for (const int64_t batch : {3, 8, 100})
      worst =
          std::max(worst, (segment(*model, options, image, at::kCPU, {.batch_size = batch}) - one)
                              .abs()
                              .max()
                              .item<double>());
  }
  // Products of other sizes add in another order: a few roundings of fp32 below a probability of 1.
  std::printf("worst difference %.2g (allowed 1e-5)\n", worst);
  EXPECT_LE(worst, 1e-5);
}

}  // namespace
}  // namespace vitrail::train
