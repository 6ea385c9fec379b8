#include "vitrail/ops/boxes.h"

#include <cmath>

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

namespace vitrail::ops {
namespace {

at::Tensor box(std::initializer_list<double> values) {
  return at::tensor(std::vector<double>(values), at::kDouble);
}

double number(const at::Tensor& scalar) { return scalar.item<double>(); }

TEST(Boxes, FormsGoThereAndBack) {
  const at::Tensor corners = box({1, 2, 5, 10});
  EXPECT_TRUE(corners_to_centres(corners).equal(box({3, 6, 4, 8})));
  EXPECT_TRUE(centres_to_corners(corners_to_centres(corners)).equal(corners));
  EXPECT_EQ(number(box_area(corners)), 32);
  EXPECT_EQ(number(box_area(box({5, 2, 1, 10}))), 0);
}

TEST(Boxes, OverlapsOfKnownBoxes) {
  const at::Tensor a = box({0, 0, 2, 2});
  EXPECT_DOUBLE_EQ(number(box_iou(a, a)), 1);
  EXPECT_DOUBLE_EQ(number(generalised_iou(a, a)), 1);
  EXPECT_DOUBLE_EQ(number(box_iou(a, box({1, 0, 3, 2}))), 1.0 / 3);
  // Two unit squares with a gap of two: the hull has 4, half of it is empty.
  EXPECT_DOUBLE_EQ(number(generalised_iou(box({0, 0, 1, 1}), box({3, 0, 4, 1}))), -0.5);
  // One inside the other: hull and union are the same.
  EXPECT_DOUBLE_EQ(number(generalised_iou(a, box({0, 0, 1, 1}))), 0.25);
}

TEST(Boxes, WithoutAreaOverlapNothingAndStayFinite) {
  const at::Tensor point = box({1, 1, 1, 1}).set_requires_grad(true);
  const at::Tensor giou = generalised_iou(point, point.detach());
  EXPECT_EQ(number(giou.detach()), 0);
  giou.backward();
  EXPECT_TRUE(std::isfinite(number(point.grad().abs().sum())));
}

TEST(Boxes, AllPairsComeByBroadcasting) {
  const at::Tensor a = at::rand({2, 3, 4}, at::kDouble), b = at::rand({2, 5, 4}, at::kDouble);
  const at::Tensor pairs =
      generalised_iou(centres_to_corners(a).unsqueeze(-2), centres_to_corners(b).unsqueeze(-3));
  ASSERT_EQ(pairs.sizes(), (std::vector<int64_t>{2, 3, 5}));
  const at::Tensor one = generalised_iou(centres_to_corners(a[1][2]), centres_to_corners(b[1][4]));
  EXPECT_EQ(number(pairs[1][2][4]), number(one));
}

TEST(Boxes, GradientsAreThoseOfFiniteDifferences) {
  const at::Tensor start = at::rand({40, 4}, at::kDouble) * 0.5 + 0.25;
  const at::Tensor other = centres_to_corners(at::rand({40, 4}, at::kDouble) * 0.5 + 0.25);
  const auto value = [&](const at::Tensor& boxes) {
    return (generalised_iou(centres_to_corners(boxes), other) +
            box_iou(centres_to_corners(boxes), other))
        .sum();
  };
  at::Tensor boxes = start.clone().set_requires_grad(true);
  value(boxes).backward();
  const at::NoGradGuard no_grad;
  constexpr double kStep = 1e-6;
  double worst = 0;
  for (int64_t i = 0; i < 40; ++i)
    for (int64_t k = 0; k < 4; ++k) {
      at::Tensor up = start.clone(), down = start.clone();
      up[i][k] += kStep, down[i][k] -= kStep;
      const double slope = number(value(up) - value(down)) / (2 * kStep);
      worst = std::max(worst, std::abs(slope - number(boxes.grad()[i][k])));
    }
  printf("boxes: worst gradient error %.1e\n", worst);
  // Central differences: rounding 1e-16 * 80 / 1e-6 = 1e-8, curvature 1e-12 times third derivatives of some 1e3.
  EXPECT_LE(worst, 1e-6);
}

}  // namespace
}  // namespace vitrail::ops
