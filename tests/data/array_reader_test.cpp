#include "vitrail/data/array_reader.h"

#include <cmath>
#include <filesystem>
#include <numeric>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/data/test_data.h"
#include "tests/io/python.h"
#include "vitrail/core/error.h"
#include "vitrail/data/label_files.h"
#include "vitrail/data/readers.h"
#include "vitrail/io/npy.h"

namespace vitrail::data {
namespace {

using core::ConfigError;
using core::DataError;
using core::DType;
using test::message_of;
using test::model_of;
using test::source_of;
using test::TemporaryFolder;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

/// Writes first, first + 1, ... as an .npy of these sides.
template <class T>
void write_ramp(const std::string& path, DType dtype, const std::vector<int64_t>& shape,
                T first = 0) {
  std::vector<T> values(static_cast<size_t>(count(shape)));
  std::iota(values.begin(), values.end(), first);
  std::filesystem::create_directories(std::filesystem::path(path).parent_path());
  io::write_npy(path, dtype, shape, values.data());
}

std::vector<float> numbers(const Pixels& pixels) {
  if (pixels.is_float()) return pixels.floats;
  return {pixels.values.begin(), pixels.values.end()};
}

/// Every box of a volume or image equals the crop of the whole, for pixels, masks and values.
void expect_boxes(const Reader& reader, int64_t i) {
  const std::vector<int64_t> sides = reader.shape(i).sides;
  for (uint32_t round = 0; round < 12; ++round) {
    Box box;
    for (size_t axis = 0; axis < sides.size(); ++axis) {
      const auto draw = [&](int64_t below, uint32_t k) {
        return static_cast<int64_t>(core::draw({9, core::Stream::test, round, 0}, axis, k)) % below;
      };
      box.origin.push_back(draw(sides[axis], 0));
      box.sides.push_back(1 + draw(sides[axis] - box.origin.back(), 1));
    }
    const Pixels part = reader.decode_box(i, box);
    EXPECT_EQ(part.sides, box.sides);
    EXPECT_EQ(numbers(part), numbers(take_box(reader.decode(i), box)));
    if (reader.has_masks()) {
      EXPECT_EQ(reader.decode_mask_box(i, box).classes,
                take_box(reader.decode_mask(i), box).classes);
    }
    if (reader.has_value_images()) {
      EXPECT_EQ(reader.decode_values_box(i, box).floats,
                take_box(reader.decode_values(i), box).floats);
    }
  }
}

TEST(Arrays, AxesFollowTheirNumberOrTheRecipesLetters) {
  const TemporaryFolder folder;
  struct Case {
    std::vector<int64_t> shape;
    std::string axes;
    int64_t channels, samples;
    std::vector<int64_t> strides;  // of y, x, c in the file
    int64_t sample_stride;
  };
  const Case cases[] = {
      {{4, 5}, "", 1, 1, {5, 1, 0}, 0},
      {{3, 4, 5}, "", 3, 1, {5, 1, 20}, 0},
      {{2, 3, 4, 5}, "", 3, 2, {5, 1, 20}, 60},
      {{4, 5, 3}, "yxc", 3, 1, {15, 3, 1}, 0},
      {{5, 4}, "xy", 1, 1, {1, 4, 0}, 0},
      {{5, 3, 4}, "xcy", 3, 1, {1, 12, 4}, 0},
      {{6, 4, 5}, "nyx", 1, 6, {5, 1, 0}, 20},
      {{4, 5, 6}, "yxn", 1, 6, {30, 6, 0}, 1},
      {{1, 4, 5}, "tyx", 1, 1, {5, 1, 0}, 0},
      {{1, 3, 1, 4, 5}, "tczyx", 3, 1, {5, 1, 20}, 0},
      {{3, 6, 4, 5}, "cnyx", 3, 6, {5, 1, 120}, 20},
  };
  int file = 0;
  for (const Case& c : cases) {
    const std::string path = folder.path(fmt::format("{}.npy", file++));
    write_ramp<uint8_t>(path, DType::u8, c.shape);
    config::Source source = source_of("npy", path);
    source.axes = c.axes;
    const auto reader = open_reader(source, model_of({4, 5}, c.channels, 0));
    SCOPED_TRACE(c.axes + " " + describe(c.shape));
    ASSERT_EQ(reader->size(), c.samples);
    for (int64_t i = 0; i < c.samples; ++i) {
      const Pixels pixels = reader->decode(i);
      ASSERT_THAT(pixels.sides, ElementsAre(4, 5));
      ASSERT_EQ(pixels.channels, c.channels);
      EXPECT_EQ(pixels.full_scale, 255.0f);
      size_t at = 0;
      for (int64_t y = 0; y < 4; ++y)
        for (int64_t x = 0; x < 5; ++x)
          for (int64_t k = 0; k < c.channels; ++k)
            EXPECT_EQ(pixels.values.at(at++),
                      static_cast<uint8_t>(i * c.sample_stride + y * c.strides[0] +
                                           x * c.strides[1] + k * c.strides[2]));
      EXPECT_EQ(reader->describe(i).path, c.samples > 1 ? fmt::format("{}#{}", path, i) : path);
    }
    expect_boxes(*reader, c.samples - 1);
  }
}

TEST(Arrays, AxesThatDoNotFitAreRefusedByName) {
  const TemporaryFolder folder;
  const std::string path = folder.path("a.npy");
  write_ramp<uint8_t>(path, DType::u8, {2, 3, 4, 5, 6});
  const auto refusal = [&](const std::string& axes) {
    config::Source source = source_of("npy", path);
    source.axes = axes;
    try {
      open_reader(source, model_of({5, 6}, 1, 0))->decode(0);
    } catch (const core::Error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_THAT(refusal(""), HasSubstr("must have 2 to 4 axes"));
  EXPECT_THAT(refusal("nczyx"), HasSubstr("set slices"));
  EXPECT_THAT(refusal("nctyx"), HasSubstr("axis 2 ('t')"));
  EXPECT_THAT(refusal("ncyx"), HasSubstr("must name every axis"));
  EXPECT_THAT(refusal("nczyq"), HasSubstr("letters out of"));
  EXPECT_THAT(refusal("nncyx"), HasSubstr("each once"));
  EXPECT_THAT(refusal("nczty"), HasSubstr("must hold y and x"));
}

TEST(Arrays, TypesBecomeBytesOrFloatsWithTheirFullScale) {
  const TemporaryFolder folder;
  const std::string said = testing::run_python(folder.path(), R"(
import numpy as np
a = np.array([[0, 1, 2], [100, 101, 127]])
for t in "u1 u2 u4 u8 i1 i2 i4 i8 f2 f4 f8".split():
    for o in "<>": np.save(f"{'l' if o == '<' else 'b'}{t}.npy", a.astype(o + t))
np.save("bool.npy", a > 1)
)");
  ASSERT_EQ(said, "");
  for (const std::string order : {"l", "b"})
    for (const std::string type :
         {"u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8"}) {
      const std::string path = folder.path(order + type + ".npy");
      const Pixels pixels = open_reader(source_of("npy", path), model_of({2, 3}, 1, 0))->decode(0);
      EXPECT_THAT(numbers(pixels), ElementsAre(0, 1, 2, 100, 101, 127)) << path;
      EXPECT_EQ(pixels.is_float(), type != "u1");
      EXPECT_EQ(pixels.full_scale, type == "u1" ? 255.0f : type == "u2" ? 65535.0f : 1.0f);
    }
  const Pixels flags =
      open_reader(source_of("npy", folder.path("bool.npy")), model_of({2, 3}, 1, 0))->decode(0);
  EXPECT_THAT(flags.floats, ElementsAre(0, 0, 1, 1, 1, 1));
  EXPECT_EQ(flags.full_scale, 1.0f);
}

TEST(Arrays, ChannelsAreChosenAndOrderedAndCounted) {
  const TemporaryFolder folder;
  const std::string first = folder.path("cyx.npy"), last = folder.path("yxc.npy");
  write_ramp<float>(first, DType::f32, {5, 2, 3});
  write_ramp<float>(last, DType::f32, {2, 3, 5});
  config::Model model = model_of({2, 3}, 5, 0);
  model.variables = {"a", "b", "c", "d", "e"};
  for (const auto& [path, axes, step] : {std::tuple{first, "cyx", 6}, std::tuple{last, "yxc", 1}}) {
    config::Source source = source_of("npy", path);
    source.axes = axes;
    const Pixels all = open_reader(source, model)->decode(0);
    EXPECT_EQ(all.channels, 5);
    EXPECT_EQ(all.floats[3], static_cast<float>(3 * step));
    source.channels = {4, 0};
    source.variables = {"e", "a"};
    const auto reader = open_reader(source, model);
    const Pixels two = reader->decode(0);
    EXPECT_EQ(two.channels, 2);
    EXPECT_EQ(two.floats[0], static_cast<float>(4 * step));
    EXPECT_EQ(two.floats[1], 0.0f);
    expect_boxes(*reader, 0);
    source.channels = {4, 5};
    EXPECT_THAT(message_of<DataError>([&] { open_reader(source, model)->decode(0); }),
                HasSubstr("must lie in [0, 5)"));
    source.channels = {4};
    EXPECT_THAT(message_of<ConfigError>([&] { open_reader(source, model); }),
                HasSubstr("as many channels as the model takes, 2"));
    source.channels.clear();
    EXPECT_THAT(message_of<DataError>([&] { open_reader(source, model)->decode(0); }),
                HasSubstr("expected 2 channel(s)"));
  }
}

TEST(Arrays, NumbersThatAreNotFiniteAreNamed) {
  const TemporaryFolder folder;
  const float values[] = {1, 2, std::nanf(""), 4};
  const double large[] = {1, 2, 3, 1e300};
  io::write_npy(folder.path("nan.npy"), DType::f32, std::vector<int64_t>{2, 2}, values);
  io::write_npy(folder.path("large.npy"), DType::f64, std::vector<int64_t>{2, 2}, large);
  const auto refusal = [&](const char* name) {
    return message_of<DataError>([&] {
      open_reader(source_of("npy", folder.path(name)), model_of({2, 2}, 1, 0))->decode(0);
    });
  };
  EXPECT_THAT(refusal("nan.npy"), HasSubstr("value 2 is nan"));
  EXPECT_THAT(refusal("large.npy"), HasSubstr("large.npy"));
}

TEST(Arrays, FilesCountOnBehindEachOther) {
  const TemporaryFolder folder;
  write_ramp<uint8_t>(folder.path("a2.npy"), DType::u8, {3, 2, 2}, uint8_t{0});
  write_ramp<uint8_t>(folder.path("a10.npy"), DType::u8, {2, 2, 2}, uint8_t{100});
  config::Source source = source_of("npy", folder.path());
  source.axes = "nyx";
  const auto reader = open_reader(source, model_of({2, 2}, 1, 0));
  ASSERT_EQ(reader->size(), 5);
  EXPECT_EQ(reader->decode(2).values[0], 8);
  EXPECT_EQ(reader->decode(3).values[0], 100);
  EXPECT_EQ(reader->describe(4).path, folder.path("a10.npy") + "#1");
  EXPECT_TRUE(reader->reads_boxes());
}

TEST(Arrays, MasksOfAnyFormatBelongToImagesOfAnyFormat) {
  const TemporaryFolder folder;
  const std::string said = testing::run_python(folder.path(), R"(
import os
import numpy as np, tifffile, nibabel as nib
from PIL import Image
rng = np.random.default_rng(3)
for k in range(3):
    image = rng.integers(0, 256, (24, 20)).astype(np.uint8)
    mask = rng.integers(0, 3, (24, 20)).astype(np.uint8)
    for d in ("png", "npy", "tiff", "raw", "nifti", "wide", "float"): os.makedirs("image/" + d, exist_ok=True); os.makedirs("mask/" + d, exist_ok=True)
    for kind, a in (("image", image), ("mask", mask)):
        Image.fromarray(a).save(f"{kind}/png/{k}.png"); np.save(f"{kind}/npy/{k}.npy", a)
        tifffile.imwrite(f"{kind}/tiff/{k}.tif", a); a.tofile(f"{kind}/raw/{k}.raw")
        nib.save(nib.Nifti1Image(a.T[..., None], np.eye(4)), f"{kind}/nifti/{k}.nii")
        Image.fromarray(a.astype(np.uint16)).save(f"{kind}/wide/{k}.png"); np.save(f"{kind}/float/{k}.npy", a.astype(np.float32))
    mask.astype(np.int32).tofile("wanted%d.raw" % k)
)");
  ASSERT_EQ(said, "");
  const config::Model model = test::segmenter({24, 20}, 1, 3);
  int pairs = 0;
  for (const auto& [reader_name, images] :
       {std::pair{"images", "png"}, std::pair{"npy", "npy"}, std::pair{"tiff", "tiff"},
        std::pair{"raw", "raw"}, std::pair{"nifti", "nifti"}})
    for (const auto& [labels, masks] :
         {std::pair{"images", "png"}, std::pair{"npy", "npy"}, std::pair{"tiff", "tiff"},
          std::pair{"raw", "raw"}, std::pair{"nifti", "nifti"}, std::pair{"images", "wide"},
          std::pair{"npy", "float"}}) {
      SCOPED_TRACE(std::string(images) + " with " + masks);
      config::Source source = source_of(reader_name, folder.path(std::string("image/") + images),
                                        folder.path(std::string("mask/") + masks));
      source.label_reader.value = labels;
      source.dtype = "uint8";
      source.shape = {24, 20};
      const auto reader = open_reader(source, model);
      ASSERT_TRUE(reader->has_masks());
      ASSERT_EQ(reader->size(), 3);
      for (int64_t i = 0; i < 3; ++i) {
        const Mask mask = reader->decode_mask(i);
        const auto wanted = io::NpyFile::open(folder.path(fmt::format("mask/npy/{}.npy", i)));
        ASSERT_EQ(mask.classes.size(), wanted.bytes().size());
        for (size_t p = 0; p < mask.classes.size(); ++p)
          ASSERT_EQ(mask.classes[p], std::to_integer<int32_t>(wanted.bytes()[p]));
      }
      expect_boxes(*reader, 1);
      ++pairs;
    }
  EXPECT_EQ(pairs, 35);
}

TEST(Arrays, MasksAreCheckedLikeThoseOfImages) {
  const TemporaryFolder folder;
  write_ramp<uint8_t>(folder.path("image/a.npy"), DType::u8, {2, 3});
  const auto refusal = [&](const std::string& mask, std::vector<int64_t> values = {}) {
    config::Source source = source_of("npy", folder.path("image"), folder.path(mask));
    source.label_values = std::move(values);
    return message_of<DataError>([&] {
      open_reader(source, test::segmenter({2, 3}, 1, 6))->decode_mask(0);
    });
  };
  write_ramp<int64_t>(folder.path("fine.npy"), DType::i64, {2, 3});
  EXPECT_EQ(refusal("fine.npy"), "");
  EXPECT_THAT(refusal("fine.npy", {0, 1, 2, 3, 4}), HasSubstr("but got 5"));
  write_ramp<int64_t>(folder.path("large.npy"), DType::i64, {2, 3}, int64_t{1} << 40);
  EXPECT_THAT(refusal("large.npy"), HasSubstr("must fit in 32 bits"));
  write_ramp<uint8_t>(folder.path("sides.npy"), DType::u8, {3, 2});
  EXPECT_THAT(refusal("sides.npy"), HasSubstr("must have the sides of its image"));
  write_ramp<float>(folder.path("half.npy"), DType::f32, {2, 3}, 0.5f);
  EXPECT_THAT(refusal("half.npy"), HasSubstr("whole numbers"));
  write_ramp<uint8_t>(folder.path("channels.npy"), DType::u8, {2, 2, 3});
  EXPECT_THAT(refusal("channels.npy"), HasSubstr("one channel"));
}

TEST(Arrays, ImagesAndTheirMasksMayShareAnAxisOfSamplesAndAContainer) {
  const TemporaryFolder folder;
  ASSERT_EQ(testing::run_python(folder.path(), R"(
import numpy as np
x = np.arange(5 * 2 * 4 * 6).reshape(5, 2, 4, 6).astype(np.uint16)
np.savez_compressed("both.npz", image=x, mask=(x[:, 0] % 3).astype(np.int32))
)"),
            "");
  config::Source source = source_of("npy", folder.path("both.npz"));
  source.array = "image";
  source.label_array = "mask";
  const auto reader = open_reader(source, test::segmenter({4, 6}, 2, 3));
  ASSERT_EQ(reader->size(), 5);
  ASSERT_TRUE(reader->has_masks());
  const Pixels pixels = reader->decode(3);
  EXPECT_EQ(pixels.full_scale, 65535.0f);
  EXPECT_EQ(pixels.floats[1], 3 * 48 + 24.0f);
  const Mask mask = reader->decode_mask(3);
  for (int32_t p = 0; p < 24; ++p) EXPECT_EQ(mask.classes[static_cast<size_t>(p)], p % 3);
  expect_boxes(*reader, 4);
}

TEST(Arrays, RealValuesArePixelsOfTheModelsClasses) {
  const TemporaryFolder folder;
  write_ramp<uint8_t>(folder.path("image.npy"), DType::u8, {3, 4, 5});
  write_ramp<double>(folder.path("values.npy"), DType::f64, {2, 3, 4, 5}, -7.5);
  config::Model model = test::segmenter({3, 4, 5}, 1, 2);
  model.loss.value = "mse";
  config::Source source = source_of("npy", folder.path("image.npy"), folder.path("values.npy"));
  const auto reader = open_reader(source, model);
  EXPECT_FALSE(reader->has_masks());
  ASSERT_TRUE(reader->has_value_images());
  const Pixels values = reader->decode_values(0);
  ASSERT_EQ(values.channels, 2);
  EXPECT_EQ(values.full_scale, 1.0f);
  for (size_t p = 0; p < 60; ++p) {
    EXPECT_EQ(values.floats[2 * p], static_cast<float>(p) - 7.5f);
    EXPECT_EQ(values.floats[2 * p + 1], static_cast<float>(p) + 52.5f);
  }
  expect_boxes(*reader, 0);
  model.num_classes = 3;
  EXPECT_THAT(message_of<DataError>([&] { open_reader(source, model)->decode_values(0); }),
              HasSubstr("model.num_classes = 3 values a pixel but has 2"));
}

TEST(Arrays, AClassifierTakesClassesFromAVectorOrFromFolders) {
  const TemporaryFolder folder;
  write_ramp<uint8_t>(folder.path("x.npy"), DType::u8, {4, 1, 2, 2});
  const int64_t classes[] = {2, 0, 1, 2};
  io::write_npy(folder.path("y.npy"), DType::i64, std::vector<int64_t>{4}, classes);
  config::Source source = source_of("npy", folder.path("x.npy"), folder.path("y.npy"));
  config::Model model = model_of({2, 2}, 1, 3);
  const auto reader = open_reader(source, model);
  EXPECT_FALSE(reader->has_masks());
  for (int64_t i = 0; i < 4; ++i) EXPECT_EQ(reader->describe(i).label, classes[i]);
  model.num_classes = 2;
  EXPECT_THAT(message_of<DataError>([&] { open_reader(source, model); }), HasSubstr("from 0 to 1"));
  model.num_classes = 3;
  io::write_npy(folder.path("short.npy"), DType::i64, std::vector<int64_t>{3}, classes);
  source.labels = folder.path("short.npy");
  EXPECT_THAT(message_of<DataError>([&] { open_reader(source, model); }),
              HasSubstr("one label for each of the 4 samples"));

  for (const char* name : {"tree/b/1.npy", "tree/a/1.npy", "tree/a/2.npy"})
    write_ramp<uint8_t>(folder.path(name), DType::u8, {2, 2});
  const auto tree = open_reader(source_of("npy", folder.path("tree")), model);
  EXPECT_THAT(tree->class_names(), ElementsAre("a", "b"));
  ASSERT_EQ(tree->size(), 3);
  EXPECT_EQ(tree->describe(1).label, 0);
  EXPECT_EQ(tree->describe(2).label, 1);
}

TEST(Arrays, AModelOfValuesTakesRowsOfThem) {
  const TemporaryFolder folder;
  write_ramp<uint8_t>(folder.path("x.npy"), DType::u8, {3, 1, 2, 2});
  const double rows[] = {0.5, -1, 2, 3, 4, std::nan("")};
  io::write_npy(folder.path("y.npy"), DType::f64, std::vector<int64_t>{3, 2}, rows);
  config::Model model = model_of({2, 2}, 1, 2);
  model.loss.value = "mse";
  const config::Source source = source_of("npy", folder.path("x.npy"), folder.path("y.npy"));
  const auto reader = open_reader(source, model);
  EXPECT_THAT(reader->describe(0).values, ElementsAre(0.5f, -1.0f));
  EXPECT_THAT(reader->describe(1).values, ElementsAre(2.0f, 3.0f));
  EXPECT_TRUE(std::isnan(reader->describe(2).values[1]));
  EXPECT_FALSE(reader->has_value_images());
}

TEST(Arrays, RawFilesTakeShapeAndTypeFromTheRecipe) {
  const TemporaryFolder folder;
  std::string bytes = "head";
  for (int k = 0; k < 24; ++k) bytes += {static_cast<char>(1), static_cast<char>(k)};
  test::write_bytes(folder.path("a.raw"), bytes);
  config::Source source = source_of("raw", folder.path("a.raw"));
  source.dtype = ">u2";
  source.shape = {2, 3, 4};
  source.offset = 4;
  const auto reader = open_reader(source, model_of({2, 3, 4}, 1, 0));
  const Pixels pixels = reader->decode(0);
  for (size_t k = 0; k < 24; ++k) EXPECT_EQ(pixels.floats[k], 256.0f + static_cast<float>(k));
  expect_boxes(*reader, 0);
  source.shape.clear();
  EXPECT_THAT(message_of<ConfigError>([&] {
                open_reader(source, model_of({2, 3, 4}, 1, 0));
              }),
              HasSubstr("needs dtype and shape"));
}

TEST(Arrays, StacksOfTiffAreVolumesAndTheirPiecesAreTold) {
  const TemporaryFolder folder;
  ASSERT_EQ(testing::run_python(folder.path(), R"(
import numpy as np, tifffile
a = np.arange(4 * 20 * 30).reshape(4, 20, 30).astype(np.uint16)
tifffile.imwrite("stack.tif", a, metadata=None, photometric="minisblack", rowsperstrip=8)
tifffile.imwrite("colour.tif", np.dstack([a[0] % 256] * 3).astype(np.uint8), photometric="rgb")
)"),
            "");
  const auto volume =
      open_reader(source_of("tiff", folder.path("stack.tif")), model_of({4, 20, 30}, 1, 0));
  EXPECT_THAT(volume->shape(0).sides, ElementsAre(4, 20, 30));
  EXPECT_THAT(volume->chunk_sides(0), ElementsAre(1, 8, 30));
  EXPECT_THAT(volume->shape(0).detail, HasSubstr("u16"));
  EXPECT_EQ(volume->decode(0).floats[2399], 2399.0f);
  expect_boxes(*volume, 0);
  const auto colour =
      open_reader(source_of("tiff", folder.path("colour.tif")), model_of({20, 30}, 3, 0));
  EXPECT_EQ(colour->decode(0).channels, 3);
  expect_boxes(*colour, 0);
  const auto grey =
      open_reader(source_of("tiff", folder.path("colour.tif")), model_of({20, 30}, 1, 0));
  EXPECT_EQ(grey->read(0).image.size(0), 1);  // RGB bytes become grey as images do
  config::Source pages = source_of("tiff", folder.path("stack.tif"));
  EXPECT_THAT(message_of<DataError>([&] {
                open_reader(pages, model_of({20, 30}, 1, 0));
              }),
              HasSubstr("set slices"));
  pages.axes = "nyx";
  EXPECT_EQ(open_reader(pages, model_of({20, 30}, 1, 0))->size(), 4);
}

TEST(Nifti, PlainVolumesAreReadByBoxes) {
  const TemporaryFolder folder;
  ASSERT_EQ(testing::run_python(folder.path(), R"(
import os
import numpy as np, nibabel as nib
rng = np.random.default_rng(3)
for d in ("plain", "packed", "labels"): os.makedirs(d)
a = rng.standard_normal((6, 5, 4, 2)).astype(np.float32)
nib.save(nib.Nifti1Image(a, np.eye(4)), "plain/a.nii"); nib.save(nib.Nifti1Image(a, np.eye(4)), "packed/a.nii.gz")
np.save("labels/a.npy", rng.integers(0, 2, (4, 5, 6)).astype(np.uint8))
)"),
            "");
  for (const auto& [name, boxes] : {std::pair{"plain", true}, std::pair{"packed", false}}) {
    config::Source source = source_of("nifti", folder.path(name), folder.path("labels"));
    source.label_reader.value = "npy";
    const auto reader = open_reader(source, test::segmenter({4, 5, 6}, 2, 2));
    EXPECT_EQ(reader->reads_boxes(), boxes);
    expect_boxes(*reader, 0);
  }
}

TEST(ImageStack, SlicesOfSixteenBitsAreAVolumeWithMasksOfAnyFormat) {
  const TemporaryFolder folder;
  ASSERT_EQ(testing::run_python(folder.path(), R"(
import os
import numpy as np
from PIL import Image
os.makedirs("stack"); a = np.arange(3 * 4 * 5).reshape(3, 4, 5).astype(np.uint16) * 1000
for z in range(3): Image.fromarray(a[z]).save(f"stack/{z}.png")
np.save("mask.npy", (np.arange(60).reshape(3, 4, 5) % 2).astype(np.uint8))
)"),
            "");
  config::Source source = source_of("image_stack", folder.path("stack"), folder.path("mask.npy"));
  source.label_reader.value = "npy";
  const auto reader = open_reader(source, test::segmenter({3, 4, 5}, 1, 2));
  const Pixels pixels = reader->decode(0);
  EXPECT_EQ(pixels.full_scale, 65535.0f);
  EXPECT_EQ(pixels.floats[59], 59'000.0f);
  EXPECT_EQ(reader->decode_mask(0).classes[59], 1);
  expect_boxes(*reader, 0);
  source.split = {0, 0.5};
  EXPECT_THAT(message_of<ConfigError>([&] {
                open_reader(source, test::segmenter({3, 4, 5}, 1, 2));
              }),
              HasSubstr("use region"));
}

TEST(ImageStack, SlicesOfTiffAreAVolumeToo) {
  const TemporaryFolder folder;
  ASSERT_EQ(testing::run_python(folder.path(), R"(
import os
import numpy as np, tifffile
for d in ("stack", "mask"): os.makedirs(d)
a = np.arange(3 * 4 * 5).reshape(3, 4, 5)
for z in range(3):
    tifffile.imwrite(f"stack/{z}.tif", a[z].astype(np.float32) / 2)
    tifffile.imwrite(f"mask/{z}.tif", (a[z] % 3).astype(np.int32))
)"),
            "");
  const auto reader =
      open_reader(source_of("image_stack", folder.path("stack"), folder.path("mask")),
                  test::segmenter({3, 4, 5}, 1, 3));
  const Pixels pixels = reader->decode(0);
  EXPECT_THAT(pixels.sides, ElementsAre(3, 4, 5));
  EXPECT_EQ(pixels.full_scale, 1.0f);
  EXPECT_EQ(pixels.floats[59], 29.5f);
  EXPECT_EQ(reader->decode_mask(0).classes[59], 2);
  expect_boxes(*reader, 0);
}

}  // namespace
}  // namespace vitrail::data
