// The head, its loss, and the model around them.

#include <cmath>

#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/models/detection_cases.h"
#include "vitrail/core/error.h"
#include "vitrail/models/detection_losses.h"
#include "vitrail/models/vit_detection.h"

namespace vitrail::models {
namespace {

double number(const at::Tensor& scalar) { return scalar.item<double>(); }

BoxPrediction random_prediction(int64_t B, int64_t Q, int64_t K, uint16_t layer) {
  return {random({B, Q, K}, layer).to(at::kDouble) * 2,
          random({B, Q, 4}, static_cast<uint16_t>(layer + 1)).to(at::kDouble) * 0.2 + 0.4};
}

DetectionPredictions random_predictions(const config::Model& options, int64_t B) {
  const int64_t K = options.num_classes + (options.detection.class_loss == "focal" ? 0 : 1);
  return {random_prediction(B, 6, K, 40), {random_prediction(B, 9, K, 42)}};
}

struct Form {
  const char* queries;
  const char* class_loss;
};
class DetectionForms : public ::testing::TestWithParam<Form> {};
INSTANTIATE_TEST_SUITE_P(All, DetectionForms,
                         ::testing::Values(Form{"learned", "cross_entropy"},
                                           Form{"learned", "focal"}, Form{"grid", "cross_entropy"},
                                           Form{"grid", "focal"}),
                         [](const auto& form) {
                           return std::string(form.param.queries) + "_" + form.param.class_loss;
                         });

TEST_P(DetectionForms, LossGradientsAreThoseOfFiniteDifferences) {
  const config::Model options = tiny_detection(GetParam().queries, GetParam().class_loss);
  const data::Batch batch = detection_batch(options, 4);
  TrueBoxes truth = true_boxes(batch, options.image_size);
  truth.boxes = truth.boxes.to(at::kDouble);
  DetectionPredictions predictions = random_predictions(options, 4);
  std::vector<at::Tensor> leaves{predictions.final.logits, predictions.final.boxes,
                                 predictions.earlier[0].logits, predictions.earlier[0].boxes};
  for (at::Tensor& leaf : leaves) leaf.set_requires_grad(true);
  detection_loss(predictions, truth, options).backward();
  const at::NoGradGuard no_grad;
  constexpr double kStep = 1e-6;
  double worst = 0;
  for (at::Tensor& leaf : leaves) {
    const at::Tensor gradient = leaf.grad().flatten();
    double* values = leaf.mutable_data_ptr<double>();
    for (int64_t i = 0; i < leaf.numel(); i += 3) {
      const double kept = values[i];
      values[i] = kept + kStep;
      const double up = number(detection_loss(predictions, truth, options));
      values[i] = kept - kStep;
      const double down = number(detection_loss(predictions, truth, options));
      values[i] = kept;
      worst = std::max(worst, std::abs((up - down) / (2 * kStep) - number(gradient[i])));
    }
  }
  printf("%s, %s: worst gradient error %.1e\n", GetParam().queries, GetParam().class_loss, worst);
  // Rounding of a loss of order 10 over 2e-6: 1e-9.
  EXPECT_LE(worst, 1e-7);
}

TEST_P(DetectionForms, LossDoesNotDependOnHowSamplesAreBatched) {
  const config::Model options = tiny_detection(GetParam().queries, GetParam().class_loss);
  const auto model = make_model(options, 1);
  randomise(*model);
  const data::Batch all = detection_batch(options, 6);
  const double whole = number(model->forward(all, draws_of(all)).loss);
  double sum = 0;
  for (int64_t i = 0; i < 6; ++i) {
    data::Batch one = all;
    for (at::Tensor* tensor : one.rows()) *tensor = tensor->narrow(0, i, 1);
    sum += number(model->forward(one, draws_of(one)).loss);
  }
  EXPECT_NEAR(whole, sum / 6, 2e-6 * whole);  // fp32, another order of sums
}

TEST_P(DetectionForms, EveryParameterLearns) {
  const config::Model options = tiny_detection(GetParam().queries, GetParam().class_loss);
  const auto model = make_model(options, 1);
  randomise(*model);
  const data::Batch batch = detection_batch(options, 4);
  const Output out = model->forward(batch, draws_of(batch, true));
  const int64_t K = GetParam().class_loss == std::string("focal") ? 3 : 4;
  EXPECT_EQ(out.output.sizes(), (std::vector<int64_t>{4, 5, K}));
  EXPECT_EQ(out.boxes.sizes(), (std::vector<int64_t>{4, 5, 4}));
  EXPECT_GE(number(out.boxes.min()), 0);
  EXPECT_LE(number(out.boxes.max()), 1);
  out.loss.backward();
  for (const nn::NamedTensor& parameter : model->named_parameters()) {
    ASSERT_TRUE(parameter.tensor.grad().defined()) << parameter.name;
    const bool is_key_bias = parameter.name.ends_with(".k.bias");  // softmax ignores it
    EXPECT_TRUE(is_key_bias || number(parameter.tensor.grad().abs().max()) > 0) << parameter.name;
  }
}

TEST_P(DetectionForms, AFreshModelBeginsWithBoxesSpreadOverTheImage) {
  const config::Model options = tiny_detection(GetParam().queries, GetParam().class_loss);
  const auto model = make_model(options, 1);
  const data::Batch batch = detection_batch(options, 2);
  const at::Tensor centre = model->forward(batch, draws_of(batch)).boxes.slice(-1, 0, 2);
  EXPECT_GT(number(centre.std()), 0.15);
  EXPECT_LT(number(model->forward(batch, draws_of(batch)).loss), 60);
}

TEST(Detection, UnitsHoldEveryParameterOnce) {
  const config::Model options = tiny_detection("grid");
  const auto model = make_model(options, 1);
  size_t count = 0;
  for (const UnitSpec& unit : model->units()) count += unit.parameters.size();
  EXPECT_EQ(count, model->named_parameters().size());
  EXPECT_EQ(model->units().back().name, "head");
}

TEST(Detection, WithoutDecoderBlocksEveryTokenPredicts) {
  config::Model options = tiny_detection("grid", "focal");
  options.detection.decoder_depth = 0;
  const auto model = make_model(options, 1);
  const data::Batch batch = detection_batch(options, 2);
  EXPECT_EQ(model->forward(batch, draws_of(batch)).boxes.sizes(), (std::vector<int64_t>{2, 6, 4}));
}

TEST(Detection, WithoutTrueBoxesThereIsNoLossAndWithEmptyOnesOnlyNoObject) {
  const config::Model options = tiny_detection();
  const auto model = make_model(options, 1);
  data::Batch batch = detection_batch(options, 3);
  batch.box_classes.fill_(-1);
  const double loss = number(model->forward(batch, draws_of(batch)).loss);
  EXPECT_TRUE(std::isfinite(loss));
  EXPECT_GT(loss, 0);
  batch.boxes = batch.box_classes = at::Tensor();
  EXPECT_FALSE(model->forward(batch, draws_of(batch)).loss.defined());
}

TEST(Detection, AClassBeyondTheHeadIsADataError) {
  const config::Model options = tiny_detection();
  const auto model = make_model(options, 1);
  data::Batch batch = detection_batch(options, 3);
  batch.box_classes[0][0] = 3;
  EXPECT_THROW(model->forward(batch, draws_of(batch)), core::DataError);
}

TEST(Detection, MatchesGoToTheNearestQueryAndToSeveralWhenAsked) {
  config::Model options = tiny_detection();
  BoxPrediction prediction = random_prediction(1, 6, 4, 44);
  TrueBoxes truth{prediction.boxes.narrow(1, 2, 2).clone(), at::zeros({1, 2}, at::kLong)};
  prediction.logits = at::zeros_like(prediction.logits);
  const std::vector<Match> one = match(prediction, truth, options);
  ASSERT_EQ(one.size(), 2u);
  EXPECT_EQ(one[0].query, 2);
  EXPECT_EQ(one[1].query, 3);
  EXPECT_EQ(match(prediction, truth, options, 2).size(), 4u);
  EXPECT_EQ(match(prediction, truth, options, 9).size(), 6u);  // no more than there are queries
  options.detection.matching.value = "index";
  EXPECT_EQ(match(prediction, truth, options)[1].query, 1);
}

TEST(Detection, ABrokenModelGivesALossThatIsNotANumberAndNoCrash) {
  const config::Model options = tiny_detection();
  const data::Batch batch = detection_batch(options, 3);
  TrueBoxes truth = true_boxes(batch, options.image_size);
  DetectionPredictions predictions = random_predictions(options, 3);
  predictions.final.boxes.fill_(NAN);
  EXPECT_TRUE(std::isnan(number(detection_loss(predictions, truth, options))));
}

TEST(Detection, PlacesOfAGridAreCentresOfItsCells) {
  const at::Tensor places = grid_places({2, 4});
  EXPECT_FLOAT_EQ(places[0][0].item<float>(), 0.125f);
  EXPECT_FLOAT_EQ(places[0][1].item<float>(), 0.25f);
  EXPECT_FLOAT_EQ(places[7][0].item<float>(), 0.875f);
  EXPECT_FLOAT_EQ(places[7][1].item<float>(), 0.75f);
}

}  // namespace
}  // namespace vitrail::models
