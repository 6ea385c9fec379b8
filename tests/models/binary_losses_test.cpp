// Losses of one class against the background.

#include <cmath>

#include <ATen/TensorOperators.h>
#include <ATen/ops/binary_cross_entropy_with_logits.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros_like.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tests/models/tiny_models.h"
#include "vitrail/core/error.h"
#include "vitrail/models/losses.h"

namespace vitrail::models {
namespace {

config::Model with_loss(const char* loss) {
  config::Model options = tiny("rat");
  options.loss.value = loss, options.num_classes = 2;
  return options;
}

/// As of the model: the background's logit is 0.
at::Tensor both(const at::Tensor& z) { return at::stack({at::zeros_like(z), z}, 1); }

at::Tensor dice_by_hand(const at::Tensor& z, const at::Tensor& g) {
  const at::Tensor p = z.sigmoid().flatten(1), t = g.flatten(1);
  return (1.0 - (2.0 * (p * t).sum(1) + 1e-6) / (p.sum(1) + t.sum(1) + 1e-6)).mean();
}

TEST(BinaryLosses, AreTorchsCrossEntropyAndTheDiceOfTheFormula) {
  const at::Tensor z = random({3, 4, 5}, 1).to(at::kDouble) * 3.0;
  const at::Tensor label = random({3, 4, 5}, 2).gt(0.2).to(at::kLong), g = label.to(at::kDouble);
  const at::Tensor mine = z.clone().requires_grad_(true), theirs = z.clone().requires_grad_(true);
  const at::Tensor bce = at::binary_cross_entropy_with_logits(theirs, g);
  EXPECT_NEAR(segmentation_loss(both(z), label, with_loss("bce")).item<double>(),
              bce.item<double>(), 1e-14);
  const at::Tensor loss = segmentation_loss(both(mine), label, with_loss("bce_dice"));
  const at::Tensor expected = 0.5 * bce + 0.5 * dice_by_hand(theirs, g);
  loss.backward();
  expected.backward();
  const double apart = (mine.grad() - theirs.grad()).abs().max().item<double>();
  fmt::print("bce_dice: value apart by {:.1e}, gradients by {:.1e}\n",
             std::abs(loss.item<double>() - expected.item<double>()), apart);
  EXPECT_NEAR(loss.item<double>(), expected.item<double>(), 1e-14);  // 60 terms in fp64
  EXPECT_LT(apart, 1e-15);
}

TEST(BinaryLosses, PixelsWithoutLabelCountNowhere) {
  const at::Tensor z = random({2, 4, 6}, 3).to(at::kDouble);
  at::Tensor label = random({2, 4, 6}, 4).gt(0.0).to(at::kLong);
  label.narrow(2, 4, 2).fill_(-1);
  for (const char* loss : {"bce", "bce_dice"})
    EXPECT_NEAR(segmentation_loss(both(z), label, with_loss(loss)).item<double>(),
                segmentation_loss(both(z.narrow(2, 0, 4)), label.narrow(2, 0, 4), with_loss(loss))
                    .item<double>(),
                1e-14)
        << loss;
}

TEST(BinaryLosses, AnEmptyMaskFoundEmptyCostsNothing) {
  const at::Tensor z = at::zeros({1, 4, 4}, at::kDouble) - 60.0;
  const at::Tensor label = at::zeros({1, 4, 4}, at::kLong);
  EXPECT_LT(segmentation_loss(both(z), label, with_loss("bce_dice")).item<double>(), 1e-12);
}

TEST(BinaryLosses, RefuseThreeClasses) {
  const at::Tensor logits = random({1, 3, 4, 4}, 5);
  EXPECT_THROW(segmentation_loss(logits, at::zeros({1, 4, 4}, at::kLong), with_loss("bce")),
               core::ConfigError);
}

}  // namespace
}  // namespace vitrail::models
