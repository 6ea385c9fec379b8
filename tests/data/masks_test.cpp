// Images and stacks with masks: which files belong together, which values are classes.

#include <ATen/ops/equal.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "test_data.h"
#include "vitrail/core/error.h"
#include "vitrail/data/files.h"
#include "vitrail/data/mask_classes.h"
#include "vitrail/data/reader.h"

namespace vitrail::data {
namespace {

using test::message_of;
using test::segmenter;
using test::source_of;
using test::TemporaryFolder;
using test::write_bytes;
using test::write_grey;
using test::write_image;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

template <class Body>
std::string data_error(const Body& body) {
  return message_of<core::DataError>(body);
}

std::vector<uint8_t> filled(size_t n, uint8_t value) { return std::vector<uint8_t>(n, value); }

std::vector<std::string> names(const Reader& reader, const std::string& root) {
  std::vector<std::string> result;
  for (int64_t i = 0; i < reader.size(); ++i)
    result.push_back(std::filesystem::relative(reader.describe(i).path, root).string());
  return result;
}

TEST(Files, NumbersInNamesCountAsNumbers) {
  std::vector<std::string> files = {"a10.png", "a9.png", "a1b2", "a1b10", "b",  "a", "a007",
                                    "a7",      "a0010",  "a",    "A",     "10", "9"};
  std::sort(files.begin(), files.end(), natural_less);
  EXPECT_THAT(files, ElementsAre("9", "10", "A", "a", "a", "a1b2", "a1b10", "a007", "a7", "a9.png",
                                 "a0010", "a10.png", "b"));
  for (const std::string& a : files)
    for (const std::string& b : files) EXPECT_FALSE(natural_less(a, b) && natural_less(b, a));
}

TEST(Images, AreAFileAFolderOrAGlobInNaturalOrder) {
  const TemporaryFolder folder;
  for (const char* name : {"x/img10.png", "x/img9.jpg", "x/sub/img1.PNG", "x/.img3.png", "y/z.png"})
    write_image(folder.path(name), {4, 5}, 3);
  write_bytes(folder.path("x/notes.txt"), "no image");
  const config::Model model = segmenter({4, 5}, 3, 2);
  const auto listed = [&](const std::string& root) {
    return names(*open_reader(source_of("images", folder.path(root)), model), folder.path());
  };
  EXPECT_THAT(listed("x"), ElementsAre("x/img9.jpg", "x/img10.png", "x/sub/img1.PNG"));
  EXPECT_THAT(listed("x/img10.png"), ElementsAre("x/img10.png"));
  EXPECT_THAT(listed("x/img*"), ElementsAre("x/img9.jpg", "x/img10.png"));
  EXPECT_THAT(listed("[xy]"),
              ElementsAre("x/img9.jpg", "x/img10.png", "x/sub/img1.PNG", "y/z.png"));
  EXPECT_THAT(listed("?/*.png"), ElementsAre("x/img10.png", "y/z.png"));
  EXPECT_THAT(data_error([&] { listed("nowhere"); }), HasSubstr("nowhere: no such file or folder"));
  EXPECT_THAT(data_error([&] { listed("*.tif"); }),
              HasSubstr("*.tif: holds no .jpg, .jpeg or .png"));
  std::filesystem::create_directory(folder.path("empty"));
  EXPECT_THAT(data_error([&] { listed("empty"); }), HasSubstr("empty: holds no"));
}

TEST(Images, HaveTheMaskAtTheSamePlaceOfTheSortedList) {
  const TemporaryFolder folder;
  for (int i = 0; i < 12; ++i) {
    const std::string number = std::to_string(i);
    write_image(folder.path("image/im" + number + ".png"), {3, 4}, 1, i);
    write_grey(folder.path("label/mask" + number + ".png"), {3, 4}, filled(12, i));
  }
  const auto reader = open_reader(source_of("images", folder.path("image"), folder.path("label")),
                                  segmenter({3, 4}, 1, 12));
  ASSERT_EQ(reader->size(), 12);
  for (int64_t i = 0; i < 12; ++i) {
    const Sample sample = reader->read(i);
    EXPECT_TRUE(at::equal(sample.image, to_tensor(test::noise({3, 4}, 1, i))));
    EXPECT_EQ(sample.mask.sizes(), at::IntArrayRef({3, 4}));
    EXPECT_EQ(sample.mask.min().item<int64_t>(), i);
    EXPECT_EQ(sample.mask.max().item<int64_t>(), i);
    EXPECT_EQ(sample.label, -1);
  }
}

TEST(Images, MaskErrorsNameBothFiles) {
  const TemporaryFolder folder;
  for (const char* name : {"image/0.png", "image/1.png"}) write_image(folder.path(name), {3, 4}, 1);
  write_grey(folder.path("label/0.png"), {3, 4}, filled(12, 1));
  const auto open = [&](int64_t classes) {
    return open_reader(source_of("images", folder.path("image"), folder.path("label")),
                       segmenter({3, 4}, 1, classes));
  };
  EXPECT_THAT(data_error([&] { open(2); }),
              AllOf(HasSubstr("/label: expected one mask for each of the 2 images"),
                    HasSubstr("/image but found 1")));
  write_grey(folder.path("label/1.png"), {4, 3}, filled(12, 1));
  EXPECT_THAT(
      data_error([&] { open(2)->decode_mask(1); }),
      AllOf(HasSubstr("label/1.png"), HasSubstr("image/1.png"), HasSubstr("4 x 3 and 3 x 4")));
  EXPECT_EQ(open(2)->decode_mask(0).classes, std::vector<int32_t>(12, 1));
  EXPECT_THAT(
      data_error([&] { open(1)->decode_mask(0); }),
      AllOf(HasSubstr("label/0.png"), HasSubstr("classes from 0 to 0"), HasSubstr("got 1")));
  write_image(folder.path("label/0.png"), {3, 4}, 3);
  EXPECT_THAT(data_error([&] { open(256)->decode_mask(0); }),
              AllOf(HasSubstr("label/0.png"), HasSubstr("must be grey")));
  write_bytes(folder.path("label/0.png"), "broken");
  EXPECT_THAT(data_error([&] { open(256)->decode_mask(0); }), HasSubstr("label/0.png"));
}

TEST(MaskClasses, AreThePlacesInLabelValues) {
  config::Source source = source_of("images", "");
  source.label_values = {0, 255, 7};
  const MaskClasses classes(source, segmenter({1, 4}, 1, 3));
  EXPECT_THAT(classes.apply(Mask{{1, 4}, {255, 0, 7, 7}}, "m.png").classes,
              ElementsAre(1, 0, 2, 2));
  EXPECT_THAT(data_error([&] {
                classes.apply(Mask{{1, 2}, {0, 8}}, "m.png");
              }),
              AllOf(HasSubstr("m.png"), HasSubstr("[0, 255, 7]"), HasSubstr("got 8")));
  EXPECT_THAT(data_error([&] {
                classes.apply(std::vector<float>{0.0f, 6.5f}, {1, 2}, "m.nii");
              }),
              AllOf(HasSubstr("m.nii"), HasSubstr("whole numbers but got 6.5")));
  EXPECT_THAT(data_error([&] {
                classes.apply({std::nanf("")}, {1, 1}, "m.nii");
              }),
              HasSubstr("whole numbers"));
  EXPECT_THAT(data_error([&] {
                classes.apply({1e30f}, {1, 1}, "m.nii");
              }),
              HasSubstr("whole numbers"));
  EXPECT_THAT(message_of<core::ConfigError>([&] {
                MaskClasses(source, segmenter({1, 1}, 1, 2));
              }),
              HasSubstr("at most model.num_classes = 2"));
  source.label_values = {3, 3};
  EXPECT_THAT(message_of<core::ConfigError>([&] {
                MaskClasses(source, segmenter({1, 1}, 1, 2));
              }),
              HasSubstr("must differ"));
}

TEST(ImageStack, AFolderOfSlicesIsOneVolumeWithItsMask) {
  const TemporaryFolder folder;
  for (int z = 8; z < 13; ++z) {  // "8" before "10"
    write_image(folder.path("image/" + std::to_string(z) + ".png"), {4, 6}, 1, z);
    write_grey(folder.path("label/" + std::to_string(z) + ".png"), {4, 6}, filled(24, z % 2 * 255));
  }
  config::Source source = source_of("image_stack", folder.path("image"), folder.path("label"));
  source.label_values = {0, 255};
  const config::Model model = segmenter({5, 4, 6}, 1, 2);
  const auto reader = open_reader(source, model);
  ASSERT_EQ(reader->size(), 1);
  EXPECT_THAT(reader->shape(0).sides, ElementsAre(5, 4, 6));
  const Pixels volume = reader->decode(0);
  EXPECT_THAT(volume.sides, ElementsAre(5, 4, 6));
  const Mask mask = reader->decode_mask(0);
  EXPECT_THAT(mask.sides, ElementsAre(5, 4, 6));
  for (size_t z = 0; z < 5; ++z) {
    const std::vector<uint8_t> slice = test::noise({4, 6}, 1, 8 + z).values;
    EXPECT_TRUE(std::equal(slice.begin(), slice.end(), volume.values.begin() + z * 24));
    EXPECT_EQ(mask.classes[z * 24 + 5], static_cast<int32_t>(z % 2));
  }
  // A split takes slices before stacking.
  source.split = {0.4, 1};
  const auto part = open_reader(source, model);
  EXPECT_THAT(part->shape(0).sides, ElementsAre(3, 4, 6));
  EXPECT_EQ(part->decode(0).values,
            std::vector<uint8_t>(volume.values.begin() + 48, volume.values.end()));
  EXPECT_EQ(part->decode_mask(0).classes,
            std::vector<int32_t>(mask.classes.begin() + 48, mask.classes.end()));
  EXPECT_EQ(
      open_reader(source_of("image_stack", folder.path("image/*.png")), model)->decode(0).values,
      volume.values);
}

TEST(ImageStack, SubFoldersAreAVolumeEach) {
  const TemporaryFolder folder;
  for (const char* name : {"v2/0.png", "v2/1.png", "v10/0.png", "v10/1.png", "v10/2.png"})
    write_image(folder.path(name), {4, 6}, 3);
  write_bytes(folder.path("notes/readme.txt"), "no volume");
  const config::Model model = segmenter({2, 4, 6}, 3, 2);
  const auto reader = open_reader(source_of("image_stack", folder.path()), model);
  EXPECT_THAT(names(*reader, folder.path()), ElementsAre("v2", "v10"));
  EXPECT_THAT(reader->shape(0).sides, ElementsAre(2, 4, 6));
  EXPECT_THAT(reader->shape(1).sides, ElementsAre(3, 4, 6));
  EXPECT_EQ(open_reader(source_of("image_stack", folder.path("v*")), model)->size(), 2);
}

TEST(ImageStack, NamesWhatDoesNotFit) {
  const TemporaryFolder folder;
  for (const char* name : {"a/image/0.png", "a/image/1.png", "a/label/0.png"})
    write_image(folder.path(name), {4, 6}, 1);
  const config::Model model = segmenter({2, 4, 6}, 1, 2);
  const auto open = [&](const std::string& root, const std::string& labels) {
    return open_reader(source_of("image_stack", folder.path(root), labels), model);
  };
  EXPECT_THAT(
      data_error([&] { open("a/image", folder.path("a/label")); }),
      AllOf(HasSubstr("a/label: expected one mask for each of the 2"), HasSubstr("a/image")));
  EXPECT_THAT(data_error([&] { open("a/image", folder.path("a")); }),
              AllOf(HasSubstr("/a: expected one mask for each of the 1"), HasSubstr("found 2")));
  EXPECT_THAT(data_error([&] { open("nowhere", ""); }), HasSubstr("nowhere: holds no"));
  write_image(folder.path("a/image/1.png"), {6, 4}, 1);
  EXPECT_THAT(data_error([&] { open("a/image", "")->decode(0); }),
              AllOf(HasSubstr("image/1.png"), HasSubstr("image/0.png"), HasSubstr("6 x 4")));
  write_image(folder.path("a/image/1.png"), {4, 6}, 3);
  EXPECT_THAT(data_error([&] { open("a/image", "")->decode(0); }), HasSubstr("3 channel(s)"));
  EXPECT_THAT(
      message_of<core::ConfigError>([&] {
        open_reader(source_of("image_stack", folder.path("a/image")), segmenter({4, 6}, 1, 2));
      }),
      HasSubstr("set slices"));
}

TEST(Random, HasMasksForModelsThatSegmentOnly) {
  const auto reader = open_reader(test::random_source(8), segmenter({6, 5}, 1, 3));
  ASSERT_TRUE(reader->has_masks());
  std::vector<int64_t> seen(3);
  for (int64_t i = 0; i < 8; ++i) {
    const Mask mask = reader->decode_mask(i);
    EXPECT_THAT(mask.sides, ElementsAre(6, 5));
    for (const int32_t label : mask.classes) ++seen.at(static_cast<size_t>(label));
  }
  for (const int64_t n : seen)
    EXPECT_NEAR(static_cast<double>(n), 80, 30);  // 240 draws, 4 deviations
  EXPECT_NE(reader->decode_mask(0).classes, reader->decode_mask(1).classes);
  EXPECT_FALSE(open_reader(test::random_source(8), test::model_of({6, 5}, 1, 3))->has_masks());
}

}  // namespace
}  // namespace vitrail::data
