// Detection around the model: evaluation over ranks, boxes of files, pictures.

#include <cmath>

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/train/shapes_run.h"
#include "vitrail/data/loader.h"
#include "vitrail/train/examples.h"
#include "vitrail/train/loop.h"
#include "vitrail/train/pictures.h"
#include "vitrail/train/predict_boxes.h"

namespace vitrail::train {
namespace {

using testing::HasSubstr;

SplitResult evaluated(const config::ResolvedRecipe& recipe, int ranks) {
  SplitResult result;
  comm::run_thread_group(ranks, [&](comm::Communicator& world) {
    const auto results = evaluate_recipe(recipe, world, {});
    if (world.rank() == 0) result = results.at(0);
  });
  return result;
}

TEST(DetectionEvaluation, IsTheSameOverAnyNumberOfRanks) {
  const Workplace place;
  const std::vector<std::string> quick{"train.steps=30", "logging.html=false",
                                       "run.threads=1",  "eval.batch_size=6",
                                       "model.depth=2",  "model.detection.decoder_depth=1"};
  const config::ResolvedRecipe recipe = shapes_recipe(place, "ranks", 32, 20, quick);
  TrainOptions options;
  options.print = false;
  run_training(recipe, *comm::self_communicator(), options);
  const SplitResult one = evaluated(recipe, 1), three = evaluated(recipe, 3);
  EXPECT_EQ(one.samples, 20);
  EXPECT_EQ(three.samples, 20);
  ASSERT_EQ(one.metrics.size(), three.metrics.size());
  double worst = 0;
  for (size_t i = 0; i < one.metrics.size(); ++i) {
    EXPECT_EQ(one.metrics[i].first, three.metrics[i].first);
    worst = std::max(worst, std::abs(one.metrics[i].second - three.metrics[i].second) /
                                std::max(1.0, std::abs(one.metrics[i].second)));
  }
  printf("three ranks: worst difference %.1e, map %.3g, ar100 %.3g\n", worst,
         models::metric(one.metrics, "map"), models::metric(one.metrics, "ar100"));
  // The same boxes; scores of other batch sizes may differ in the last bits, which changes the loss and no order.
  EXPECT_LE(worst, 1e-6);
  EXPECT_GT(models::metric(one.metrics, "ar100"), 0);
}

TEST(BoxRecord, IsInPixelsOfTheFile) {
  const Workplace place;
  io::Image image;
  image.height = 100, image.width = 200, image.channels = 3;
  image.pixels.resize(100 * 200 * 3);
  const std::string file = place.file("a.png");
  core::write_file_atomic(file, io::encode_png(image));
  config::Model model;
  model.image_size = {50, 50};
  config::Source source;
  const models::FoundBox box{{10, 10, 20, 45}, 1, 0.75};
  const auto corners = [&](const std::vector<std::string>& names) {
    const std::string line = box_record(file, {box}, source, model, names);
    EXPECT_EQ(line.back(), '\n');
    const nlohmann::json record = nlohmann::json::parse(line);
    EXPECT_EQ(record["width"], 200);
    EXPECT_EQ(record["height"], 100);
    EXPECT_EQ(record["boxes"][0]["name"], names.size() > 1 ? names[1] : "1");
    return record["boxes"][0]["box"].get<std::vector<double>>();
  };
  EXPECT_EQ(corners({"a", "b"}), (std::vector<double>{40, 20, 80, 90}));
  // Resized to 60 x 100 and cut to the central 50 x 50: (x + 25) * 2, (y + 5) * 5 / 3.
  source.resize = {60, 100};
  EXPECT_EQ(corners({}), (std::vector<double>{70, 25, 90, 83.33}));
}

TEST(BoxList, IsJsonOfItsRecords) {
  EXPECT_EQ(nlohmann::json::parse(box_list("")).size(), 0u);
  EXPECT_EQ(nlohmann::json::parse(box_list("{\"a\": 1}\n{\"a\": 2}\n"))[1]["a"], 2);
}

TEST(BoxPictures, OutlinesLieInsideTheImageInTheColourOfTheClass) {
  const at::Tensor grey = at::zeros({3, 20, 30}) + 0.5;
  const at::Tensor drawn = with_boxes(grey, {{{4, 5, 14, 12}, 0}, {{-9, -9, 40, 40}, 1}});
  const auto is_color = [&](int64_t y, int64_t x, int64_t k) {
    for (int64_t c = 0; c < 3; ++c)
      if (std::abs(drawn[c][y][x].item<double>() - class_color(k).rgb[c]) > 1e-6) return false;
    return true;
  };
  EXPECT_TRUE(is_color(5, 4, 0));
  EXPECT_TRUE(is_color(11, 13, 0));
  EXPECT_FALSE(is_color(12, 14, 0));
  EXPECT_DOUBLE_EQ(drawn[0][8][9].item<double>(), 0.5);
  EXPECT_DOUBLE_EQ(grey[0][5][4].item<double>(), 0.5);
}

TEST(BoxExamples, KeepThePicturesWithMostBoxesAndTheBoxesThatCount) {
  config::Model model;
  model.kind.value = "vit_detection", model.num_classes = 2, model.image_size = {8, 8};
  model.detection.min_score = 0.5;
  data::Batch batch;
  batch.image = at::zeros({4, 3, 8, 8});
  batch.sample_ids = at::arange(4, at::kLong);
  batch.boxes = at::zeros({4, 2, 4}) + 4;
  batch.boxes.slice(2, 0, 2).fill_(1);
  batch.box_classes = at::zeros({4, 2}, at::kLong);
  batch.box_classes.slice(0, 0, 3).fill_(-1);
  models::Output output;
  output.boxes = at::zeros({4, 3, 4}) + 0.5;
  output.output = at::zeros({4, 3, 3});
  output.output.select(1, 1).select(1, 0).fill_(9);  // one of three queries is sure of class 0
  ExampleCollector collector(models::Task::detection, 32, model);  // four samples a stretch
  collector.add(batch, output);
  const std::vector<Example> kept = collector.take();
  ASSERT_EQ(kept.size(), 1u);
  EXPECT_EQ(kept[0].sample, 3);
  EXPECT_TRUE(kept[0].has_boxes);
  EXPECT_EQ(kept[0].true_boxes.size(), 2u);
  ASSERT_EQ(kept[0].found_boxes.size(), 1u);
  EXPECT_EQ(kept[0].found_boxes[0].label, 0);
}

}  // namespace
}  // namespace vitrail::train
