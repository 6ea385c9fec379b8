#include "vitrail/train/sinks.h"

#include <cmath>
#include <filesystem>
#include <fstream>
#include <sstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "vitrail/core/error.h"
#include <nlohmann/json.hpp>

namespace vitrail::train {
namespace {

namespace fs = std::filesystem;

class Sinks : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / fmt::format("vitrail-sinks-{}", ::getpid());
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }
  std::string path(const std::string& name) const { return (folder_ / name).string(); }
  static std::vector<std::string> lines(const std::string& path) {
    std::ifstream in(path);
    std::vector<std::string> out;
    for (std::string line; std::getline(in, line);) out.push_back(line);
    return out;
  }
  fs::path folder_;
};

StepRecord record(int64_t step) {
  StepRecord out;
  out.step = step;
  out.epoch = 0.5;
  out.samples = step * 32;
  out.loss = 0.1f;  // not a short decimal
  out.lr = 8.1e-4;
  out.step_ms = 5;
  out.images_per_second = 51230.4;
  return out;
}

TEST_F(Sinks, AStepHasExactlyTheKeysOfTheContractInOrder) {
  const auto json = nlohmann::ordered_json::parse(json_line(record(3)));
  std::vector<std::string> keys;
  for (const auto& [key, value] : json.items()) keys.push_back(key);
  EXPECT_THAT(keys,
              testing::ElementsAre("step", "epoch", "samples", "loss", "lr", "grad_norm", "step_ms",
                                   "data_wait_ms", "images_per_second", "tokens_per_second",
                                   "model_tflops", "mfu", "peak_memory_gib",
                                   "host_memory_gib", "skipped_samples", "source_epochs"));
  EXPECT_TRUE(json["mfu"].is_null());
}

TEST_F(Sinks, ALossComesBackFromJsonBitForBit) {
  const auto json = nlohmann::json::parse(json_line(record(3)));
  EXPECT_EQ(json["loss"].get<double>(), static_cast<double>(0.1f));
}

TEST_F(Sinks, AValueThatIsNotFiniteIsNullInJson) {
  StepRecord broken = record(1);
  broken.loss = NAN;
  broken.grad_norm = INFINITY;
  const auto json = nlohmann::json::parse(json_line(broken));
  EXPECT_TRUE(json["loss"].is_null());
  EXPECT_TRUE(json["grad_norm"].is_null());
}

TEST_F(Sinks, TheBarShowsEpochRateWaitAndTimeLeft) {
  StepRecord middle = record(2340);
  middle.loss = 0.412;
  middle.data_wait_ms = 0.02;
  middle.mfu = 0.21;
  const std::string line = bar_line({"cifar10-vit", 9800, 196, 0}, middle);
  EXPECT_EQ(line,
            "cifar10-vit  epoch 12/50  step 2340  ##--------  loss 0.412  lr 8.10e-4  51,230 "
            "images/s  MFU 21 %  "
            "data wait 0.4 %  left 0:00:37");
}

TEST_F(Sinks, MfuIsLeftOutWhereThereIsNone) {
  EXPECT_THAT(bar_line({"x", 10, 10, 0}, record(1)), testing::Not(testing::HasSubstr("MFU")));
  EXPECT_THAT(plain_line(record(1)), testing::Not(testing::HasSubstr("mfu")));
}

TEST_F(Sinks, ResumingDropsLaterStepsAndALineThatWasCutShort) {
  {
    auto sink = jsonl_sink(path("metrics.jsonl"));
    for (int64_t step = 1; step <= 5; ++step) sink->step(record(step));
    sink->evaluation({4, 1.0, "digits", 9, {{"loss", 0.5}}, 0.1});
  }
  std::ofstream(path("metrics.jsonl"), std::ios::app) << "{\"step\": 3, \"lo";
  truncate_metrics(path("metrics.jsonl"), 3);
  const std::vector<std::string> kept = lines(path("metrics.jsonl"));
  ASSERT_EQ(kept.size(), 3u);
  EXPECT_EQ(kept[2], json_line(record(3)));
  truncate_metrics(path("none.jsonl"), 3);  // nothing to drop
  EXPECT_FALSE(fs::exists(path("none.jsonl")));
}

TEST_F(Sinks, AFileThatCannotBeWrittenIsNamed) {
  std::ofstream(path("file")) << "x";
  try {
    jsonl_sink(path("file/metrics.jsonl"));
    FAIL() << "must throw";
  } catch (const core::Error& error) {
    EXPECT_THAT(error.what(), testing::StartsWith("[output] " + path("file/metrics.jsonl")));
  }
}

TEST_F(Sinks, AFullDiskIsAnError) {
  if (!fs::exists("/dev/full")) GTEST_SKIP() << "/dev/full is not there";
  auto sink = jsonl_sink("/dev/full");
  EXPECT_THROW(sink->step(record(1)), core::Error);
}

TEST_F(Sinks, TensorboardGetsAnEventFile) {
  {
    auto sink = tensorboard_sink(path("tensorboard"));
    sink->step(record(1));
    sink->evaluation({1, 1.0, "digits", 9, {{"accuracy", 0.5}}, 0.1});
  }
  ASSERT_EQ(std::distance(fs::directory_iterator(path("tensorboard")), fs::directory_iterator{}),
            1);
  std::ifstream in(fs::directory_iterator(path("tensorboard"))->path(), std::ios::binary);
  std::ostringstream bytes;
  bytes << in.rdbuf();
  EXPECT_THAT(bytes.str(), testing::HasSubstr("train/loss"));
  EXPECT_THAT(bytes.str(), testing::HasSubstr("eval/digits/accuracy"));
}

}  // namespace
}  // namespace vitrail::train
