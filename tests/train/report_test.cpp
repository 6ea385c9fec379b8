#include "vitrail/train/report.h"

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "vitrail/core/error.h"
#include "vitrail/train/pictures.h"
#include "vitrail/train/report_data.h"
#include "vitrail/train/report_samples.h"
#include "vitrail/train/report_svg.h"
#include "vitrail/train/sinks.h"
#include <nlohmann/json.hpp>

namespace vitrail::train {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::Not;

std::string text_of(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream out;
  out << in.rdbuf();
  return out.str();
}

class Report : public testing::Test {
 protected:
  void SetUp() override {
    // VITRAIL_KEEP names a folder that stays, to look at the pages.
    const char* keep = std::getenv("VITRAIL_KEEP");
    keep_ = keep != nullptr;
    folder_ = keep_ ? fs::path(keep)
                    : fs::temp_directory_path() / fmt::format("vitrail-report-{}", ::getpid());
    fs::create_directories(folder_);
  }
  void TearDown() override {
    if (!keep_) fs::remove_all(folder_);
  }

  /// What training leaves behind, with made-up numbers.
  std::string make_run(const std::string& name, double speed, bool finished = true) const {
    const fs::path run = folder_ / name;
    fs::remove_all(run);
    fs::create_directories(run);
    std::ofstream(run / "recipe.yaml")
        << "run:\n  name: " << name << "\ntrain:\n  optimizer:\n    lr: " << speed << "\n";
    auto sink = jsonl_sink((run / "metrics.jsonl").string());
    for (int64_t step = 1; step <= 300; ++step) {
      StepRecord record;
      record.step = step;
      record.loss = 2.3 * std::exp(-speed * static_cast<double>(step)) + 0.1 +
                    0.05 * std::sin(static_cast<double>(step * step));
      record.lr = 1e-3 * 0.5 * (1 + std::cos(static_cast<double>(step) / 300 * 3.14159));
      record.grad_norm = 1 + 0.2 * std::sin(static_cast<double>(step));
      record.images_per_second = 48000 + 900 * std::sin(static_cast<double>(step) / 9);
      record.step_ms = 5;
      record.data_wait_ms = 0.02 + 0.01 * std::sin(static_cast<double>(step));
      sink->step(record);
      if (step % 30 == 0)
        sink->evaluation({step,
                          step / 30.0,
                          "digits",
                          360,
                          {{"accuracy", 1 - 0.9 * std::exp(-speed * static_cast<double>(step))},
                           {"top5_accuracy", 0.999},
                           {"loss", record.loss + 0.05}},
                          0.2});
    }
    append_history(run.string(),
                   {"2026-11-21T09:00:00Z", 0, "vitrail train x.yaml", "node07", "0.1.0 (abc)", 1});
    append_history(run.string(), {"2026-11-21T09:10:00Z", 120, "vitrail train x.yaml", "node07",
                                  "0.1.0 (abc)", 4});
    if (finished) save_report_data(run.string(), data(name));
    return run.string();
  }

  static ReportData data(const std::string& name) {
    ReportData data;
    data.name = name;
    data.kind = "vit";
    data.layout = {{"world", "rank 0 of 4 on node07"},
                   {"mesh", "replicate 4 x shard 1 x pipeline 1 x sequence 1 x tensor 1 = 4 ranks"},
                   {"parameters", "203,594"}};
    data.environment = {{"device", "NVIDIA H200"}, {"torch", "2.11.0"}};
    ReportData::Split split;
    split.name = "digits";
    split.samples = 360;
    split.metrics = {{"accuracy", 0.9611}, {"top5_accuracy", 0.999}, {"loss", 0.142}};
    for (int64_t t = 0; t < 10; ++t) {
      split.class_names.push_back(name == "named" ? "<class> number " + std::to_string(t)
                                                  : std::to_string(t));
      split.confusion.emplace_back(10, 0);
      split.confusion.back()[t] = 34;
      split.confusion.back()[(t * 3 + 1) % 10] += 2;
    }
    data.splits.push_back(split);
    for (int64_t i = 0; i < 20; ++i) {
      const at::Tensor picture = at::full({1, 8, 8}, 0.1 * static_cast<double>(i % 10));
      picture[0][i % 8].fill_(1);
      data.verdicts.push_back({png_bytes(picture), std::to_string(i % 10),
                               std::to_string(i < 6 ? (i + 1) % 10 : i % 10), 0.91, i >= 6});
    }
    PictureTable table{
        "Hidden patches", {"original", "masked", "reconstruction", "visible + predicted"}, {}};
    for (int64_t i = 0; i < 3; ++i) {
      std::vector<std::string>& row = table.rows.emplace_back();
      for (int64_t k = 0; k < 4; ++k)
        row.push_back(png_bytes(at::full({3, 16, 16}, 0.2 * static_cast<double>(k + i))));
    }
    data.pictures.push_back(table);
    return data;
  }

  fs::path folder_;
  bool keep_ = false;
};

TEST_F(Report, APageShowsNumbersChartsSamplesAndRecipe) {
  const std::string run = make_run("digits-vit", 0.02);
  const std::string page = text_of(write_report(run));
  for (const char* part : {"96.11 %", "Loss", "Learning rate", "Images per second",
                           "Confusion matrix", "data:image/png;base64,", "visible + predicted",
                           "node07", "lr: 0.02", "prefers-color-scheme:dark", "Starts and resumes"})
    EXPECT_THAT(page, HasSubstr(part));
}

TEST_F(Report, NothingLeadsOutOfThePage) {
  const std::string page = text_of(write_report(make_run("closed", 0.02)));
  for (const char* link : {"http:", "https:", "<link", "@import", "src=\"/", "url("})
    EXPECT_THAT(page, Not(HasSubstr(link)));
}

TEST_F(Report, NamesFromDataAreEscaped) {
  const std::string page = text_of(write_report(make_run("named", 0.02)));
  EXPECT_THAT(page, HasSubstr("&lt;class&gt; number"));
  EXPECT_THAT(page, Not(HasSubstr("<class>")));
}

TEST_F(Report, ARunThatWasKilledHasAPageToo) {
  const std::string run = make_run("killed", 0.02, false);
  std::ofstream(fs::path(run) / "metrics.jsonl", std::ios::app) << "{\"step\": 301, \"lo";
  const std::string page = text_of(write_report(run));
  EXPECT_THAT(page, HasSubstr("stopped early"));
  EXPECT_THAT(page, HasSubstr("Loss"));
}

TEST_F(Report, AComparisonShowsEveryRunAndWhatDiffers) {
  const std::string path = (folder_ / "two.html").string();
  write_comparison({make_run("slow", 0.01), make_run("fast", 0.03)}, path);
  const std::string page = text_of(path);
  for (const char* part :
       {"slow", "fast", "train.optimizer.lr", "Held-out accuracy", "2 runs compared"})
    EXPECT_THAT(page, HasSubstr(part));
}

TEST_F(Report, AFolderWithoutARunIsADataErrorThatNamesTheFile) {
  EXPECT_THROW(write_report((folder_ / "none").string()), core::DataError);
  fs::create_directories(folder_ / "empty");
  try {
    write_report((folder_ / "empty").string());
    FAIL() << "must throw";
  } catch (const core::DataError& error) {
    EXPECT_THAT(error.what(), HasSubstr("recipe.yaml"));
  }
}

TEST_F(Report, BrokenReportDataIsADataErrorThatNamesTheFile) {
  const std::string run = make_run("bent", 0.02);
  std::ofstream(fs::path(run) / "report/data.json") << "{\"name\": 3}";
  try {
    write_report(run);
    FAIL() << "must throw";
  } catch (const core::DataError& error) {
    EXPECT_THAT(error.what(), HasSubstr("data.json"));
  }
}

/// report/data.json as runs of the first format left it: pictures of masked autoencoders alone, in
/// rows without a heading.
void as_format_1(const fs::path& run) {
  nlohmann::ordered_json json = nlohmann::ordered_json::parse(text_of(run / "report/data.json"));
  json["format"] = 1;
  json["reconstructions"] = json.at("pictures").empty() ? nlohmann::ordered_json::array()
                                                        : json.at("pictures").at(0).at("rows");
  json.erase("pictures");
  std::ofstream(run / "report/data.json") << json.dump();
}

TEST_F(Report, ARunOfTheFirstFormatHasThePageItHad) {
  const std::string run = make_run("old", 0.02);
  const std::string expected = text_of(write_report(run));
  as_format_1(run);
  EXPECT_EQ(text_of(write_report(run)), expected);
  ReportData plain = data("old");
  plain.pictures.clear();
  save_report_data(run, plain);
  const std::string without = text_of(write_report(run));
  as_format_1(run);
  EXPECT_EQ(text_of(write_report(run)), without);
  EXPECT_THAT(without, Not(HasSubstr("visible + predicted")));
}

TEST_F(Report, SegmentationShowsTruthAndPredictionAndHiddenPatchesTheirGuesses) {
  SplitResult result;
  config::Model model;
  model.patch_size = 4;
  model.in_channels = 1;
  for (const std::vector<int64_t>& sides : {std::vector<int64_t>{8, 8}, {6, 8, 8}}) {
    Example mask;
    std::vector<int64_t> shape{1};
    shape.insert(shape.end(), sides.begin(), sides.end());
    mask.image = at::rand(shape);
    mask.truth = at::ones(sides, at::kLong);
    mask.predicted_mask = at::zeros(sides, at::kLong);
    result.examples.push_back(mask);
  }
  Example hidden;
  hidden.image = at::rand({1, 8, 8});
  hidden.output = at::rand({4, 16});
  hidden.mask = at::ones({4});
  result.examples.push_back(hidden);
  const std::string run = make_run("pictured", 0.02);
  ReportData pictured = data("pictured");
  pictured.pictures.clear();
  add_examples(result, {}, model, pictured);
  ASSERT_EQ(pictured.pictures.size(), 2u);
  EXPECT_EQ(pictured.pictures[0].rows.size(), 1u);
  EXPECT_EQ(pictured.pictures[1].rows.size(), 4u);  // an image and three slices of a volume
  for (const PictureTable& table : pictured.pictures)
    for (const auto& row : table.rows) EXPECT_EQ(row.size(), table.columns.size());
  save_report_data(run, pictured);
  const std::string page = text_of(write_report(run));
  for (const char* part :
       {"true classes", "predicted classes", "where they differ", "masked", "visible + predicted"})
    EXPECT_THAT(page, HasSubstr(part));
  const ReportData again = load_report_data(run);
  for (size_t i = 0; i < 2; ++i) EXPECT_EQ(again.pictures[i].rows, pictured.pictures[i].rows);
}

TEST(ReportSvg, TicksAreRoundAndInside) {
  EXPECT_THAT(round_ticks(0, 1, 5),
              testing::ElementsAre(0, testing::DoubleEq(0.2), testing::DoubleEq(0.4),
                                   testing::DoubleNear(0.6, 1e-12), testing::DoubleEq(0.8),
                                   testing::DoubleEq(1.0)));
  EXPECT_THAT(round_ticks(-3, 3, 3), testing::ElementsAre(-2, 0, 2));
  EXPECT_TRUE(round_ticks(1, 1, 5).empty());
  EXPECT_TRUE(round_ticks(NAN, 1, 5).empty());
}

TEST(ReportSvg, NumbersAreShort) {
  EXPECT_EQ(short_number(12000), "12k");
  EXPECT_EQ(short_number(0.0008), "8e-4");
  EXPECT_EQ(short_number(0), "0");
  EXPECT_EQ(short_number(2.5e6), "2.5M");
}

TEST(ReportSvg, ThinningKeepsTheMean) {
  Series series;
  for (int i = 0; i < 1000; ++i) {
    series.x.push_back(i);
    series.y.push_back(i % 7);
  }
  const Series thin = thinned(series, 100);
  ASSERT_EQ(thin.x.size(), 100u);
  double full = 0, kept = 0;
  for (double value : series.y) full += value / 1000;
  for (double value : thin.y) kept += value / 100;
  EXPECT_NEAR(full, kept, 1e-12);  // equal pieces, so only rounding
}

TEST(ReportSvg, AChartOfNothingOrOfOnePointIsStillAChart) {
  EXPECT_THAT(line_chart({"Loss", "step", {}}), HasSubstr("Loss"));
  Series one;
  one.x = {5};
  one.y = {NAN};
  EXPECT_THAT(line_chart({"Loss", "step", {one}}), Not(HasSubstr("nan")));
}

TEST(ReportHtml, Base64FollowsTheRfc) {
  // RFC 4648, section 10.
  const std::pair<const char*, const char*> cases[] = {{"", ""},
                                                       {"f", "Zg=="},
                                                       {"fo", "Zm8="},
                                                       {"foo", "Zm9v"},
                                                       {"foob", "Zm9vYg=="},
                                                       {"fooba", "Zm9vYmE="},
                                                       {"foobar", "Zm9vYmFy"}};
  for (const auto& [plain, coded] : cases) EXPECT_EQ(base64(plain), coded);
}

}  // namespace
}  // namespace vitrail::train
