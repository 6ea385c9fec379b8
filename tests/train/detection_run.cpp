// A small detector learns from nothing to find coloured shapes, on the CPU in about a minute; then it predicts and reports.

#include <chrono>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/train/shapes_run.h"
#include "vitrail/models/metrics.h"
#include "vitrail/train/loop.h"
#include "vitrail/train/predict.h"

namespace vitrail::train {
namespace {

using testing::HasSubstr;

TEST(DetectionRun, FindsColouredShapesItHasNotSeen) {
  const Workplace place;
  const config::ResolvedRecipe recipe = shapes_recipe(place, "shapes", 512, 64);
  TrainOptions options;
  options.print = false;
  const auto start = std::chrono::steady_clock::now();
  const RunResult result = run_training(recipe, *comm::self_communicator(), options);
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  const models::MetricList& metrics = result.evaluation.at(0).metrics;
  printf("%s in %.0f s, loss %.2f -> %.2f\n", describe(result.evaluation.at(0)).c_str(), seconds,
         result.losses.front(), result.losses.back());
  EXPECT_GT(models::metric(metrics, "ap50"), 0.5);
  EXPECT_GT(models::metric(metrics, "map"), 0.2);
  EXPECT_LT(result.losses.back(), 0.5 * result.losses.front());

  const std::string report = read_bytes(result.report);
  EXPECT_THAT(report, HasSubstr("Held-out samples: boxes"));
  EXPECT_THAT(report, HasSubstr("square orange, disc light blue, triangle green"));

  PredictOptions predict;
  predict.input = place.file("test") + "/images";
  predict.output = place.file("boxes.json");
  EXPECT_EQ(predict_files(recipe, *comm::self_communicator(), predict), 64);
  const nlohmann::json found = nlohmann::json::parse(read_bytes(predict.output));
  ASSERT_EQ(found.size(), 64u);
  size_t boxes = 0;
  for (const nlohmann::json& image : found)
    for (const nlohmann::json& box : image.at("boxes")) {
      EXPECT_GE(box.at("score").get<double>(), 0.3);
      ++boxes;
    }
  EXPECT_GT(boxes, 64u);
}

}  // namespace
}  // namespace vitrail::train
