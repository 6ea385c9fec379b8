#include "vitrail/data/inspect.h"

#include <cmath>
#include <cstring>

#include <ATen/ops/equal.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "test_data.h"
#include "vitrail/data/dump.h"
#include "vitrail/io/safetensors.h"

namespace vitrail::data {
namespace {

using test::folder_source;
using test::model_of;
using testing::ElementsAre;
using testing::HasSubstr;

TEST(Inspect, CountsClassesShapesAndBrokenFiles) {
  const test::TemporaryFolder folder;
  test::write_image(folder.path("a/0.png"), {4, 4}, 3, 0);
  test::write_image(folder.path("a/1.png"), {4, 4}, 3, 1);
  test::write_image(folder.path("b/0.png"), {5, 4}, 1, 2);
  test::write_bytes(folder.path("b/1.png"), "broken");
  const SourceReport report =
      inspect(folder_source(folder.path()), model_of({4, 4}, 3, 2), /*workers=*/3, 1000);
  EXPECT_EQ(report.samples, 4);
  EXPECT_EQ(report.labels, (std::map<int64_t, int64_t>{{0, 2}, {1, 2}}));
  EXPECT_EQ(report.shapes,
            (std::map<std::string, int64_t>{{"4 x 4, 3 channels", 2}, {"5 x 4, 1 channel", 1}}));
  EXPECT_EQ(report.decoded, 3);
  ASSERT_EQ(report.broken.size(), 1u);
  EXPECT_THAT(report.broken[0], HasSubstr("b/1.png"));
  EXPECT_THAT(to_text(report), testing::AllOf(HasSubstr("2 classes"), HasSubstr("b/1.png"),
                                              HasSubstr("4 x 4, 3 channels: 2 of 3")));
}

TEST(Inspect, StatisticsAreThoseOfAllPixels) {
  const test::TemporaryFolder folder;
  double sum = 0, square = 0;
  for (uint64_t i = 0; i < 5; ++i) {
    test::write_image(folder.path("a/" + std::to_string(i) + ".png"), {7, 9}, 1, i);
    for (const uint8_t value : test::noise({7, 9}, 1, i).values) {
      sum += value / 255.0;
      square += value / 255.0 * (value / 255.0);
    }
  }
  const double mean = sum / (5 * 63), deviation = std::sqrt(square / (5 * 63) - mean * mean);
  for (const int64_t workers : {1, 4}) {
    const SourceReport report =
        inspect(folder_source(folder.path()), model_of({7, 9}, 1, 2), workers, 1000);
    EXPECT_NEAR(report.mean.at(0), mean, 1e-12);  // sums of a few hundred doubles
    EXPECT_NEAR(report.std.at(0), deviation, 1e-12);
  }
}

TEST(Inspect, DrawsAContactSheetThatLeavesBrokenFilesBlack) {
  const test::TemporaryFolder folder;
  for (uint64_t i = 0; i < 20; ++i)
    test::write_image(folder.path("a/" + std::to_string(10 + i) + ".png"), {64, 64}, 3, i);
  test::write_bytes(folder.path("a/30.png"), "broken");
  const config::Model model = model_of({64, 64}, 3, 2);
  const Pixels sheet = contact_sheet({folder_source(folder.path())}, model);
  EXPECT_THAT(sheet.sides, ElementsAre(2 * 66, 16 * 66));
  const auto pixel = [&](int64_t y, int64_t x) {
    return sheet.values[static_cast<size_t>((y * sheet.sides[1] + x) * 3)];
  };
  EXPECT_EQ(pixel(5, 66 + 7), test::noise({64, 64}, 3, 1).values[(5 * 64 + 7) * 3]);
  EXPECT_EQ(pixel(66 + 5, 4 * 66 + 7), 0) << "sample 20 is broken";
  write_contact_sheet({folder_source(folder.path())}, model, folder.path("sheet.png"));
  EXPECT_EQ(io::read_image(folder.path("sheet.png")).pixels, sheet.values);
}

TEST(Dump, RanksHoldPartsOfTheSameSequence) {
  std::vector<config::Source> sources = {test::random_source(30), test::random_source(20)};
  sources[0].augment = {"flip"};
  const config::Model model = model_of({6, 6}, 3, 10);
  LoaderOptions options;
  options.global_batch = 12;
  const int64_t count = 57;  // more than an epoch (4 batches), not a multiple of the batch
  const Dump whole = dump(sources, model, options, /*epoch=*/2, count);
  ASSERT_EQ(whole.image.sizes(), at::IntArrayRef({count, 3, 6, 6}));
  EXPECT_EQ(whole.origin.sizes(), at::IntArrayRef({count, 2}));
  for (int64_t i = 0; i < count; ++i)
    EXPECT_EQ(whole.source.const_data_ptr<int64_t>()[i],
              whole.index.const_data_ptr<int64_t>()[i] < 30 ? 0 : 1);
  for (const int64_t ranks : {2, 3, 12}) {
    std::vector<Dump> parts;
    int64_t total = 0;
    for (int64_t rank = 0; rank < ranks; ++rank) {
      options.data_rank = rank;
      options.data_ranks = ranks;
      parts.push_back(dump(sources, model, options, 2, count));
      total += parts.back().index.size(0);
    }
    EXPECT_EQ(total, count);
    const int64_t share = 12 / ranks;
    for (int64_t i = 0; i < count; ++i) {
      const Dump& part = parts[static_cast<size_t>(i % 12 / share)];
      const int64_t place = i / 12 * share + i % share;
      ASSERT_TRUE(at::equal(part.image[place], whole.image[i])) << ranks << " " << i;
      ASSERT_TRUE(at::equal(part.index[place], whole.index[i]));
    }
  }
}

TEST(Dump, OfARankPastTheCountIsEmpty) {
  LoaderOptions options;
  options.global_batch = 4;
  options.data_rank = 1;
  options.data_ranks = 2;
  const Dump part = dump({test::random_source(8)}, model_of({6, 6}, 3, 10), options, 0, 2);
  EXPECT_EQ(part.image.sizes(), at::IntArrayRef({0, 3, 6, 6}));
  EXPECT_EQ(part.index.size(0), 0);
}

TEST(Dump, WritesTheContractsNamesAndTypes) {
  const test::TemporaryFolder folder;
  const Dump whole =
      dump({test::random_source(70)}, model_of({6, 6}, 3, 10), LoaderOptions{}, 0, 5);
  write(whole, folder.path("x.safetensors"));
  const io::SafetensorsFile file = io::SafetensorsFile::open(folder.path("x.safetensors"));
  EXPECT_THAT(file.names(),
              testing::UnorderedElementsAre("image", "label", "index", "source", "origin"));
  EXPECT_EQ(file.info("image").shape, (std::vector<int64_t>{5, 3, 6, 6}));
  EXPECT_EQ(file.info("image").dtype, core::DType::f32);
  EXPECT_EQ(file.info("origin").dtype, core::DType::i64);
  EXPECT_EQ(std::memcmp(file.bytes("index").data(), whole.index.const_data_ptr(), 40), 0);
}

}  // namespace
}  // namespace vitrail::data
