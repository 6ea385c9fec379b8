#include <ATen/ops/equal.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "test_data.h"
#include "vitrail/core/error.h"
#include "vitrail/data/reader.h"
#include "vitrail/data/transform.h"

namespace vitrail::data {
namespace {

using test::folder_source;
using test::message_of;
using test::model_of;
using test::noise;
using test::TemporaryFolder;
using test::write_bytes;
using test::write_image;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

std::string open_error(const config::Source& source, const config::Model& model) {
  return message_of<core::DataError>([&] { open_reader(source, model); });
}

TEST(ImageFolder, LabelsFollowTheSortedFolderNamesAndFilesTheSortedPaths) {
  const TemporaryFolder folder;
  write_image(folder.path("zebra/b.png"), {4, 5}, 3);
  write_image(folder.path("zebra/a/deep.PNG"), {4, 5}, 3);
  write_image(folder.path("Ant/2.JPG"), {4, 5}, 3);
  write_image(folder.path("Ant/10.jpeg"), {4, 5}, 3);
  write_image(folder.path("bee/x.jpg"), {4, 5}, 3);
  write_image(folder.path("bee/.hidden.jpg"), {4, 5}, 3);
  write_image(folder.path("bee/.folder/y.jpg"), {4, 5}, 3);
  write_image(folder.path(".cache/y.jpg"), {4, 5}, 3);
  write_bytes(folder.path("bee/notes.txt"), "not an image");
  write_bytes(folder.path("readme.png"), "a file beside the classes");
  const auto reader = open_reader(folder_source(folder.path()), model_of({4, 5}, 3, 3));
  EXPECT_THAT(reader->class_names(), ElementsAre("Ant", "bee", "zebra"));
  std::vector<std::string> paths;
  std::vector<int64_t> labels;
  for (int64_t i = 0; i < reader->size(); ++i) {
    paths.push_back(std::filesystem::relative(reader->describe(i).path, folder.path()).string());
    labels.push_back(reader->describe(i).label);
  }
  EXPECT_THAT(paths, ElementsAre("Ant/10.jpeg", "Ant/2.JPG", "bee/x.jpg", "zebra/a/deep.PNG",
                                 "zebra/b.png"));
  EXPECT_THAT(labels, ElementsAre(0, 0, 1, 2, 2));
}

TEST(ImageFolder, ReadsGreyAndRgbInTheModelsChannels) {
  const TemporaryFolder folder;
  write_image(folder.path("a/0.png"), {4, 5}, 1, 0);
  write_image(folder.path("a/1.png"), {6, 3}, 3, 1);
  for (const int64_t channels : {1, 3}) {
    const auto reader = open_reader(folder_source(folder.path()), model_of({4, 5}, channels, 3));
    EXPECT_EQ(reader->shape(0).channels, 1);
    EXPECT_THAT(reader->shape(1).sides, ElementsAre(6, 3));
    const std::vector<Pixels> stored = {noise({4, 5}, 1, 0), noise({6, 3}, 3, 1)};
    for (int64_t i = 0; i < 2; ++i) {
      const Pixels expected = to_channels(stored[static_cast<size_t>(i)], channels, "");
      EXPECT_TRUE(at::equal(reader->read(i).image, to_tensor(expected)));
      EXPECT_EQ(reader->read(i).label, 0);
    }
  }
  const auto reader = open_reader(folder_source(folder.path()), model_of({4, 5}, 2, 3));
  EXPECT_THAT(message_of<core::DataError>([&] { reader->read(0); }),
              AllOf(HasSubstr("a/0.png"), HasSubstr("expected 2 channel(s)")));
}

TEST(ImageFolder, NamesWhatIsMissing) {
  const TemporaryFolder folder;
  const config::Model model = model_of({4, 5}, 3, 3);
  EXPECT_THAT(open_error(folder_source(folder.path("nowhere")), model),
              AllOf(HasSubstr("nowhere"), HasSubstr("no such folder")));
  EXPECT_THAT(open_error(folder_source(folder.path()), model), HasSubstr("one folder per class"));
  write_image(folder.path("full/0.png"), {4, 5}, 3);
  write_bytes(folder.path("hollow/notes.txt"), "");
  EXPECT_THAT(open_error(folder_source(folder.path()), model),
              AllOf(HasSubstr("/hollow"), HasSubstr("holds no .jpg, .jpeg or .png file")));
  EXPECT_THAT(open_error(folder_source(folder.path("full/0.png")), model),
              HasSubstr("no such folder"));
  EXPECT_THAT(message_of<core::ConfigError>([&] {
                open_reader(folder_source(folder.path()), model_of({4, 5, 6}, 3, 3));
              }),
              HasSubstr("model.image_size has 3"));
}

TEST(ImageFolder, NamesABrokenFile) {
  const TemporaryFolder folder;
  write_image(folder.path("a/good.jpg"), {16, 16}, 3);
  std::string bytes;
  {
    std::ifstream file(folder.path("a/good.jpg"), std::ios::binary);
    bytes.assign(std::istreambuf_iterator<char>(file), {});
  }
  write_bytes(folder.path("a/cut.jpg"), bytes.substr(0, bytes.size() / 2));
  write_bytes(folder.path("a/empty.png"), "");
  write_bytes(folder.path("a/text.jpeg"), "this is no image");
  std::filesystem::create_symlink("/nowhere/at/all.png", folder.path("a/zz_dangling.png"));
  const auto reader = open_reader(folder_source(folder.path()), model_of({16, 16}, 3, 3));
  ASSERT_EQ(reader->size(), 5);
  for (int64_t i = 0; i < 5; ++i) {
    const std::string path = reader->describe(i).path;
    const std::string message = message_of<core::DataError>([&] { reader->decode(i); });
    if (path.ends_with("good.jpg"))
      EXPECT_EQ(message, "");
    else
      EXPECT_THAT(message, HasSubstr(path));
  }
}

TEST(Split, TakesRatiosOfTheSortedListAndRefusesAnEmptyOne) {
  const TemporaryFolder folder;
  for (int i = 0; i < 7; ++i)
    write_image(folder.path("a/" + std::to_string(i) + ".png"), {4, 4}, 1, i);
  config::Source source = folder_source(folder.path());
  const config::Model model = model_of({4, 4}, 1, 3);
  const auto size = [&](double start, double end) {
    source.split = {start, end};
    return open_reader(source, model)->size();
  };
  EXPECT_EQ(size(0, 0.5) + size(0.5, 1), 7);  // llround(3.5) = 4 ends the one and starts the other
  EXPECT_EQ(size(0, 0.5), 4);
  EXPECT_EQ(size(0, 1), 7);
  source.split = {0.5, 0.51};
  EXPECT_THAT(open_error(source, model), HasSubstr("of 7 samples is empty"));
}

class DigitsFile : public testing::Test {
 protected:
  /// Row r: pixel p is (3 r + 5 p) mod 17, label r mod 10.
  static std::string row(int r, int pixels = 64) {
    std::string text;
    for (int p = 0; p < pixels; ++p) text += std::to_string((3 * r + 5 * p) % 17) + ",";
    return text + std::to_string(r % 10) + "\n";
  }
  config::Source source(const std::string& text) {
    test::write_gzip(folder_.path("digits.csv.gz"), text);
    config::Source result;
    result.reader.value = "digits";
    result.root = folder_.path("digits.csv.gz");
    return result;
  }
  TemporaryFolder folder_;
  config::Model model_ = model_of({8, 8}, 1, 10);
};

TEST_F(DigitsFile, GivesValuesOverSixteenAndTheLastColumnAsLabel) {
  config::Source file = source(row(0) + row(1) + row(12));
  for (const std::string& root : {folder_.path("digits.csv.gz"), folder_.path()}) {
    file.root = root;
    const auto reader = open_reader(file, model_);
    ASSERT_EQ(reader->size(), 3);
    const Sample sample = reader->read(2);
    EXPECT_EQ(sample.label, 2);
    ASSERT_EQ(sample.image.sizes(), at::IntArrayRef({1, 8, 8}));
    for (int p = 0; p < 64; ++p)
      EXPECT_EQ(sample.image.const_data_ptr<float>()[p], ((36 + 5 * p) % 17) / 16.0f);
    EXPECT_EQ(reader->class_names().size(), 10u);
  }
}

TEST_F(DigitsFile, NamesTheLineThatIsWrong) {
  EXPECT_THAT(open_error(source(row(0) + row(1) + row(2, 63)), model_),
              AllOf(HasSubstr("digits.csv.gz"), HasSubstr("3")));
  EXPECT_THAT(open_error(source(row(0, 10)), model_), HasSubstr("65 values"));
  EXPECT_THAT(open_error(source(""), model_), HasSubstr("empty"));
  EXPECT_THAT(open_error(source(row(0) + "17" + row(1).substr(1)), model_),
              HasSubstr("digits.csv.gz:2:1: expected a whole number from 0 to 16 but got 17"));
  EXPECT_THAT(open_error(source(row(0) + "0.5" + row(1).substr(1)), model_), HasSubstr("got 0.5"));
  config::Source missing = source(row(0));
  missing.root = folder_.path("other.csv.gz");
  EXPECT_THAT(open_error(missing, model_), HasSubstr("no such file"));
  write_bytes(folder_.path("other.csv.gz"), "not gzip");
  EXPECT_THAT(open_error(missing, model_), HasSubstr("other.csv.gz"));
}

}  // namespace
}  // namespace vitrail::data
