// Leaves of whole batches: the same as sample by sample, and their gradients.

#include "tests/patching/resample_batch.h"

#include <cstdio>

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "vitrail/core/error.h"
#include "vitrail/patching/batch.h"
#include "vitrail/patching/resample.h"

namespace vitrail::patching {
namespace {

using test::batch_case;
using test::BatchCase;
using test::kMethods;

const std::vector<int64_t> kImage{21, 40}, kVolume{9, 16, 12};

template <class T>
std::span<const T> row(const at::Tensor& tensor, int64_t b) {
  const auto values = static_cast<size_t>(tensor.numel() / tensor.size(0));
  return std::span(tensor.const_data_ptr<T>() + static_cast<size_t>(b) * values, values);
}

at::Tensor gradient(const at::Tensor& of, const at::Tensor& by, const at::Tensor& weight) {
  return torch::autograd::grad({of}, {by}, {weight}, true, true)[0];
}

TEST(ResampleBatch, EqualsSamplesOneByOne) {
  for (const auto& sides : {kImage, kVolume})
    for (const Resample method : kMethods) {
      const BatchCase made = batch_case(sides, 3, 2, 4);
      const at::Tensor tokens = serialise(made.image, made.boxes, 4, method);
      const at::Tensor pasted = paste(made.tokens, made.boxes, sides, method);
      ASSERT_EQ(tokens.sizes(), made.tokens.sizes());
      ASSERT_EQ(pasted.sizes(), made.image.sizes());
      for (int64_t b = 0; b < 3; ++b) {
        std::vector<float> one(row<float>(tokens, b).size());
        serialise(row<float>(made.image, b), 2, sides, row<float>(made.boxes, b), 4, one, method);
        EXPECT_TRUE(std::ranges::equal(row<float>(tokens, b), one));
        one.resize(row<float>(pasted, b).size());
        paste(row<float>(made.tokens, b), 2, sides, row<float>(made.boxes, b), 4, one, method);
        EXPECT_TRUE(std::ranges::equal(row<float>(pasted, b), one));
      }
    }
}

TEST(ResampleBatch, LabelsEqualSamplesOneByOne) {
  for (const auto& sides : {kImage, kVolume}) {
    const BatchCase made = batch_case(sides, 3, 2, 4);
    for (const LabelRule rule : {LabelRule::majority, LabelRule::nearest}) {
      const at::Tensor labels = serialise_labels(made.labels, made.boxes, 4, rule);
      for (int64_t b = 0; b < 3; ++b) {
        std::vector<int64_t> one(row<int64_t>(labels, b).size());
        serialise_labels(row<int64_t>(made.labels, b), sides, row<float>(made.boxes, b), 4, one,
                         rule);
        EXPECT_TRUE(std::ranges::equal(row<int64_t>(labels, b), one));
      }
    }
    const at::Tensor shares = serialise_shares(made.labels, 3, made.boxes, 4);
    EXPECT_EQ(shares.size(1), 3);
    for (int64_t b = 0; b < 3; ++b) {
      std::vector<float> one(row<float>(shares, b).size());
      serialise_shares(row<int64_t>(made.labels, b), 3, sides, row<float>(made.boxes, b), 4, one);
      EXPECT_TRUE(std::ranges::equal(row<float>(shares, b), one));
    }
  }
}

TEST(ResampleBatch, GivesTheSameWithAnyNumberOfThreads) {
  const BatchCase made = batch_case({300, 500}, 2, 3, 8);
  const int threads = at::get_num_threads();
  std::vector<at::Tensor> tokens, pasted, labels;
  for (const int count : {1, 4}) {
    at::set_num_threads(count);
    tokens.push_back(serialise(made.image, made.boxes, 8, Resample::cubic));
    pasted.push_back(paste(made.tokens, made.boxes, made.sides, Resample::cubic));
    labels.push_back(serialise_labels(made.labels, made.boxes, 8, LabelRule::majority));
  }
  at::set_num_threads(threads);
  EXPECT_TRUE(at::equal(tokens[0], tokens[1]));
  EXPECT_TRUE(at::equal(pasted[0], pasted[1]));
  EXPECT_TRUE(at::equal(labels[0], labels[1]));
}

/// <gradient, direction> against the difference of <f, weight> along it; f is linear, so steps may be large.
double gradient_error(const std::function<at::Tensor(const at::Tensor&)>& function,
                      const at::Tensor& at, const at::Tensor& weight, const at::Tensor& direction) {
  const at::Tensor x = at.detach().clone().set_requires_grad(true);
  const at::Tensor found = gradient(function(x), x, weight);
  const auto value = [&](const at::Tensor& place) {
    return (function(place).to(at::kDouble) * weight).sum().item<double>();
  };
  const double difference = (value(at + direction) - value(at - direction)) / 2;
  const double slope = (found.to(at::kDouble) * direction).sum().item<double>();
  return std::abs(difference - slope) /
         (weight.norm().item<double>() * direction.norm().item<double>());
}

TEST(ResampleBatch, GradientsAreThoseOfFiniteDifferences) {
  double worst = 0;
  for (const auto& sides : {kImage, kVolume})
    for (const Resample method : kMethods) {
      const BatchCase made = batch_case(sides, 2, 2, 4);
      const auto forward = [&](const at::Tensor& x) { return serialise(x, made.boxes, 4, method); };
      const auto back = [&](const at::Tensor& x) { return paste(x, made.boxes, sides, method); };
      const at::Tensor direction = made.image.flip({-1}), to = made.tokens.flip({-1});
      worst = std::max(worst, gradient_error(forward, made.image, made.tokens, direction));
      worst = std::max(worst, gradient_error(back, made.tokens, made.image, to));
      // The gradient is linear in its weight and has gradients of its own.
      const at::Tensor x = at::zeros_like(made.image).set_requires_grad(true);
      worst = std::max(worst, gradient_error(
                                  [&](const at::Tensor& weight) {
                                    return gradient(serialise(x, made.boxes, 4, method), x, weight);
                                  },
                                  made.tokens, made.image, to));
    }
  std::printf("worst relative difference %.1e (allowed 1e-7)\n", worst);
  EXPECT_LE(worst, 1e-7);  // floats round at 6e-8, and errors of many partly cancel
}

TEST(ResampleBatch, TakesOtherTypesAndStrides) {
  const BatchCase made = batch_case(kImage, 2, 2, 4);
  const at::Tensor bf16 = made.image.to(at::kBFloat16);
  EXPECT_TRUE(at::equal(serialise(bf16, made.boxes, 4, Resample::area),
                        serialise(bf16.to(at::kFloat), made.boxes, 4, Resample::area)));
  const at::Tensor tokens = made.tokens.to(at::kBFloat16).set_requires_grad(true);
  const at::Tensor image = paste(tokens, made.boxes, kImage, Resample::area);
  EXPECT_EQ(image.scalar_type(), at::kFloat);
  EXPECT_EQ(gradient(image, tokens, made.image).scalar_type(), at::kBFloat16);
  const at::Tensor turned = made.image.transpose(2, 3).contiguous().transpose(2, 3);
  ASSERT_FALSE(turned.is_contiguous());
  EXPECT_TRUE(at::equal(serialise(turned, made.boxes, 4, Resample::area),
                        serialise(made.image, made.boxes, 4, Resample::area)));
  EXPECT_EQ(serialise(made.image.slice(0, 0, 0), made.boxes.slice(0, 0, 0), 4, Resample::area)
                .sizes()
                .vec(),
            (std::vector<int64_t>{0, 2, made.leaves, 16}));
}

TEST(ResampleBatch, RefusesWhatDoesNotFit) {
  const BatchCase made = batch_case(kImage, 2, 2, 4);
  const at::Tensor& image = made.image;
  const auto refused = [&](const at::Tensor& boxes, int64_t patch = 4) {
    EXPECT_THROW(serialise(image, boxes, patch, Resample::area), core::Error);
    EXPECT_THROW(serialise_labels(made.labels, boxes, patch, LabelRule::majority), core::Error);
    EXPECT_THROW(serialise_shares(made.labels, 3, boxes, patch), core::Error);
  };
  refused(made.boxes.slice(0, 0, 1));
  refused(made.boxes.slice(2, 0, 3));
  refused(made.boxes.to(at::kLong));
  refused(made.boxes + 0.5);
  refused(made.boxes * 100);
  refused(made.boxes, 0);
  refused(made.boxes, kLargestPatch + 1);
  EXPECT_THROW(serialise(made.labels, made.boxes, 4, Resample::area), core::Error);
  EXPECT_THROW(serialise(image.to(at::kLong), made.boxes, 4, Resample::area), core::Error);
  EXPECT_THROW(paste(made.tokens.slice(3, 0, 15), made.boxes, kImage, Resample::area), core::Error);
  EXPECT_THROW(paste(made.tokens.slice(2, 1), made.boxes, kImage, Resample::area), core::Error);
  EXPECT_THROW(paste(made.tokens, made.boxes, {20, 40}, Resample::area), core::Error);
}

}  // namespace
}  // namespace vitrail::patching
