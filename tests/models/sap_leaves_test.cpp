// SAP over leaves: one prediction each, losses on the leaves and on the image.
#include <cmath>
#include <cstdio>
#include <limits>

#include <ATen/ops/equal.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/log_softmax.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/models/segmenter_cases.h"
#include "vitrail/core/error.h"
#include "vitrail/models/losses.h"
#include "vitrail/models/losses_leaves.h"
#include "vitrail/models/sap.h"
#include "vitrail/patching/batch.h"

namespace vitrail::models {
namespace {

using Sides = std::vector<int64_t>;

config::Model with_leaves(const Sides& sides, int64_t leaves) {
  config::Model options = segmenter("sap", sides, 2);
  options.adaptive.fixed_length = leaves;
  return options;
}

std::shared_ptr<Sap> make(const config::Model& options) {
  auto model = std::make_shared<Sap>(options);
  initialise(model->named_parameters(), 1, sap_initial(options));
  randomise(*model);
  return model;
}

at::Tensor parameter_of(const Model& model, const std::string& name) {
  for (const nn::NamedTensor& parameter : model.named_parameters())
    if (parameter.name == name) return parameter.tensor;
  return {};
}

/// Leaves of sizes below and above a patch; the last third of sample 1's is padding.
data::Batch leaves_of(const config::Model& options) {
  data::Batch batch = images(options, 2);
  const data::Batch leaves = batch_for(options, 2);
  batch.image = at::Tensor();
  batch.leaf_tokens = leaves.leaf_tokens, batch.leaf_boxes = leaves.leaf_boxes;
  return batch;
}

TEST(SapLeaves, PredictsOncePerLeafForAnyNumberOfThem) {
  for (const Sides& sides : {Sides{8, 12}, Sides{8, 4, 8}})
    for (const int64_t leaves : {1, 7, 10}) {
      const config::Model options = with_leaves(sides, leaves);
      const auto model = make(options);
      const data::Batch batch = leaves_of(options);
      const Output trained = model->forward(batch, draws_of(batch, true), {"norm"});
      const int64_t pixels = sides.size() == 2 ? 4 : 8;
      ASSERT_EQ(trained.output.sizes().vec(), (Sides{2, 3, leaves, pixels}));
      const at::Tensor neck = parameter_of(*model, "neck.weight").flatten(2);
      for (const int64_t leaf : {int64_t{0}, leaves - 1}) {
        const at::Tensor wide_BWP =
            trained.taps.at("norm").select(1, leaf).matmul(neck.flatten(1)).view({2, 8, -1});
        const at::Tensor expected =
            parameter_of(*model, "head.weight").flatten(1).matmul(wide_BWP) +
            parameter_of(*model, "head.bias").unsqueeze(1);
        // Sums of 12 * 8 products of values near 1.
        EXPECT_LE(worst(trained.output.select(2, leaf), expected), 1e-5);
      }
      EXPECT_EQ(model->tokens_per_sample(), leaves);
    }
}

TEST(SapLeaves, PastesItsOutputToTheImageUnlessTrainingOnLeaves) {
  for (const Sides& sides : {Sides{8, 12}, Sides{8, 4, 8}}) {
    config::Model options = with_leaves(sides, 7);
    const auto model = make(options);
    const data::Batch batch = leaves_of(options);
    const Output trained = model->forward(batch, draws_of(batch, true)),
                 evaluated = model->forward(batch, draws_of(batch));
    EXPECT_EQ(evaluated.output.sizes().vec(), shape_of(2, 3, sides));
    EXPECT_TRUE(
        at::equal(evaluated.output, patching::paste(trained.output.contiguous(), batch.leaf_boxes,
                                                    sides, patching::Resample::area)));
    EXPECT_EQ(evaluated.loss.item<double>(), trained.loss.item<double>());
    options.adaptive.loss_space.value = "image";
    const auto other = make(options);
    EXPECT_EQ(other->forward(batch, draws_of(batch, true)).output.sizes().vec(),
              shape_of(2, 3, sides));
  }
}

/// Cross-entropy of leaves of one class each, whose labels on the leaves follow from the image at once.
TEST(SapLeaves, TheLossOnLeavesIsThePlainLoop) {
  for (const bool by_area : {false, true}) {
    config::Model options = with_leaves({8, 12}, 7);
    options.loss.value = "cross_entropy", options.adaptive.area_weight = by_area;
    options.class_weights = {1.0, 2.0, 0.5};
    const data::Batch batch = leaves_of(options);
    const at::Tensor boxes = batch.leaf_boxes, logits = random({2, 3, 7, 4}, 8);
    at::Tensor label = at::zeros({2, 8, 12}, at::kLong) - 1;
    double sum = 0, total = 0;
    for (int64_t b = 0; b < 2; ++b)
      for (int64_t leaf = 0; leaf < 7; ++leaf) {
        const auto at_ = [&](int64_t i) {
          return static_cast<int64_t>(boxes[b][leaf][i].item<float>());
        };
        const int64_t area = (at_(2) - at_(0)) * (at_(3) - at_(1));
        if (area == 0) continue;
        const int64_t wanted = (b + leaf) % 4 - 1;  // -1 counts nowhere
        label[b].slice(0, at_(0), at_(2)).slice(1, at_(1), at_(3)).fill_(wanted);
        if (wanted < 0) continue;
        for (int64_t p = 0; p < 4; ++p) {
          const double weight = options.class_weights[static_cast<size_t>(wanted)] *
                                (by_area ? static_cast<double>(area) / 4.0 : 1.0);
          const at::Tensor log_p =
              at::log_softmax(logits[b].select(1, leaf).select(1, p).to(at::kDouble), 0);
          sum -= weight * log_p[wanted].item<double>();
          total += weight;
        }
      }
    const double mine = leaf_label_loss(logits, label, boxes, options).item<double>();
    std::printf("loss %.6f, plain loop %.6f (allowed 1e-6 apart)\n", mine, sum / total);
    EXPECT_NEAR(mine, sum / total, 1e-6) << "fp32 sums of 48 terms";
  }
}

/// Every loss takes pixel weights as if pixels came several times.
TEST(SapLeaves, AreasWeighTheDiceLossesToo) {
  for (const char* loss : {"dice", "generalized_dice", "dice_focal", "dice_ce", "focal"}) {
    config::Model options = with_leaves({8, 4}, 2);
    options.loss.value = loss, options.adaptive.area_weight = true, options.label_smoothing = 0.1;
    // Leaves of 8 and 24 pixels: 2 and 6 image pixels for each of a patch's.
    const at::Tensor boxes = at::zeros({1, 2, 4});
    boxes[0][0].slice(0, 2).copy_(random({2}) * 0 + 4), boxes[0][0][2] = 2;
    boxes[0][1][0] = 2, boxes[0][1][2] = 8, boxes[0][1][3] = 4;
    at::Tensor label = at::zeros({1, 8, 4}, at::kLong);
    label.slice(1, 1, 2).fill_(1), label.slice(1, 5, 8).fill_(2);
    const at::Tensor logits = random({1, 3, 2, 4}, 8);
    const at::Tensor on_leaves =
        patching::serialise_labels(label, boxes, 2, patching::LabelRule::majority);
    const auto repeated = [](const at::Tensor& x, int64_t axis) {
      std::vector<at::Tensor> parts;
      for (int64_t i = 0; i < 2; ++i) parts.push_back(x.select(axis, 0));
      for (int64_t i = 0; i < 6; ++i) parts.push_back(x.select(axis, 1));
      return at::stack(parts, axis);
    };
    const double expected =
        segmentation_loss(repeated(logits, 2), repeated(on_leaves, 1), options).item<double>();
    EXPECT_NEAR(leaf_label_loss(logits, label, boxes, options).item<double>(), expected, 1e-6)
        << loss;
  }
}

TEST(SapLeaves, LeavesPaddingOutOfEveryLoss) {
  for (const char* space : {"leaf", "image"})
    for (const char* loss : {"dice_ce", "mse"}) {
      config::Model options = with_leaves({8, 12}, 9);
      options.loss.value = loss, options.adaptive.loss_space.value = space;
      const auto model = make(options);
      data::Batch batch = leaves_of(options);
      if (options.loss == "mse") batch.label = random({2, 3, 8, 12}, 5);
      const Output before = model->forward(batch, draws_of(batch));
      batch.leaf_tokens = batch.leaf_tokens.clone();
      batch.leaf_tokens.select(0, 1).slice(1, 6).fill_(9.0);  // the last three are padding
      const Output after = model->forward(batch, draws_of(batch));
      EXPECT_EQ(before.loss.item<double>(), after.loss.item<double>()) << space << " " << loss;
      EXPECT_TRUE(at::equal(before.output, after.output)) << space << " " << loss;
      batch.leaf_tokens.select(0, 1).select(1, 0).add_(random({4}, 77));
      EXPECT_NE(before.loss.item<double>(),
                model->forward(batch, draws_of(batch)).loss.item<double>())
          << space << " " << loss;
    }
}

TEST(SapLeaves, LearnsValuesOnLeavesWhereNaNCountsNowhere) {
  for (const bool by_area : {false, true}) {
    config::Model options = with_leaves({8, 12}, 5);
    options.loss.value = "mse", options.num_classes = 2, options.adaptive.area_weight = by_area;
    const data::Batch batch = leaves_of(options);
    at::Tensor label = random({2, 2, 8, 12}, 5);
    label[0][1][0][0] = std::numeric_limits<float>::quiet_NaN();
    const at::Tensor prediction = random({2, 2, 5, 4}, 8).requires_grad_();
    const at::Tensor wanted =
        patching::serialise(label, batch.leaf_boxes, 2, patching::Resample::area);
    double sum = 0, total = 0;
    for (int64_t b = 0; b < 2; ++b)
      for (int64_t leaf = 0; leaf < 5; ++leaf) {
        const at::Tensor box = batch.leaf_boxes[b][leaf];
        const double area = (box.slice(0, 2) - box.slice(0, 0, 2)).prod().item<double>();
        if (area == 0) continue;
        for (int64_t v = 0; v < 2; ++v)
          for (int64_t p = 0; p < 4; ++p) {
            const double target = wanted[b][v][leaf][p].item<double>();
            if (std::isnan(target)) continue;
            const double weight = by_area ? area : 1.0;
            sum += weight * std::pow(prediction[b][v][leaf][p].item<double>() - target, 2);
            total += weight;
          }
      }
    const at::Tensor loss = leaf_label_loss(prediction, label, batch.leaf_boxes, options);
    EXPECT_NEAR(loss.item<double>(), sum / total, 1e-6);
    loss.backward();
    EXPECT_TRUE(at::isfinite(prediction.grad()).all().item<bool>());
    EXPECT_GT(total, 0);
  }
}

/// Central differences along one random direction a parameter; see variants_test.cpp for the numbers.
TEST(SapLeaves, GradientsAgreeWithFiniteDifferencesInBothSpaces) {
  for (const char* space : {"leaf", "image"})
    for (const Sides& sides : {Sides{8, 12}, Sides{4, 4, 8}}) {
      config::Model options = with_leaves(sides, 7);
      options.adaptive.loss_space.value = space;
      const auto model = make(options);
      const data::Batch batch = leaves_of(options);
      const auto loss = [&] { return model->forward(batch, draws_of(batch, true)).loss; };
      loss().backward();
      double worst_error = 0;
      int tested = 0;
      uint16_t layer = 200;
      for (const nn::NamedTensor& parameter : model->named_parameters()) {
        const at::Tensor gradient = parameter.tensor.grad(),
                         other = random(parameter.tensor.sizes(), layer++);
        const at::Tensor unit = (other / other.norm() + gradient / gradient.norm()) * 0.5;
        const double slope = (gradient * unit).sum().item<double>();
        const at::NoGradGuard no_grad;
        const at::Tensor start = parameter.tensor.clone();
        at::Tensor moved = parameter.tensor;
        moved.copy_(start + unit * 1e-2);
        const double above = loss().item<double>();
        moved.copy_(start - unit * 1e-2);
        const double below = loss().item<double>();
        moved.copy_(start);
        if (std::abs(slope) < 2e-3) continue;
        ++tested;
        worst_error =
            std::max(worst_error, std::abs((above - below) / 2e-2 - slope) / std::abs(slope));
      }
      std::printf("%s, %zu-D: %d slopes, worst relative error %.2e (allowed 1e-2)\n", space,
                  sides.size(), tested, worst_error);
      EXPECT_GE(tested, 12);
      EXPECT_LE(worst_error, 1e-2);
    }
}

TEST(SapLeaves, RefusesLabelsOfAnotherShape) {
  const config::Model options = with_leaves({8, 12}, 7);
  data::Batch batch = leaves_of(options);
  for (const Sides& sides : {Sides{8, 4}, Sides{16, 16}}) {
    batch.label = labels(2, sides, 3);
    EXPECT_THROW(make(options)->forward(batch, draws_of(batch)), core::Error);
  }
}

}  // namespace
}  // namespace vitrail::models
