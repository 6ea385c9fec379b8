#include "vitrail/data/split.h"

#include <algorithm>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "test_data.h"
#include "vitrail/core/error.h"
#include "vitrail/data/reader.h"

namespace vitrail::data {
namespace {

using test::message_of;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

TEST(SplitName, IsThePathRelativeToTheRoot) {
  EXPECT_EQ(split_name("/data/train", "/data/train/a/0.png"), "a/0.png");
  EXPECT_EQ(split_name("/data/train/", "/data/train/a/0.png"), "a/0.png");
  EXPECT_EQ(split_name("/data/x.npy", "/data/x.npy#3"), "x.npy#3");
  EXPECT_EQ(split_name("/data/*/x?.npy", "/data/b/x1.npy#3"), "b/x1.npy#3");
  EXPECT_EQ(split_name("/data/list.csv", "/data/images/1.png"), "images/1.png");
  EXPECT_EQ(split_name("/data/list.csv", "/other/1.png"), "/other/1.png");
  EXPECT_EQ(split_name("40", "random/7"), "random/7");
}

TEST(SplitUnit, IsUniformAndDependsOnNameAndNumber) {
  // Written-out values, so that a split of today is that of tomorrow.
  EXPECT_EQ(split_unit("a/0.png", 1), 0.4507693151055636);
  EXPECT_EQ(split_unit("a/0.png", 2), 0.3870030950416402);
  std::vector<int64_t> bins(10, 0);
  constexpr int64_t kSamples = 20'000;
  for (int64_t i = 0; i < kSamples; ++i) {
    const double unit = split_unit(fmt::format("class/{:05}.jpg", i), 7);
    ASSERT_GE(unit, 0);
    ASSERT_LT(unit, 1);
    ++bins[static_cast<size_t>(unit * 10)];
  }
  // Binomial(20000, 1/10): mean 2000, standard deviation 42; 5 of them.
  for (const int64_t n : bins) EXPECT_NEAR(static_cast<double>(n), 2000, 212);
}

class Splits : public testing::Test {
 protected:
  void SetUp() override {
    for (int64_t i = 0; i < 200; ++i) write(i);
    source_ = test::folder_source(folder_.path("set"));
  }
  void write(int64_t i) {
    test::write_image(folder_.path(fmt::format("set/{}/{:03}.png", i % 2 == 0 ? "a" : "b", i)),
                      {2, 2}, 3);
  }
  std::vector<std::string> names(const config::Source& source) const {
    const std::unique_ptr<Reader> reader = open_reader(source, test::model_of({2, 2}, 3, 2));
    std::vector<std::string> result;
    for (int64_t i = 0; i < reader->size(); ++i)
      result.push_back(split_name(source.root, reader->describe(i).path));
    return result;
  }
  config::Source part(const std::string& name, int64_t number = 3) const {
    config::Source source = source_;
    source.split_hash = number;
    source.split_part.value = name;
    return source;
  }
  template <class Kind>
  std::string error(const config::Source& source) const {
    return message_of<Kind>([&] { names(source); });
  }
  test::TemporaryFolder folder_;
  config::Source source_;
};

TEST_F(Splits, ByHashMeetNowhereAndLoseNothing) {
  std::vector<std::string> all = names(part("all"));
  EXPECT_EQ(all.size(), 200u);
  std::vector<std::string> joined;
  for (const char* name : {"train", "val", "test"}) {
    const std::vector<std::string> found = names(part(name));
    EXPECT_TRUE(std::is_sorted(found.begin(), found.end())) << "in the order of the list";
    joined.insert(joined.end(), found.begin(), found.end());
  }
  std::sort(joined.begin(), joined.end());
  EXPECT_EQ(joined, all);
  // Binomial(200, 0.8): standard deviation 5.7; 5 of them.
  EXPECT_NEAR(static_cast<double>(names(part("train")).size()), 160, 28);
  EXPECT_NE(names(part("val", 3)), names(part("val", 4)));
}

TEST_F(Splits, ByHashKeepASampleOnItsSideWhenOthersCome) {
  const std::vector<std::string> before = names(part("val"));
  for (int64_t i = 200; i < 260; ++i) write(i);
  const std::vector<std::string> after = names(part("val"));
  EXPECT_TRUE(std::includes(after.begin(), after.end(), before.begin(), before.end()));
  EXPECT_GT(after.size(), before.size());
}

TEST_F(Splits, ByHashTakeAnyRange) {
  config::Source low = source_, high = source_;
  low.split_hash = high.split_hash = 5;
  low.split = {0, 0.25};
  high.split = {0.25, 1};
  const std::vector<std::string> first = names(low), second = names(high);
  EXPECT_EQ(first.size() + second.size(), 200u);
  // Binomial(200, 0.25): standard deviation 6.1; 5 of them.
  EXPECT_NEAR(static_cast<double>(first.size()), 50, 31);
}

TEST_F(Splits, ByListTakePathsAndNumbersInTheOrderOfTheSortedList) {
  config::Source source = source_;
  source.split_list = folder_.path("list.txt");
  // Place 1 of the sorted list is a/002.png; places from 100 on are of b.
  test::write_bytes(source.split_list,
                    "b/003.png\r\n1\n\na/000.png\n" + folder_.path("set/b/001.png") + "\n199");
  EXPECT_THAT(names(source),
              ElementsAre("a/000.png", "a/002.png", "b/001.png", "b/003.png", "b/199.png"));
}

TEST_F(Splits, ByListNameTheLineThatIsWrong) {
  config::Source source = source_;
  source.split_list = folder_.path("list.txt");
  test::write_bytes(source.split_list, "a/000.png\na/999.png\n");
  EXPECT_THAT(error<core::DataError>(source),
              AllOf(HasSubstr("list.txt:2: 'a/999.png'"), HasSubstr("200 samples")));
  test::write_bytes(source.split_list, "200\n");
  EXPECT_THAT(error<core::DataError>(source), HasSubstr("list.txt:1: '200'"));
  test::write_bytes(source.split_list, "-1\n");
  EXPECT_THAT(error<core::DataError>(source), HasSubstr("list.txt:1: '-1'"));
  test::write_bytes(source.split_list, "0\na/002.png\na/000.png\n");
  EXPECT_THAT(error<core::DataError>(source), HasSubstr("list.txt:3: 'a/000.png' names the sample "
                                                        "of line 1 again"));
  test::write_bytes(source.split_list, "\n");
  EXPECT_THAT(error<core::DataError>(source), HasSubstr("names no sample"));
  source.split_list = folder_.path("missing.txt");
  EXPECT_THAT(error<core::DataError>(source), HasSubstr("missing.txt"));
}

TEST_F(Splits, RefuseKeysThatExcludeEachOther) {
  config::Source source = part("val");
  source.split = {0, 0.5};
  EXPECT_THAT(error<core::ConfigError>(source), HasSubstr("split_part val and split exclude"));
  source = source_;
  source.split_part.value = "train";
  EXPECT_THAT(error<core::ConfigError>(source), HasSubstr("split_part train needs split_hash"));
  source = source_;
  source.split_list = "x.txt";
  source.split = {0, 0.5};
  EXPECT_THAT(error<core::ConfigError>(source), HasSubstr("split_list excludes"));
  source.split.clear();
  source.split_hash = 1;
  EXPECT_THAT(error<core::ConfigError>(source), HasSubstr("split_list excludes"));
  source = source_;
  source.split_hash = 1;
  source.split = {0.5, 0.4};
  EXPECT_THAT(error<core::ConfigError>(source), HasSubstr("0 <= start < end <= 1"));
  source.split = {0.5, 0.5 + 1e-9};
  EXPECT_THAT(error<core::DataError>(source), HasSubstr("none of its 200 samples"));
}

TEST(StackSplits, ByHashAreOfWholeStacksAndByRatioOfSlices) {
  const test::TemporaryFolder folder;
  for (int64_t stack = 0; stack < 12; ++stack)
    for (int64_t z = 0; z < 4; ++z)
      test::write_image(folder.path(fmt::format("{:02}/{}.png", stack, z)), {2, 2}, 1);
  config::Source source = test::source_of("image_stack", folder.path());
  const config::Model model = test::model_of({4, 2, 2}, 1, 2);
  source.split = {0, 0.5};
  std::unique_ptr<Reader> reader = open_reader(source, model);
  EXPECT_EQ(reader->size(), 12);
  EXPECT_THAT(reader->shape(0).sides, ElementsAre(2, 2, 2));
  source.split_hash = 2;
  reader = open_reader(source, model);
  EXPECT_LT(reader->size(), 12);
  EXPECT_THAT(reader->shape(0).sides, ElementsAre(4, 2, 2));
}

}  // namespace
}  // namespace vitrail::data
