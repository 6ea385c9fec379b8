#include "vitrail/train/optimizer.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/randn_like.h>
#include <ATen/ops/repeat_interleave.h>
#include <gtest/gtest.h>

#include "tests/parallel/tiny.h"

namespace vitrail::train {
namespace {

using parallel::UnitSet;
using testing::largest;

struct Fixture {
  std::shared_ptr<models::Model> model;
  UnitSet units;
  explicit Fixture(at::ScalarType dtype = at::kFloat)
      : model(models::make_model(testing::tiny_vit(), 1)), units(*model, at::kCPU, dtype) {
    const at::NoGradGuard no_grad;
    units.for_each_slot([&](const parallel::ParameterSlot& slot) {
      at::Tensor gradient = UnitSet::view(units.gradient(), slot);
      for (int64_t i = 0; i < slot.count; ++i)
        gradient.data_ptr<float>()[i] =
            core::uniform({.seed = 4}, static_cast<uint64_t>(slot.offset),
                          static_cast<uint32_t>(i)) -
            0.5f;
    });
  }
};

config::Optimizer adamw(double weight_decay = 0.1) {
  config::Optimizer options;
  options.weight_decay = weight_decay;
  return options;
}

TEST(Optimizer, OneAdamwUpdateFollowsTheFormula) {
  Fixture f;
  Optimizer optimizer(f.units, adamw(), std::nullopt);
  const at::NoGradGuard no_grad;
  const at::Tensor p = f.units.master().to(at::kDouble), g = f.units.gradient().to(at::kDouble);
  const at::Tensor decay =
      f.units.decay_mask().to(at::kDouble).repeat_interleave(parallel::kAlignment);
  optimizer.step(0.01, 1, optimizer.gradient_norm(0.0));
  // After the first update m / (1 - b1) = g and v / (1 - b2) = g^2.
  const at::Tensor expected = p - decay * p * (0.01 * 0.1) - g / (g.abs() + 1e-8) * 0.01;
  const double difference = largest(f.units.master().to(at::kDouble) - expected);
  // fp32 rounding of weights up to 1 and of 1 - 0.999: worst seen 1.3e-7.
  std::printf("worst difference %.2g (allowed 5e-7)\n", difference);
  EXPECT_LE(difference, 5e-7);
}

TEST(Optimizer, BiasesAndNormsDoNotDecay) {
  Fixture f;
  Optimizer optimizer(f.units, adamw(0.5), std::nullopt);
  const at::NoGradGuard no_grad;
  f.units.zero_gradients();
  const at::Tensor before = f.units.master().clone();
  optimizer.step(0.1, 1, optimizer.gradient_norm(0.0));
  f.units.for_each_slot([&](const parallel::ParameterSlot& slot) {
    const at::Tensor was = UnitSet::view(before, slot), is = UnitSet::view(f.units.master(), slot);
    if (slot.decay)
      EXPECT_LE(largest(is - was * 0.95), 1e-7 * (1 + largest(was)))
          << slot.name;  // half an ulp of the product
    else
      EXPECT_TRUE(is.equal(was)) << slot.name;
  });
}

TEST(Optimizer, TheNormIsTheGlobalNormAndScalesTheUpdate) {
  Fixture f;
  config::Optimizer options;
  options.kind.value = "sgd";
  options.momentum = 0.0;
  options.weight_decay = 0.0;
  Optimizer optimizer(f.units, options, std::nullopt);
  const at::NoGradGuard no_grad;
  const double expected =
      std::sqrt(f.units.gradient().to(at::kDouble).square().sum().item().toDouble());
  const GradientNorm norm = optimizer.gradient_norm(expected / 2);
  EXPECT_NEAR(norm.norm.item().toDouble(), expected, 1e-7 * expected);  // one rounding to fp32
  const at::Tensor before = f.units.master().clone();
  optimizer.step(1.0, 1, norm);
  const at::Tensor change = (before - f.units.master()).to(at::kDouble);
  const double length = std::sqrt(change.square().sum().item().toDouble());
  EXPECT_NEAR(length, expected / 2,
              1e-5 * expected);  // the 1e-6 in the factor, and rounding of the weights
}

TEST(Optimizer, TheNormDoesNotDependOnThreads) {
  Fixture f;
  Optimizer optimizer(f.units, adamw(), std::nullopt);
  const int before = at::get_num_threads();
  at::set_num_threads(1);
  const float one = optimizer.gradient_norm(1.0).norm.item().toFloat();
  at::set_num_threads(2);
  const float two = optimizer.gradient_norm(1.0).norm.item().toFloat();
  at::set_num_threads(before);
  EXPECT_EQ(one, two);
}

TEST(Optimizer, ANonFiniteGradientChangesNothing) {
  for (const float bad :
       {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()})
    for (const char* kind : {"adamw", "sgd"}) {
      Fixture f(at::kBFloat16);
      config::Optimizer options = adamw();
      options.kind.value = kind;
      Optimizer optimizer(f.units, options, 0.99);
      optimizer.step(0.01, 1, optimizer.gradient_norm(1.0));
      std::vector<at::Tensor> before{f.units.master().clone(), f.units.weights().clone()};
      for (const auto& state : optimizer.states()) before.push_back(state.arena.clone());
      f.units.gradient().data_ptr<float>()[5] = bad;
      const GradientNorm norm = optimizer.gradient_norm(1.0);
      EXPECT_EQ(norm.scale.item().toFloat(), 0.0f);
      optimizer.step(0.01, 2, norm);
      std::vector<at::Tensor> after{f.units.master(), f.units.weights()};
      for (const auto& state : optimizer.states()) after.push_back(state.arena);
      for (size_t i = 0; i < before.size(); ++i)
        EXPECT_TRUE(after[i].equal(before[i])) << kind << " " << i;
    }
}

TEST(Optimizer, WritesComputeWeightsAndAverageInTheSamePass) {
  Fixture f(at::kBFloat16);
  Optimizer optimizer(f.units, adamw(), 0.9);
  const at::NoGradGuard no_grad;
  const at::Tensor before = f.units.master().clone();
  optimizer.step(0.01, 1, optimizer.gradient_norm(0.0));
  EXPECT_TRUE(f.units.weights().equal(f.units.master().to(at::kBFloat16)));
  const at::Tensor expected = before * 0.9 + f.units.master() * 0.1;
  EXPECT_LE(largest(optimizer.ema() - expected), 3e-7);  // rounding of values up to 2
}

TEST(Optimizer, LayerDecayScalesTheRateOfEmbeddingAndBlocks) {
  Fixture plain, decayed;
  config::Optimizer options = adamw(0.0);
  Optimizer everywhere(plain.units, options, std::nullopt);
  options.layer_decay = 0.5;
  Optimizer by_layer(decayed.units, options, std::nullopt);
  const at::NoGradGuard no_grad;
  const at::Tensor before = plain.units.master().clone();
  everywhere.step(0.01, 1, everywhere.gradient_norm(0.0));
  by_layer.step(0.01, 1, by_layer.gradient_norm(0.0));
  const at::Tensor whole = plain.units.master() - before, part = decayed.units.master() - before;
  int64_t depth = 0;
  for (const parallel::Unit& unit : plain.units.units()) depth += unit.block >= 0;
  ASSERT_GE(depth, 2);
  double worst = 0;
  for (const parallel::Unit& unit : plain.units.units()) {
    double share = 1;  // the head
    if (unit.name == "embed") share = std::pow(0.5, static_cast<double>(depth + 1));
    if (unit.block >= 0) share = std::pow(0.5, static_cast<double>(depth - unit.block));
    for (const parallel::ParameterSlot& slot : unit.slots)
      worst =
          std::max(worst, largest(UnitSet::view(part, slot) - UnitSet::view(whole, slot) * share));
  }
  // Without decay the first update is a sign times the rate; both are differences of weights near 1, rounded to 1.2e-7.
  std::printf("worst difference %.2g (allowed 3e-7)\n", worst);
  EXPECT_LE(worst, 3e-7);
}

TEST(Optimizer, NamesItsState) {
  Fixture f;
  const auto names = [&](const char* kind, std::optional<double> ema) {
    config::Optimizer options = adamw();
    options.kind.value = kind;
    std::vector<std::string> found;
    Optimizer optimizer(f.units, options, ema);
    for (const auto& state : optimizer.states()) found.push_back(state.name);
    return found;
  };
  EXPECT_EQ(names("adamw", std::nullopt), (std::vector<std::string>{"exp_avg", "exp_avg_sq"}));
  EXPECT_EQ(names("sgd", 0.9), (std::vector<std::string>{"momentum", "ema"}));
}

}  // namespace
}  // namespace vitrail::train
