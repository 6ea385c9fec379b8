#include "vitrail/data/statistics.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <sstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "test_data.h"
#include "tests/io/python.h"
#include "vitrail/core/error.h"
#include "vitrail/data/inspect_values.h"
#include "vitrail/data/statistics_histogram.h"
#include "vitrail/data/value_range.h"
#include "vitrail/io/npy.h"

namespace vitrail::data {
namespace {

using test::message_of;
using test::model_of;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

uint64_t draw(uint64_t place) { return core::draw({7, core::Stream::test, 0, 0}, place, 0); }

/// What numpy says of the values, by stored_percents().
std::vector<double> numpy_percentiles(const std::vector<float>& values) {
  const test::TemporaryFolder folder;
  const std::vector<int64_t> shape{static_cast<int64_t>(values.size())};
  io::write_npy(folder.path("values.npy"), core::DType::f32, shape, values.data());
  std::string percents;
  for (const double percent : stored_percents()) percents += fmt::format("{}, ", percent);
  std::istringstream said(vitrail::testing::run_python(folder.path(), R"(
import numpy
values = numpy.load("values.npy").astype(numpy.float64)
for value in numpy.percentile(values, [)" + percents + R"(]):
    print(repr(float(value)))
)"));
  std::vector<double> result;
  for (double value = 0; said >> value;) result.push_back(value);
  return result;
}

/// Of the percentiles, the worst error as a share of the value.
double worst_error(const Histogram& histogram, const std::vector<float>& values) {
  const std::vector<double> truth = numpy_percentiles(values);
  const std::vector<double> found = histogram.percentiles(stored_percents());
  EXPECT_EQ(truth.size(), found.size());
  double worst = 0;
  for (size_t i = 0; i < truth.size() && i < found.size(); ++i)
    if (found[i] != truth[i])
      worst = std::max(worst, std::abs(found[i] - truth[i]) / std::abs(truth[i]));
  return worst;
}

Histogram histogram_of(const std::vector<float>& values) {
  Histogram histogram;
  for (const float value : values) histogram.add(value);
  return histogram;
}

/// Box-Muller, with a few values at zero as backgrounds have them.
std::vector<float> normal_values(size_t count) {
  std::vector<float> values;
  for (size_t i = 0; i < count; ++i) {
    const double u = (static_cast<double>(draw(2 * i)) + 1) / 4294967297.0;
    const double v = static_cast<double>(draw(2 * i + 1)) / 4294967296.0;
    values.push_back(i % 10 == 0 ? 0.0f
                                 : static_cast<float>(std::sqrt(-2 * std::log(u)) *
                                                      std::cos(6.283185307179586 * v)));
  }
  return values;
}

TEST(Histogram, IsExactForAllValuesOfSixteenBits) {
  std::vector<float> values;
  for (uint64_t i = 0; i < 300'000; ++i)
    values.push_back(static_cast<float>(i < 65'536 ? i : draw(i) % 65'536) - 32'768.0f);
  const Histogram histogram = histogram_of(values);
  EXPECT_EQ(histogram.error(), 0);
  // numpy interpolates in another order of operations: the last bits differ.
  EXPECT_LT(worst_error(histogram, values), 1e-12);
}

TEST(Histogram, KeepsItsErrorForAMillionDifferentFloats) {
  const std::vector<float> values = normal_values(1'000'000);
  const Histogram histogram = histogram_of(values);
  const double worst = worst_error(histogram, values);
  std::printf("normal values: worst error %.3g of the value, stated %.3g\n", worst,
              histogram.error());
  EXPECT_GT(histogram.error(), 0);
  EXPECT_LE(histogram.error(), std::ldexp(1.0, -11));
  EXPECT_LE(worst, histogram.error());
}

TEST(Histogram, KeepsItsErrorOverAllFloatsThereAre) {
  std::vector<float> values;
  for (uint64_t i = 0; values.size() < 400'000; ++i) {
    const auto value = std::bit_cast<float>(static_cast<uint32_t>(draw(i)));
    if (std::isfinite(value) && std::abs(value) > 1e-37f) values.push_back(value);
  }
  const Histogram histogram = histogram_of(values);
  const double worst = worst_error(histogram, values);
  std::printf("all floats: worst error %.3g of the value, stated %.3g\n", worst, histogram.error());
  EXPECT_LE(histogram.error(), std::ldexp(1.0, -7));
  // Between two neighbouring values of such a spread numpy interpolates over whole octaves.
  EXPECT_LE(worst, histogram.error());
}

TEST(Histogram, DependsNeitherOnOrderNorOnParts) {
  const std::vector<float> values = normal_values(400'000);
  const Histogram whole = histogram_of(values);
  for (const size_t parts : {2, 7}) {
    Histogram merged;
    for (size_t part = parts; part-- > 0;) {
      Histogram own;
      for (size_t i = values.size(); i-- > 0;)
        if (i % parts == part) own.add(values[i]);
      merged.merge(own);
    }
    EXPECT_EQ(merged.count(), whole.count());
    EXPECT_EQ(merged.error(), whole.error());
    EXPECT_EQ(merged.percentiles(stored_percents()), whole.percentiles(stored_percents()));
  }
}

TEST(Histogram, TakesZeroOfEitherSignForOneValue) {
  Histogram histogram;
  histogram.add(-0.0f);
  histogram.add(0.0f, 3);
  EXPECT_EQ(histogram.bins().size(), 1u);
  EXPECT_EQ(histogram.count(), 4);
  const std::vector<double> half{50.0};
  EXPECT_THAT(histogram.percentiles(half), ElementsAre(0.0));
  EXPECT_TRUE(Histogram().percentiles(half).empty());
}

TEST(Moments, OfPartsAreThoseOfTheWhole) {
  std::vector<float> values = normal_values(10'000);
  for (float& value : values) value += 1e4f;  // a sum of squares would lose eight digits
  double mean = 0, squares = 0;
  for (const float value : values) mean += value / static_cast<double>(values.size());
  for (const float value : values) squares += (value - mean) * (value - mean);
  const double std = std::sqrt(squares / static_cast<double>(values.size()));
  Moments parts = moments_of(std::span(values).first(3'333));
  parts.merge(moments_of(std::span(values).subspan(3'333)));
  for (const Moments& moments : {moments_of(values), parts}) {
    EXPECT_NEAR(moments.mean, mean, 1e-8);  // 1e4 with 16 digits, ten thousand of them
    EXPECT_NEAR(moments.std(), std, 1e-10);
    EXPECT_EQ(moments.min, *std::min_element(values.begin(), values.end()));
    EXPECT_EQ(moments.max, *std::max_element(values.begin(), values.end()));
  }
}

TEST(Boxes, CoverAnImageOnceInWholeChunks) {
  const std::vector<int64_t> sides{50, 130, 70};
  for (const std::vector<int64_t>& chunk :
       std::vector<std::vector<int64_t>>{{}, {16, 32, 32}, {64, 200, 70}, {1, 130, 70}}) {
    std::vector<int> seen(static_cast<size_t>(count(sides)));
    for (const Box& box : boxes_of(sides, chunk, 40'000)) {
      if (count(chunk.empty() ? std::vector<int64_t>{1} : chunk) < 40'000) {
        EXPECT_LE(count(box.sides), 40'000);
      }
      for (size_t axis = 0; axis < chunk.size(); ++axis)
        EXPECT_EQ(box.origin[axis] % chunk[axis], 0);
      for (int64_t z = 0; z < box.sides[0]; ++z)
        for (int64_t y = 0; y < box.sides[1]; ++y)
          for (int64_t x = 0; x < box.sides[2]; ++x)
            ++seen[static_cast<size_t>(((box.origin[0] + z) * sides[1] + box.origin[1] + y) *
                                           sides[2] +
                                       box.origin[2] + x)];
    }
    EXPECT_THAT(seen, ::testing::Each(1));
  }
}

std::vector<float> repeated_values() {
  const std::vector<float> some = normal_values(250'001);
  std::vector<float> values;
  while (values.size() < 2 * 70 * 250 * 250) values.insert(values.end(), some.begin(), some.end());
  values.resize(2 * 70 * 250 * 250);
  return values;
}

const std::vector<int64_t> kSides{70, 250, 250};  // more than is read at once

/// Volumes of two channels in memory; one of them may be broken in the middle.
class Volumes : public Reader {
 public:
  explicit Volumes(bool boxes, int64_t broken = -1)
      : Reader(2), boxes_(boxes), broken_(broken), values_(repeated_values()) {}
  int64_t size() const override { return 3; }
  SampleInfo describe(int64_t i) const override { return {fmt::format("volume{}", i)}; }
  Shape shape(int64_t) const override { return {kSides, 2}; }
  bool reads_boxes() const override { return boxes_; }
  std::vector<int64_t> chunk_sides(int64_t) const override { return {64, 64, 64}; }
  Pixels decode(int64_t i) const override {
    VT_REQUIRE(DataError, i != broken_, "[data] volume{}: broken", i);
    Pixels pixels{kSides, 2, {}, values_, 1.0f};
    for (float& value : pixels.floats) value += static_cast<float>(i);
    pixels.floats[17] = std::numeric_limits<float>::quiet_NaN();
    return pixels;
  }
  Pixels decode_box(int64_t i, const Box& box) const override {
    VT_REQUIRE(DataError, i != broken_ || box.origin[0] == 0, "[data] volume{}: broken", i);
    Pixels pixels{box.sides, 2, {}, {}, 1.0f};
    for (int64_t z = 0; z < box.sides[0]; ++z)
      for (int64_t y = 0; y < box.sides[1]; ++y)
        for (int64_t x = 0; x < box.sides[2]; ++x)
          for (int64_t c = 0; c < 2; ++c) {
            const int64_t at = (((box.origin[0] + z) * kSides[1] + box.origin[1] + y) * kSides[2] +
                                box.origin[2] + x) *
                                   2 +
                               c;
            pixels.floats.push_back(at == 17
                                        ? std::numeric_limits<float>::quiet_NaN()
                                        : values_[static_cast<size_t>(at)] + static_cast<float>(i));
          }
    return pixels;
  }

 private:
  bool boxes_;
  int64_t broken_;
  std::vector<float> values_;
};

config::Source source_of(const std::string& normalize) {
  config::Source source;
  source.normalize.value = normalize;
  source.percentile = {1, 99};
  return source;
}

TEST(Statistics, OfBoxesAreThoseOfWholeFiles) {
  const config::Model model = model_of(kSides, 2, 2);
  const ValuesReport whole = read_values(Volumes(false), source_of("percentile"), model, 1, 2, {});
  const ValuesReport boxes = read_values(Volumes(true), source_of("percentile"), model, 2, 2, {});
  ASSERT_EQ(boxes.statistics.raw.size(), 2u);
  EXPECT_EQ(boxes.statistics.files, 2);
  EXPECT_EQ(boxes.statistics.pixels, 2 * count(kSides));
  EXPECT_EQ(boxes.statistics.not_finite, 2);
  for (size_t c = 0; c < 2; ++c) {
    EXPECT_EQ(whole.statistics.raw[c].percentiles, boxes.statistics.raw[c].percentiles);
    EXPECT_EQ(whole.statistics.normalized[c].percentiles,
              boxes.statistics.normalized[c].percentiles);
    EXPECT_NEAR(whole.statistics.raw[c].mean, boxes.statistics.raw[c].mean, 1e-12);
    EXPECT_NEAR(whole.statistics.raw[c].std, boxes.statistics.raw[c].std, 1e-12);
    EXPECT_EQ(boxes.statistics.normalized[c].min, 0);
    EXPECT_EQ(boxes.statistics.normalized[c].max, 1);
  }
}

TEST(Statistics, LeaveOutAFileOfWhichAPartIsBroken) {
  const config::Model model = model_of(kSides, 2, 2);
  const ValuesReport report = read_values(Volumes(true, 1), source_of("unit"), model, 2, 2, {});
  const ValuesReport first = read_values(Volumes(true), source_of("unit"), model, 2, 1, {});
  EXPECT_EQ(report.statistics.files, 1);
  EXPECT_THAT(report.broken, ElementsAre(::testing::Pair(1, HasSubstr("volume1"))));
  EXPECT_EQ(report.statistics.raw[1].percentiles, first.statistics.raw[1].percentiles);
  EXPECT_EQ(report.statistics.raw[1].mean, first.statistics.raw[1].mean);
}

/// A folder of grey images, dark ones and bright ones.
config::Source grey_images(const test::TemporaryFolder& folder, int64_t files) {
  for (int64_t i = 0; i < files; ++i) {
    std::vector<uint8_t> values(8 * 8);
    for (size_t p = 0; p < values.size(); ++p)
      values[p] = static_cast<uint8_t>(10 + draw(static_cast<uint64_t>(i) * 64 + p) % 30 +
                                       static_cast<uint64_t>(i) % 7 * 20);
    test::write_grey(folder.path(fmt::format("images/{}.png", i)), {8, 8}, values);
  }
  return test::source_of("images", folder.path("images"));
}

StatisticsFile file_of(const config::Source& source, const config::Model& model, int64_t workers) {
  const std::unique_ptr<Reader> reader = open_reader(source, model);
  return {{source_name(source), read_values(*reader, source, model, workers, 1000, {}).statistics}};
}

TEST(Statistics, DoNotDependOnTheNumberOfThreads) {
  const test::TemporaryFolder folder;
  config::Source source = grey_images(folder, 50);
  for (const char* normalize : {"unit", "minmax", "percentile", "none"}) {
    source.normalize.value = normalize;
    source.percentile = {2, 98};
    const std::string one = statistics_json(file_of(source, model_of({8, 8}, 1, 2), 1));
    for (const int64_t workers : {2, 5})
      EXPECT_EQ(statistics_json(file_of(source, model_of({8, 8}, 1, 2), workers)), one);
  }
}

TEST(Statistics, ComeBackAsWritten) {
  const test::TemporaryFolder folder;
  config::Source source = grey_images(folder, 9);
  const StatisticsFile file = file_of(source, model_of({8, 8}, 1, 2), 1);
  write_statistics(file, folder.path("s.json"));
  source.statistics = folder.path("s.json");
  const SourceStatistics read = read_statistics(source);
  EXPECT_EQ(statistics_json({{"images", read}}), statistics_json(file));
  EXPECT_EQ(read.full_scale, 255);
  EXPECT_EQ(read.percentile_error, 0);
  source.name = "another";  // the only entry stands for any name
  EXPECT_EQ(read_statistics(source).files, 9);
}

TEST(Statistics, GiveTheMeanAndStdOfWhatNormalizeMakes) {
  const test::TemporaryFolder folder;
  config::Source source = grey_images(folder, 40);
  const config::Model model = model_of({8, 8}, 1, 2);
  write_statistics(file_of(source, model, 1), folder.path("s.json"));
  for (const char* normalize : {"unit", "none", "minmax", "percentile"}) {
    config::Source with = source;
    with.statistics = folder.path("s.json");
    with.normalize.value = normalize;
    with.percentile = {2.5, 97};
    const NormalizeValues values = normalize_values(with, 1);
    const ChannelStatistics truth = file_of(with, model, 1)[0].second.normalized[0];
    // A percentile's line between stored ones runs through the steps of the 150 grey levels.
    const double tolerance = std::string(normalize) == "percentile" ? 0.003 : 1e-9;
    EXPECT_NEAR(values.mean[0], truth.mean, tolerance * std::max(1.0, truth.mean)) << normalize;
    EXPECT_NEAR(values.std[0], truth.std, tolerance * std::max(1.0, truth.std)) << normalize;
    with.mean = {0.25};
    EXPECT_EQ(normalize_values(with, 1).mean[0], 0.25);
    EXPECT_EQ(normalize_values(with, 1).std[0], values.std[0]);
  }
}

TEST(Statistics, GiveTheRangeOfTheDataAsAWhole) {
  const test::TemporaryFolder folder;
  config::Source source = grey_images(folder, 40);
  const StatisticsFile file = file_of(source, model_of({8, 8}, 1, 2), 1);
  write_statistics(file, folder.path("s.json"));
  const ChannelStatistics& raw = file[0].second.raw[0];
  Pixels part{{1, 1}, 1, {77}, {}, 255.0f};
  source.normalize.value = "minmax";
  EXPECT_TRUE(RangeRule(source).needs_whole_file());
  source.statistics = folder.path("s.json");
  EXPECT_FALSE(RangeRule(source).needs_whole_file());
  ValueRange range = RangeRule(source).of(part);
  EXPECT_EQ(range.low[0], static_cast<float>(raw.min));
  EXPECT_EQ(range.span[0], static_cast<float>(raw.max - raw.min));
  EXPECT_FALSE(range.clips);
  source.normalize.value = "percentile";
  source.percentile = {5, 99.25};  // the second one is not stored
  range = RangeRule(source).of(part);
  EXPECT_EQ(range.low[0], static_cast<float>(raw.percentile(5)));
  EXPECT_EQ(range.low[0] + range.span[0],
            static_cast<float>((raw.percentile(99) + raw.percentile(99.5)) / 2));
  EXPECT_TRUE(range.clips);
  source.normalize.value = "unit";
  EXPECT_EQ(RangeRule(source).of(part).span[0], 255);
}

TEST(Statistics, FollowTheNamesOfTheVariables) {
  const test::TemporaryFolder folder;
  SourceStatistics statistics;
  statistics.variables = {"t2m", "u10", "v10"};
  statistics.full_scale = 1;
  for (int c = 0; c < 3; ++c) {
    ChannelStatistics channel{c + 1.0, c + 0.5, -1.0, 9.0, {}};
    channel.percentiles.assign(stored_percents().size(), c);
    statistics.raw.push_back(channel);
  }
  statistics.normalized = statistics.raw;
  write_statistics({{"a", statistics}, {"b", statistics}}, folder.path("s.json"));
  config::Source source;
  source.name = "b";
  source.statistics = folder.path("s.json");
  source.variables = {"v10", "t2m"};
  EXPECT_THAT(normalize_values(source, 2).mean, ElementsAre(3.0, 1.0));
  EXPECT_THAT(normalize_values(source, 2).std, ElementsAre(2.5, 0.5));
  source.variables = {"sst"};
  EXPECT_THAT(message_of<core::DataError>([&] { normalize_values(source, 1); }),
              ::testing::AllOf(HasSubstr("'sst'"), HasSubstr("s.json"), HasSubstr("u10")));
  source.variables = {};
  EXPECT_THAT(message_of<core::DataError>([&] { normalize_values(source, 4); }),
              ::testing::AllOf(HasSubstr("3 channel(s)"), HasSubstr("has 4")));
  source.name = "c";
  EXPECT_THAT(message_of<core::DataError>([&] { normalize_values(source, 3); }),
              ::testing::AllOf(HasSubstr("named 'c'"), HasSubstr("those of a, b")));
}

TEST(Statistics, DefaultToAHalfOrToNothing) {
  config::Source source;
  EXPECT_THAT(normalize_values(source, 2).mean, ElementsAre(0.5, 0.5));
  source.normalize.value = "none";
  EXPECT_THAT(normalize_values(source, 2).mean, ElementsAre(0.0, 0.0));
  EXPECT_THAT(normalize_values(source, 2).std, ElementsAre(1.0, 1.0));
  source.std = {1, 2, 3};
  EXPECT_THAT(message_of<core::ConfigError>([&] { normalize_values(source, 2); }),
              HasSubstr("std must have 1 or 2"));
  source.std = {0};
  EXPECT_THAT(message_of<core::ConfigError>([&] { normalize_values(source, 2); }),
              HasSubstr("std must be above zero"));
}

TEST(Statistics, RefuseFilesThatAreNoStatistics) {
  const test::TemporaryFolder folder;
  const config::Source source = grey_images(folder, 3);
  const std::string good = statistics_json(file_of(source, model_of({8, 8}, 1, 2), 1));
  EXPECT_EQ(parse_statistics(good, "fuzzed").size(), 1u);
  const auto with = [&](const std::string& from, const std::string& to) {
    std::string text = good;
    const size_t at = text.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    return at == std::string::npos ? text : text.replace(at, from.size(), to);
  };
  for (const std::string& text :
       {std::string(), std::string("[]"), std::string("{\"format\": 3}"), good.substr(0, 900),
        with("statistics 1", "statistics 9"), with("\"raw\"", "\"row\""),
        with("\"files\": 3", "\"files\": \"x\""),
        with("\"full_scale\": 255.0", "\"full_scale\": null"), with("0.001", "0.5")}) {
    const std::string message =
        message_of<core::DataError>([&] { parse_statistics(text, "fuzzed"); });
    EXPECT_THAT(message, HasSubstr("[data] fuzzed: is not a statistics file"))
        << text.substr(0, 60);
  }
  EXPECT_THAT(message_of<core::ConfigError>([&] {
                const SourceStatistics entry = parse_statistics(good, "x")[0].second;
                statistics_json({{"a", entry}, {"a", entry}});
              }),
              HasSubstr("two sources are named 'a'"));
}

}  // namespace
}  // namespace vitrail::data
