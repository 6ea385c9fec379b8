#include "vitrail/models/metrics_detection.h"

#include <algorithm>
#include <cmath>

#include <ATen/ops/logit.h>
#include <ATen/ops/one_hot.h>
#include <gtest/gtest.h>

#include "tests/models/detection_cases.h"
#include "vitrail/core/error.h"
#include "vitrail/models/detection_losses.h"

namespace vitrail::models {
namespace {

const std::array<double, 4> kBox{10, 10, 60, 60}, kOther{200, 200, 320, 330};

CocoMetrics metrics_of(const std::vector<FoundBox>& found, const std::vector<TrueBox>& truth) {
  const ImageScores scores = score_image(0, found, truth, 1);
  return coco_metrics(scores.boxes, scores.truths, 1);
}

TrueBox a_true(const std::array<double, 4>& box) {
  return {box, 0, (box[2] - box[0]) * (box[3] - box[1])};
}

TEST(CocoMetrics, ARightAnswerIsWorthOneAndAWrongOneNothing) {
  const CocoMetrics right = metrics_of({{kBox, 0, 0.9}}, {a_true(kBox)});
  EXPECT_DOUBLE_EQ(right.ap, 1);
  EXPECT_DOUBLE_EQ(right.ar1, 1);
  EXPECT_DOUBLE_EQ(right.ap_medium, 1);
  EXPECT_TRUE(std::isnan(right.ap_small));
  EXPECT_DOUBLE_EQ(metrics_of({{kOther, 0, 0.9}}, {a_true(kBox)}).ap, 0);
  EXPECT_DOUBLE_EQ(metrics_of({}, {a_true(kBox)}).ap, 0);
  EXPECT_TRUE(std::isnan(metrics_of({}, {}).ap));
}

TEST(CocoMetrics, ASecondAnswerToTheSameBoxIsWrong) {
  const std::vector<TrueBox> truth{a_true(kBox), a_true(kOther)};
  // By score: right, wrong, right: precision 1 up to recall 1/2, then 2/3.
  const CocoMetrics metrics = metrics_of({{kBox, 0, 0.9}, {kBox, 0, 0.8}, {kOther, 0, 0.7}}, truth);
  EXPECT_NEAR(metrics.ap50, (51 + 50 * 2.0 / 3) / 101, 1e-12);
}

TEST(CocoMetrics, IouOfThreeQuartersCountsAtTheFirstSixThresholds) {
  // 3 / 4 exactly: 0.5, 0.55, ..., 0.75.
  const CocoMetrics metrics = metrics_of({{{0, 0, 40, 30}, 0, 1.0}}, {a_true({0, 0, 40, 40})});
  EXPECT_NEAR(metrics.ap, 0.6, 1e-12);
  EXPECT_DOUBLE_EQ(metrics.ap75, 1);
}

TEST(CocoMetrics, ACrowdTakesManyAnswersAndIsNotMissed) {
  std::vector<TrueBox> truth{a_true(kOther), a_true(kBox)};
  truth[1].is_crowd = true;
  const CocoMetrics metrics = metrics_of({{kBox, 0, 0.9}, {kBox, 0, 0.8}, {kOther, 0, 0.7}}, truth);
  EXPECT_DOUBLE_EQ(metrics.ap, 1);
}

TEST(CocoMetrics, AClassBeyondTheModelIsADataError) {
  EXPECT_THROW(score_image(0, {}, {{kBox, 1, 2500}}, 1), core::DataError);
}

Output answer(const data::Batch& batch, const config::Model& options, double noise) {
  // One query a box place, its class right, its box moved a little.
  Output out;
  const TrueBoxes truth = true_boxes(batch, options.image_size);
  const int64_t B = batch.size(), M = batch.boxes.size(1);
  out.boxes = truth.boxes + random({B, M, 4}, 60) * noise;
  const at::Tensor label =
      at::where(batch.box_classes.ge(0), batch.box_classes, options.num_classes);
  out.output = at::one_hot(label, options.num_classes + 1).to(at::kFloat) * 4 +
               random({B, M, options.num_classes + 1}, 61);
  out.loss = at::zeros({}) + 2.5;
  return out;
}

TEST(DetectionTally, BatchesAndRanksPlayNoPart) {
  const config::Model options = tiny_detection();
  data::Batch batch = detection_batch(options, 12);
  batch.sample_ids = batch.sample_ids + 100;
  const Output out = answer(batch, options, 0.03);
  DetectionTally whole(options);
  whole.add(batch, out);
  const auto part = [](const at::Tensor& x, int64_t i) { return x.narrow(0, i, 1); };
  DetectionTally ranks[2] = {DetectionTally(options), DetectionTally(options)};
  for (int64_t i = 11; i >= 0; --i) {
    data::Batch one = batch;
    for (at::Tensor* tensor : one.rows()) *tensor = part(*tensor, i);
    Output its;
    its.output = part(out.output, i), its.boxes = part(out.boxes, i), its.loss = out.loss;
    ranks[i % 2].add(one, its);
  }
  DetectionTally& sum = ranks[1];
  for (size_t k = 0; k < sum.sums().size(); ++k) sum.sums()[k] += ranks[0].sums()[k];
  sum.records().insert(sum.records().begin(), ranks[0].records().begin(), ranks[0].records().end());
  const MetricList expected = whole.metrics(), found = sum.metrics();
  ASSERT_EQ(expected.size(), found.size());
  for (size_t i = 0; i < expected.size(); ++i)
    EXPECT_EQ(expected[i], found[i]) << expected[i].first;
  EXPECT_GT(metric(expected, "map"), 0.1);
  EXPECT_LT(metric(expected, "map"), 0.99);
  EXPECT_DOUBLE_EQ(metric(expected, "loss"), 2.5);
  EXPECT_EQ(sum.samples(), 12);
}

TEST(DetectionTally, RightBoxesAreWorthOneAndNumbersThatAreNoneNothing) {
  const config::Model options = tiny_detection();
  const data::Batch batch = detection_batch(options, 6);
  DetectionTally right(options), broken(options);
  Output out = answer(batch, options, 0);
  right.add(batch, out);
  EXPECT_NEAR(metric(right.metrics(), "map"), 1, 1e-12);
  out.output.fill_(NAN);
  broken.add(batch, out);
  EXPECT_EQ(metric(broken.metrics(), "map"), 0);
}

TEST(FoundBoxes, AreTheBestPairsOfAFocalHeadAndTheBestClassOfEachQueryElse) {
  config::Model options = tiny_detection("grid", "focal");
  at::Tensor logits = at::zeros({2, 3});
  logits[0][1] = 3, logits[0][2] = 2, logits[1][0] = 1;
  const at::Tensor boxes = at::zeros({2, 4}) + 0.5;
  const auto focal = found_boxes(logits, boxes, options, {8, 12});
  ASSERT_EQ(focal.size(), 6u);
  EXPECT_EQ(focal[0].label, 1);
  EXPECT_EQ(focal[1].label, 2);
  EXPECT_EQ(found_boxes(logits, boxes, options, {8, 12}, 0.7).size(), 3u);
  EXPECT_EQ(focal[0].corners, (std::array<double, 4>{3, 2, 9, 6}));
  options.detection.class_loss.value = "cross_entropy";
  const auto each = found_boxes(random({2, 4}), boxes, options, {8, 12});
  EXPECT_EQ(each.size(), 2u);
}

}  // namespace
}  // namespace vitrail::models
