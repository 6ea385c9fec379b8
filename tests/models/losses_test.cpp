#include "vitrail/models/losses.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <vector>

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "vitrail/core/error.h"

namespace vitrail::models {
namespace {

struct GoldenLoss {
  const char* loss;
  std::vector<int64_t> shape;  // [B, C, sides...]
  bool ignores;
  std::vector<double> weights;
  double smoothing, gamma, value;
  std::vector<double> gradient;
};

#include "golden_losses.inc"

// The formulas of tools/golden/losses.py.
at::Tensor logits_of(at::IntArrayRef shape, at::ScalarType type = at::kDouble) {
  int64_t count = 1;
  for (const int64_t side : shape) count *= side;
  const at::Tensor i = at::arange(count, at::kDouble);
  return (2.0 * (1.3 * i + 0.2).sin()).view(shape).to(type);
}

at::Tensor labels_of(at::IntArrayRef shape, bool ignores) {
  std::vector<int64_t> sides{shape[0]};
  for (const int64_t side : shape.slice(2)) sides.push_back(side);
  int64_t count = 1;
  for (const int64_t side : sides) count *= side;
  at::Tensor label = at::zeros({count}, at::kLong);
  for (int64_t i = 0; i < count; ++i)
    label.mutable_data_ptr<int64_t>()[i] = ignores && i % 5 == 2 ? -1 : (7 * i + i / 3) % shape[1];
  return label.view(sides);
}

config::Model options_for(const char* loss) {
  config::Model options;
  options.kind.value = "unetr";
  options.loss.value = loss;
  return options;
}

at::Tensor loss_of(const at::Tensor& logits, const at::Tensor& label,
                   const config::Model& options) {
  return logits.dim() == 2 ? classification_loss(logits, label, options)
                           : segmentation_loss(logits, label, options);
}

struct ValueAndGradient {
  double value;
  at::Tensor gradient;
};

ValueAndGradient differentiate(const at::Tensor& logits, const at::Tensor& label,
                               const config::Model& options) {
  at::Tensor leaf = logits.detach().clone().requires_grad_();
  const at::Tensor loss = loss_of(leaf, label, options);
  loss.backward();
  return {loss.item<double>(), leaf.grad()};
}

double relative(const at::Tensor& mine, const at::Tensor& peer) {
  return ((mine.to(at::kDouble) - peer).norm() / peer.norm()).item<double>();
}

const char* const kSegmentation[] = {"cross_entropy",    "dice",  "dice_ce",
                                     "generalized_dice", "focal", "dice_focal"};

TEST(Losses, AreThoseOfMonaiAndTorchWithTheirGradients) {
  // Cross-entropy in fp64 against torch's: sums of 72 terms, 1e-12. MONAI keeps the truth, its squares
  // and its weights in fp32 and FocalLoss all of it, and ours in fp32 rounds at 6e-8 per operation in
  // chains of about ten: 1e-6.
  double worst_exact = 0, worst_single = 0;
  for (const GoldenLoss& golden : golden_losses) {
    config::Model options = options_for(golden.loss);
    options.class_weights = golden.weights;
    options.label_smoothing = golden.smoothing;
    options.focal_gamma = golden.gamma;
    const at::Tensor label = labels_of(golden.shape, golden.ignores);
    const at::Tensor peer = at::tensor(golden.gradient, at::kDouble).view(golden.shape);
    const bool single_peer = std::string(golden.loss) != "cross_entropy";
    for (const auto type : {at::kDouble, at::kFloat}) {
      const auto [value, gradient] = differentiate(logits_of(golden.shape, type), label, options);
      const double error = std::max(std::abs(value / golden.value - 1), relative(gradient, peer));
      const bool single = single_peer || type == at::kFloat;
      EXPECT_LE(error, single ? 1e-6 : 1e-12)
          << golden.loss << " of " << golden.shape.size() - 2 << " sides";
      EXPECT_EQ(gradient.scalar_type(), type);
      double& worst = single ? worst_single : worst_exact;
      worst = std::max(worst, error);
    }
  }
  std::printf(
      "%zu cases of %s: worst relative difference %.1e in fp64 (allowed 1e-12), %.1e in fp32 "
      "(allowed 1e-6)\n",
      std::size(golden_losses), golden_versions, worst_exact, worst_single);
}

TEST(Losses, GradientsAreFiniteDifferences) {
  // Central differences of step 1e-5 in fp64: truncation 1e-10, rounding 1e-11 beside gradients of
  // 1e-2: 1e-7 of the gradient's norm.
  double worst = 0;
  for (const char* loss : kSegmentation) {
    config::Model options = options_for(loss);
    options.class_weights = {0.5, 2.0, 1.25};
    options.focal_gamma = 1.7;
    const at::Tensor logits = logits_of({2, 3, 3}), label = labels_of({2, 3, 3}, true);
    const at::Tensor gradient = differentiate(logits, label, options).gradient;
    at::Tensor numeric = at::zeros({logits.numel()}, at::kDouble);
    const double step = 1e-5;
    for (int64_t i = 0; i < logits.numel(); ++i) {
      at::Tensor up = logits.clone(), down = logits.clone();
      up.mutable_data_ptr<double>()[i] += step;
      down.mutable_data_ptr<double>()[i] -= step;
      numeric[i].fill_(
          (loss_of(up, label, options) - loss_of(down, label, options)).item<double>() /
          (2 * step));
    }
    worst = std::max(worst, relative(gradient, numeric.view_as(gradient)));
    EXPECT_LE(relative(gradient, numeric.view_as(gradient)), 1e-7) << loss;
  }
  std::printf("worst relative difference %.1e (allowed 1e-7)\n", worst);
}

TEST(Losses, PixelsThatCountNowhereChangeNothing) {
  // The same pixels with and without ignored ones beside them; sums of 24 terms in another order.
  for (const char* loss : kSegmentation) {
    const at::Tensor logits = logits_of({2, 3, 4, 3}), label = labels_of({2, 3, 4, 3}, false);
    const at::Tensor more = at::cat({logits, at::full({2, 3, 4, 2}, 50.0, at::kDouble)}, 3);
    const at::Tensor labels = at::cat({label, at::full({2, 4, 2}, -1, at::kLong)}, 2);
    const config::Model options = options_for(loss);
    const ValueAndGradient plain = differentiate(logits, label, options);
    const ValueAndGradient padded = differentiate(more, labels, options);
    EXPECT_NEAR(plain.value, padded.value, 1e-14) << loss;
    EXPECT_LE(relative(padded.gradient.narrow(3, 0, 3), plain.gradient), 1e-13) << loss;
    EXPECT_EQ(padded.gradient.narrow(3, 3, 2).abs().max().item<double>(), 0) << loss;
  }
}

TEST(Losses, SamplesThatCountNowhereChangeNothing) {
  for (const char* loss : kSegmentation) {
    const at::Tensor logits = logits_of({3, 3, 4, 3});
    at::Tensor label = labels_of({3, 3, 4, 3}, false);
    label.select(0, 1).fill_(-1);
    const config::Model options = options_for(loss);
    const at::Tensor rows = at::tensor({0, 2}, at::kLong);
    EXPECT_NEAR(
        loss_of(logits, label, options).item<double>(),
        loss_of(logits.index_select(0, rows), label.index_select(0, rows), options).item<double>(),
        1e-14)
        << loss;
  }
}

TEST(Losses, ABatchInWhichNothingCountsGivesZeroAndNoGradient) {
  for (const char* loss : kSegmentation)
    for (const auto type : {at::kDouble, at::kFloat}) {
      config::Model options = options_for(loss);
      options.class_weights = {1, 2, 3};
      const auto [value, gradient] =
          differentiate(logits_of({2, 3, 4}, type), at::full({2, 4}, -1, at::kLong), options);
      EXPECT_EQ(value, 0) << loss;
      EXPECT_TRUE(at::equal(gradient, at::zeros({2, 3, 4}, type))) << loss;
    }
  config::Model options = options_for("cross_entropy");
  options.label_smoothing = 0.1;
  EXPECT_EQ(
      classification_loss(logits_of({2, 3}), at::full({2}, -1, at::kLong), options).item<double>(),
      0);
}

TEST(Losses, PerfectAnswersCostNothing) {
  // Logits of +-200 make probabilities exactly 1 and 0; every class is present. Dice keeps 1e-6 of
  // smoothing beside 2 sum(g) >= 6.
  const at::Tensor label = labels_of({2, 3, 4, 3}, true);
  at::Tensor logits = at::full({2, 3, 4, 3}, -200.0, at::kFloat);
  logits.scatter_(1, label.clamp_min(0).unsqueeze(1), 200.0);
  for (const char* loss : kSegmentation) {
    config::Model options = options_for(loss);
    options.focal_gamma = 0.5;  // a root, whose derivative at 0 is infinite
    const auto [value, gradient] = differentiate(logits, label, options);
    EXPECT_NEAR(value, 0, 1e-6) << loss;
    EXPECT_TRUE(gradient.isfinite().all().item<bool>()) << loss;
    EXPECT_LE(gradient.abs().max().item<double>(), 1e-6) << loss;
  }
}

TEST(Losses, CertainErrorsStayFinite) {
  const at::Tensor label = at::zeros({1, 5}, at::kLong);
  at::Tensor logits = at::full({1, 3, 5}, -300.0, at::kFloat);
  logits.select(1, 1).fill_(300.0);
  for (const char* loss : kSegmentation) {
    const auto [value, gradient] = differentiate(logits, label, options_for(loss));
    EXPECT_TRUE(std::isfinite(value)) << loss;
    EXPECT_TRUE(gradient.isfinite().all().item<bool>()) << loss;
  }
}

TEST(Losses, OnePixelAndAClassThatIsNowhere) {
  const at::Tensor logits = at::tensor({std::log(3.0), 0.0, 0.0}, at::kDouble).view({1, 3, 1});
  const at::Tensor label = at::zeros({1, 1}, at::kLong);  // probabilities 0.6, 0.2, 0.2
  const auto value = [&](const char* loss) {
    return loss_of(logits, label, options_for(loss)).item<double>();
  };
  const double dice = (1 - 1.2 / (0.36 + 1 + 1e-6) + 1 + 1) / 3;
  EXPECT_NEAR(value("dice"), dice, 1e-15);
  EXPECT_NEAR(value("cross_entropy"), -std::log(0.6), 1e-15);
  EXPECT_NEAR(value("focal"), -0.16 * std::log(0.6), 1e-15);
  EXPECT_NEAR(value("dice_ce"), dice - std::log(0.6), 1e-15);
  EXPECT_NEAR(value("generalized_dice"), 1 - 2 * 0.6 / (1.6 + 0.2 + 0.2), 1e-15);
}

TEST(Losses, FocalOfExponentZeroIsCrossEntropy) {
  config::Model focal = options_for("focal");
  focal.focal_gamma = 0;
  const at::Tensor logits = logits_of({4, 3, 5}), label = labels_of({4, 3, 5}, true);
  EXPECT_NEAR(loss_of(logits, label, focal).item<double>(),
              loss_of(logits, label, options_for("cross_entropy")).item<double>(), 1e-14);
}

TEST(Losses, GeneralizedDiceKeepsItsScaleInLargeVolumes) {
  // Repeating a sample's pixels multiplies every sum alike, so the loss must not move; with MONAI's
  // default smoothing it would tend to 0. fp32: 1e-5, sums of 1e5 terms.
  const at::Tensor logits = logits_of({1, 3, 4, 3}, at::kFloat),
                   label = labels_of({1, 3, 4, 3}, false);
  const config::Model options = options_for("generalized_dice");
  const double small = loss_of(logits, label, options).item<double>();
  const double large =
      loss_of(logits.repeat({1, 1, 1, 40000}), label.repeat({1, 1, 40000}), options).item<double>();
  EXPECT_NEAR(large, small, 1e-5);
  EXPECT_GT(small, 0.1);
}

TEST(Losses, HalfPrecisionLogitsAreComputedInSingle) {
  const at::Tensor logits = logits_of({2, 3, 4, 3}, at::kFloat).to(at::kBFloat16);
  const at::Tensor label = labels_of({2, 3, 4, 3}, true);
  for (const char* loss : kSegmentation) {
    const at::Tensor value = loss_of(logits, label, options_for(loss));
    EXPECT_EQ(value.scalar_type(), at::kFloat);
    EXPECT_TRUE(at::equal(value, loss_of(logits.to(at::kFloat), label, options_for(loss)))) << loss;
  }
}

TEST(Losses, WhatDoesNotFitIsRefused) {
  const config::Model options = options_for("dice");
  const at::Tensor logits = logits_of({2, 3, 4, 3});
  EXPECT_THROW(segmentation_loss(logits, at::zeros({2, 3, 4}, at::kLong), options), core::Error);
  EXPECT_THROW(segmentation_loss(logits, at::full({2, 4, 3}, 3, at::kLong), options),
               core::DataError);
  EXPECT_THROW(segmentation_loss(logits, labels_of({2, 3, 4, 3}, false), options_for("masked_mse")),
               core::ConfigError);
  EXPECT_THROW(classification_loss(logits_of({2, 3}), at::zeros({2}, at::kLong), options),
               core::ConfigError);
  config::Model weighted = options_for("cross_entropy");
  weighted.class_weights = {1, 2};
  EXPECT_THROW(segmentation_loss(logits, labels_of({2, 3, 4, 3}, false), weighted),
               core::ConfigError);
  const at::Tensor tokens = logits_of({2, 3, 4});
  EXPECT_THROW(reconstruction_loss(tokens, tokens, {}, options), core::ConfigError);
  EXPECT_THROW(reconstruction_loss(tokens, logits_of({2, 3, 5}), {}, options_for("mse")),
               core::Error);
  EXPECT_THROW(reconstruction_loss(tokens, tokens, at::zeros({2, 4}), options_for("masked_mse")),
               core::Error);
}

TEST(Losses, ReconstructionIsScoredOnHiddenTokensOrOnAll) {
  const at::Tensor prediction = logits_of({2, 3, 4}), target = prediction.cos();
  const at::Tensor mask = at::tensor({1.0, 0.0, 1.0, 0.0, 1.0, 1.0}, at::kDouble).view({2, 3});
  const at::Tensor real = at::tensor({1, 1, 0, 1, 1, 1}, at::kLong).view({2, 3}).to(at::kBool);
  double masked = 0, all = 0, masked_real = 0, all_real = 0;
  for (int64_t token = 0; token < 6; ++token) {
    double error = 0;
    for (int64_t s = 0; s < 4; ++s) {
      const double difference = prediction.const_data_ptr<double>()[4 * token + s] -
                                target.const_data_ptr<double>()[4 * token + s];
      error += difference * difference / 4;
    }
    const bool hidden = mask.const_data_ptr<double>()[token] > 0;
    all += error / 6;
    if (hidden) masked += error / 4;
    if (token != 2) all_real += error / 5;
    if (hidden && token != 2) masked_real += error / 3;
  }
  const auto value = [&](const char* loss, const at::Tensor& counts) {
    return reconstruction_loss(prediction, target, mask, options_for(loss), counts).item<double>();
  };
  EXPECT_NEAR(value("masked_mse", {}), masked, 1e-14);
  EXPECT_NEAR(value("mse", {}), all, 1e-14);
  EXPECT_NEAR(value("masked_mse", real), masked_real, 1e-14);
  EXPECT_NEAR(value("mse", real), all_real, 1e-14);
}

TEST(Losses, PatchScaleNormalisesEachToken) {
  const at::Tensor target = logits_of({2, 3, 8});
  const PatchScale scale = patch_scale(target);
  const at::Tensor normal = (target - scale.mean_BL1) / scale.deviation_BL1;
  EXPECT_LE(normal.mean(-1).abs().max().item<double>(), 1e-14);
  // The unbiased variance of eight values is 1, less the 1e-6 beside variances of about 2.
  EXPECT_LE((normal.square().sum(-1) / 7 - 1).abs().max().item<double>(), 1e-5);
  EXPECT_TRUE(patch_scale(at::zeros({1, 2, 4})).deviation_BL1.gt(0).all().item<bool>());
}

}  // namespace
}  // namespace vitrail::models
