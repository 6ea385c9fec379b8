// The loss of samples that are made of two.

#include <ATen/ops/arange.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/one_hot.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/sin.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include "tests/models/tiny_models.h"
#include "vitrail/models/losses.h"

namespace vitrail::models {
namespace {

config::Model options_for(const char* loss, double smoothing = 0) {
  config::Model options;
  options.loss.value = loss;
  options.label_smoothing = smoothing;
  return options;
}

const at::Tensor kLogits = at::arange(30, at::kDouble).mul(1.7).sin().mul(3).view({6, 5});
const at::Tensor kLabel = at::tensor({0, 1, 2, 3, 4, 0}, at::kLong);
const at::Tensor kOther = at::tensor({3, 1, 0, 2, 2, 4}, at::kLong);
const at::Tensor kShare = at::tensor({0.3, 0.5, 1.0, 0.0, 0.9, 0.75}, at::kDouble);

// 1e-12: sums of a few doubles.
TEST(MixedLoss, IsTorchsCrossEntropyOfMixedProbabilities) {
  for (const double smoothing : {0.0, 0.1}) {
    const at::Tensor share = kShare.unsqueeze(1);
    const at::Tensor target =
        at::one_hot(kLabel, 5).mul(share).add(at::one_hot(kOther, 5).mul(share.neg().add(1)));
    const double expected =
        at::cross_entropy_loss(kLogits, target, {}, 1, -100, smoothing).item<double>();
    const double found = classification_loss(kLogits, {kLabel, kOther, kShare},
                                             options_for("cross_entropy", smoothing))
                             .item<double>();
    EXPECT_NEAR(found, expected, 1e-12) << smoothing;
  }
}

TEST(MixedLoss, WithSharesOfOneIsTheUsualLoss) {
  for (const char* loss : {"cross_entropy", "focal"}) {
    config::Model options = options_for(loss);
    options.class_weights = {1, 2, 0.5, 3, 1.5};
    const double usual = classification_loss(kLogits, kLabel, options).item<double>();
    EXPECT_NEAR(classification_loss(kLogits, {kLabel, kOther, at::ones_like(kShare)}, options)
                    .item<double>(),
                usual, 1e-12);
    EXPECT_EQ(classification_loss(kLogits, {kLabel, {}, {}}, options).item<double>(), usual);
    EXPECT_NE(classification_loss(kLogits, {kLabel, kOther, kShare}, options).item<double>(),
              usual);
  }
}

TEST(MixedLoss, LabelsOfMinusOneCountNowhere) {
  at::Tensor label = kLabel.clone(), other = kOther.clone();
  label[5] = -1;
  other[5] = -1;
  const config::Model options = options_for("cross_entropy");
  const double shorter =
      classification_loss(kLogits.narrow(0, 0, 5),
                          {kLabel.narrow(0, 0, 5), kOther.narrow(0, 0, 5), kShare.narrow(0, 0, 5)},
                          options)
          .item<double>();
  EXPECT_NEAR(classification_loss(kLogits, {label, other, kShare}, options).item<double>(), shorter,
              1e-12);
}

TEST(MixedLoss, OfAModelReadsBothLabelsOfTheBatch) {
  const config::Model options = tiny("vit");
  const auto model = make_model(options, 1);
  randomise(*model);
  data::Batch batch = batch_for(options, 4);
  batch.label_other = batch.label.roll({1}, {0});
  batch.label_share = at::tensor({0.25f, 1.0f, 0.0f, 0.6f});
  const Output mixed = model->forward(batch, draws_of(batch));
  const double expected =
      classification_loss(mixed.output, {batch.label, batch.label_other, batch.label_share},
                          options)
          .item<double>();
  EXPECT_EQ(mixed.loss.item<double>(), expected);
  EXPECT_NE(expected, classification_loss(mixed.output, batch.label, options).item<double>());
}

}  // namespace
}  // namespace vitrail::models
