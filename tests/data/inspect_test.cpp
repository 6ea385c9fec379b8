#include "vitrail/data/inspect.h"

#include <cmath>
#include <cstring>

#include <ATen/ops/equal.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "test_data.h"
#include "vitrail/data/dump.h"
#include "vitrail/io/safetensors.h"
#include <nlohmann/json.hpp>

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
  EXPECT_EQ(report.statistics.files, 3);
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
    EXPECT_NEAR(report.statistics.normalized.at(0).mean, mean,
                1e-12);  // sums of a few hundred doubles
    EXPECT_NEAR(report.statistics.normalized.at(0).std, deviation, 1e-12);
  }
}

/// A picture with two boxes in each of its two images.
void write_voc(const test::TemporaryFolder& folder) {
  for (const char* name : {"a", "b"}) {
    test::write_grey(folder.path(std::string("JPEGImages/") + name + ".png"), {128, 64},
                     std::vector<uint8_t>(128 * 64, 100));
    test::write_bytes(
        folder.path(std::string("Annotations/") + name + ".xml"),
        std::string("<annotation><filename>") + name +
            ".png</filename><size><width>64</width><height>128</height><depth>1</depth></size>"
            "<object><name>cell</name><bndbox><xmin>9</xmin><ymin>33</ymin><xmax>24</xmax>"
            "<ymax>64</ymax></bndbox></object></annotation>");
  }
}

TEST(Inspect, CountsAndOutlinesBoxes) {
  const test::TemporaryFolder folder;
  write_voc(folder);
  const config::Source source = test::source_of("voc", folder.path());
  const config::Model model = model_of({64, 64}, 1, 2);
  const SourceReport report = inspect(source, model, 1, 1000);
  EXPECT_EQ(report.boxes, (std::map<int64_t, int64_t>{{0, 2}}));
  EXPECT_EQ(report.max_boxes, 1);
  EXPECT_THAT(to_text(report), testing::AllOf(HasSubstr("cell"), HasSubstr("2 boxes"),
                                              HasSubstr("at most 1 boxes an image")));
  const Pixels sheet = contact_sheet({source}, model);
  const auto pixel = [&](int64_t y, int64_t x) {
    return sheet.values[static_cast<size_t>((y * sheet.sides[1] + 66 + x) * 3)];
  };
  // x 8..24 of 64 and y 32..64 of 128 fall on cells 8..23 and 16..31.
  for (const int64_t x : {8, 15, 23}) {
    EXPECT_NE(pixel(16, x), 100) << x;
    EXPECT_NE(pixel(31, x), 100) << x;
  }
  EXPECT_NE(pixel(20, 8), 100);
  EXPECT_NE(pixel(20, 23), 100);
  EXPECT_EQ(pixel(20, 15), 100);
  EXPECT_EQ(pixel(15, 15), 100);
  EXPECT_EQ(pixel(32, 15), 100);
  EXPECT_EQ(pixel(20, 24), 100);
}

TEST(Inspect, PrintsTheReportForPrograms) {
  const test::TemporaryFolder folder;
  test::write_grey(folder.path("a/0.png"), {1, 4}, {0, 10, 20, 255});
  test::write_bytes(folder.path("a/1.png"), "broken");
  const SourceReport report =
      inspect(folder_source(folder.path()), model_of({1, 4}, 1, 2), /*workers=*/1, 1000);
  const auto json = nlohmann::json::parse(to_json({{"data", report}}));
  const auto& source = json.at("data").at(0);
  EXPECT_EQ(source.at("files"), 2);
  EXPECT_EQ(source.at("decoded"), 1);
  EXPECT_EQ(source.at("raw").at(0).at("percentiles").at("50"), 15.0);
  EXPECT_EQ(source.at("raw").at(0).at("max"), 255.0);
  EXPECT_NEAR(source.at("normalized").at(0).at("percentiles").at("50").get<double>(), 15.0 / 255,
              1e-7);  // floats
  EXPECT_EQ(source.at("broken").size(), 1u);
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
