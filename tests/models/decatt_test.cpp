// The loss between heads: its formula, its limits, its gradients, and how it enters a model's loss.

#include "vitrail/models/decatt.h"

#include <cmath>
#include <cstdio>

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/ones.h>
#include <gtest/gtest.h>

#include "tests/models/segmenter_cases.h"
#include "tests/models/tiny_models.h"
#include "vitrail/models/encoder.h"
#include "vitrail/nn/block.h"
#include "vitrail/nn/engine.h"
#include "vitrail/nn/fused_engine.h"

namespace vitrail::models {
namespace {

at::Tensor wide(at::IntArrayRef shape, uint16_t layer = 0) {
  return random(shape, layer).to(at::kDouble);
}

double value(const at::Tensor& x, std::initializer_list<int64_t> place) {
  at::Tensor at_place = x;
  for (const int64_t index : place) at_place = at_place[index];
  return at_place.item<double>();
}

/// The README's words, element by element.
double heads_formula(const at::Tensor& attended_BTD, int64_t heads) {
  const int64_t B = attended_BTD.size(0), T = attended_BTD.size(1),
                E = attended_BTD.size(2) / heads;
  double loss = 0.0;
  for (int64_t b = 0; b < B; ++b) {
    std::vector<std::vector<double>> products(heads, std::vector<double>(heads, 0.0));
    double norm = 0.0;
    for (int64_t i = 0; i < heads; ++i)
      for (int64_t j = 0; j < heads; ++j)
        for (int64_t t = 0; t < T; ++t)
          for (int64_t e = 0; e < E; ++e)
            products[i][j] +=
                value(attended_BTD, {b, t, i * E + e}) * value(attended_BTD, {b, t, j * E + e});
    for (int64_t i = 0; i < heads; ++i) norm += products[i][i];
    for (int64_t i = 0; i < heads; ++i)
      for (int64_t j = 0; j < heads; ++j)
        if (i != j) loss += std::pow(products[i][j] / norm, 2);
  }
  return loss / static_cast<double>(B);
}

TEST(Decatt, IsTheSumOfSquaredCorrelationsBetweenHeads) {
  const at::Tensor attended = wide({3, 4, 12});
  for (const int64_t heads : {2, 3, 4, 6}) {
    const double found = head_correlation(attended, heads).item<double>();
    // Sums of 48 fp64 products in another order.
    EXPECT_NEAR(found, heads_formula(attended, heads), 1e-14);
    EXPECT_GT(found, 0.0);
  }
}

TEST(Decatt, VanishesForOrthogonalHeadsAndIsLargestForEqualOnes) {
  constexpr int64_t kHeads = 3, kWidth = 2;
  // Head i is not zero at token i alone.
  const at::Tensor orthogonal = at::eye(kHeads, at::kDouble)
                                    .unsqueeze(-1)
                                    .expand({kHeads, kHeads, kWidth})
                                    .reshape({1, 3, 6});
  EXPECT_EQ(head_correlation(orthogonal, kHeads).item<double>(), 0.0);
  const at::Tensor one = wide({2, 3, kWidth});
  EXPECT_NEAR(head_correlation(at::cat({one, one, one}, 2), kHeads).item<double>(),
              (kHeads - 1.0) / kHeads, 1e-15);
}

TEST(Decatt, IsAMeanOverSamples) {
  const at::Tensor attended = wide({6, 4, 12});
  const double whole = head_correlation(attended, 3).item<double>();
  double halves = 0.0;
  for (const int64_t first : {0, 3})
    halves += 0.5 * head_correlation(attended.narrow(0, first, 3), 3).item<double>();
  EXPECT_NEAR(whole, halves, 1e-15);
}

TEST(Decatt, PaddingCountsNothing) {
  const at::Tensor attended = wide({2, 5, 12});
  at::Tensor real = at::ones({2, 5}, at::kBool);
  real[1][3] = false, real[1][4] = false;
  at::Tensor other = attended.clone();
  other[1].narrow(0, 3, 2).fill_(1e3);
  EXPECT_EQ(head_correlation(attended, 3, real).item<double>(),
            head_correlation(other, 3, real).item<double>());
  EXPECT_EQ(token_part_correlation(attended, 3, real).item<double>(),
            token_part_correlation(other, 3, real).item<double>());
}

/// The first program's words: C2[b, i] summed over j, all of it less C2[k, k].
double thirds_formula(const at::Tensor& x_BTD, int64_t heads) {
  const int64_t B = x_BTD.size(0);
  double loss = 0.0;
  for (int64_t b = 0; b < B; ++b) {
    const at::Tensor rows = x_BTD[b].contiguous().view({heads, -1});
    const at::Tensor c = rows.matmul(rows.t()) / rows.square().sum();
    loss += c.square().sum().item<double>();
    if (b < heads) loss -= c[b].square().sum().item<double>();
  }
  return loss / static_cast<double>(B);
}

TEST(Decatt, TokenThirdsLeaveTheDiagonalsInAndStopAtTheirFloor) {
  const at::Tensor x = wide({5, 3, 12});
  EXPECT_NEAR(token_part_correlation(x, 3).item<double>(), thirds_formula(x, 3), 1e-14);
  EXPECT_NEAR(token_part_correlation(x, 6).item<double>(), thirds_formula(x, 6), 1e-14);
  // Rows that are orthogonal and equally long: what 150 times it came to in the published runs.
  constexpr int64_t kBatch = 256;
  for (const auto& [heads, published] : {std::pair{3, 49.805}, std::pair{6, 24.902}}) {
    const at::Tensor rows =
        at::eye(heads, at::kDouble).unsqueeze(0).expand({kBatch, heads, heads}).contiguous();
    const double floor = token_part_correlation(rows, heads).item<double>();
    EXPECT_NEAR(floor, (1.0 / heads) * (1.0 - 1.0 / kBatch), 1e-12);
    EXPECT_NEAR(150.0 * floor, published, 1e-3);
  }
}

/// A trunk of two blocks in fp64.
std::unique_ptr<nn::Stack> trunk(std::unique_ptr<nn::BlockEngine> engine) {
  at::set_num_threads(1);
  std::vector<std::shared_ptr<nn::Block>> blocks;
  for (int i = 0; i < 2; ++i) {
    nn::BlockOptions options;
    options.width = 12, options.num_heads = 3, options.mlp_hidden = 20, options.index = i;
    blocks.push_back(std::make_shared<nn::Block>(options));
  }
  auto stack = std::make_unique<nn::Stack>(std::move(blocks));
  uint16_t layer = 60;
  for (nn::NamedTensor& parameter : stack->named_parameters())
    parameter.tensor.set_data(wide(parameter.tensor.sizes(), layer++));
  stack->set_engine(std::move(engine));
  return stack;
}

class DecattGradients : public testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Forms, DecattGradients, testing::Values("heads", "token_thirds"),
                         [](const auto& tested) { return std::string(tested.param); });

// Central differences with a step of 1e-5: an error of 1e-10 times a third derivative, and 1e-16 / 1e-5 of rounding;
// relative to the largest gradient. Worst seen 3e-9.
TEST_P(DecattGradients, AreFiniteDifferencesUnderBothEngines) {
  constexpr double kStep = 1e-5;
  config::Decatt options;
  options.weight = 1.0, options.form.value = GetParam();
  const Decatt decatt(options, 2, 3);
  for (const bool fused : {false, true}) {
    const auto stack =
        trunk(fused ? std::unique_ptr<nn::BlockEngine>(nn::fused_engine()) : nn::autograd_engine());
    const at::Tensor x = wide({2, 4, 12}, 7).set_requires_grad(true);
    const auto loss = [&] {
      std::vector<at::Tensor> tapped;
      const at::Tensor y = stack->forward(x, {}, decatt.taps(), &tapped);
      return decatt.loss(tapped, {}) + 0.01 * y.sum();
    };
    loss().backward();
    std::vector<nn::NamedTensor> leaves = stack->named_parameters();
    leaves.push_back({"x", x});
    double worst = 0.0;
    const at::NoGradGuard no_grad;
    for (const nn::NamedTensor& leaf : leaves) {
      at::Tensor flat = leaf.tensor.detach().view({-1});
      const at::Tensor gradient = leaf.tensor.grad().reshape({-1});
      const double scale = std::max(1e-2, gradient.abs().max().item<double>());
      for (int64_t e = 0; e < flat.numel(); e += std::max<int64_t>(1, flat.numel() / 5)) {
        const double before = flat[e].item<double>();
        flat[e] = before + kStep;
        const double above = loss().item<double>();
        flat[e] = before - kStep;
        const double below = loss().item<double>();
        flat[e] = before;
        worst = std::max(
            worst, std::abs((above - below) / (2 * kStep) - gradient[e].item<double>()) / scale);
      }
    }
    std::printf("%s, %s: worst difference %.2g\n", GetParam(), stack->engine().name().c_str(),
                worst);
    EXPECT_LT(worst, 1e-7);
  }
}

data::Batch batch_of(const config::Model& options) {
  if (options.kind == "unetr") return images(options, 4);
  return batch_for(options, 4);
}

/// Gradients of a training pass, in the order of the parameters; the loss last.
std::vector<at::Tensor> pass(const config::Model& options, const config::Train& train,
                             at::Tensor* term = nullptr, bool training = true) {
  const std::shared_ptr<Model> model = make_model(options, 3);
  configure(*model, train);
  const data::Batch batch = batch_of(options);
  const nn::Draws draws{3, 1, batch.sample_ids, training};
  const at::Tensor loss = model->forward(model->prepared(batch, draws), draws).loss;
  loss.backward();
  if (term) *term = dynamic_cast<EncoderModel&>(*model).last_decatt();
  std::vector<at::Tensor> results;
  for (nn::NamedTensor& parameter : model->named_parameters())
    results.push_back(parameter.tensor.grad());
  results.push_back(loss.detach());
  return results;
}

double worst_relative(const std::vector<at::Tensor>& found,
                      const std::vector<at::Tensor>& expected) {
  double worst = 0.0;
  for (size_t i = 0; i < expected.size(); ++i) {
    if (!expected[i].defined()) continue;
    const double scale = expected[i].abs().max().item().toDouble() + 1e-6;
    worst = std::max(worst, (found[i] - expected[i]).abs().max().item().toDouble() / scale);
  }
  return worst;
}

std::vector<config::Model> kinds() {
  config::Model unetr = segmenter("unetr", {8, 8}, 2);
  unetr.skips = true;  // its decoder taps blocks as well
  config::Model leaves = tiny("vit");
  make_adaptive(leaves);
  return {tiny("vit"), tiny("mae"), unetr, leaves};
}

config::Train with_decatt(const char* engine = "autograd", const char* recompute = "none") {
  config::Train train;
  train.decatt.weight = 3.0, train.decatt.blocks = {0, 1};
  train.engine.value = engine, train.recompute.value = recompute;
  return train;
}

TEST(Decatt, AddsItsWeightedTermToTheLossOfTrainingAlone) {
  at::set_num_threads(1);
  for (const config::Model& options : kinds()) {
    SCOPED_TRACE(options.kind.value);
    at::Tensor term, none;
    const double with = pass(options, with_decatt(), &term).back().item<double>();
    const double without = pass(options, {}, &none).back().item<double>();
    ASSERT_TRUE(term.defined());
    EXPECT_FALSE(none.defined());
    EXPECT_GT(term.item<double>(), 1e-3);
    EXPECT_NEAR(with, without + 3.0 * term.item<double>(), 1e-5);
    const double evaluated = pass(options, with_decatt(), &none, false).back().item<double>();
    EXPECT_EQ(evaluated, pass(options, {}, nullptr, false).back().item<double>());
  }
}

TEST(Decatt, TrainsAlikeUnderBothEnginesAndEveryKindOfRecompute) {
  at::set_num_threads(1);
  for (const config::Model& options : kinds()) {
    const std::vector<at::Tensor> expected = pass(options, with_decatt());
    const double fused = worst_relative(pass(options, with_decatt("fused")), expected);
    std::printf("%s: fused engine, worst relative difference %.2g\n", options.kind.value.c_str(),
                fused);
    EXPECT_LT(fused, 1e-4) << options.kind.value;  // fp32 sums in another order; worst seen 4e-6
    for (const char* engine : {"autograd", "fused"})
      for (const char* recompute : {"block", "every_k", "selective"})
        EXPECT_LT(worst_relative(pass(options, with_decatt(engine, recompute)), expected), 1e-4)
            << options.kind.value << ", " << engine << ", " << recompute;
  }
}

TEST(Decatt, WithoutAListOfBlocksTakesTheFirstThree) {
  config::Decatt options;
  options.weight = 1.0;
  EXPECT_EQ(Decatt(options, 12, 3).taps(),
            (std::vector<nn::Tap>{
                {0, nn::TapOf::attention}, {1, nn::TapOf::attention}, {2, nn::TapOf::attention}}));
  EXPECT_EQ(Decatt(options, 2, 3).taps().size(), 2u);
  options.form.value = "token_thirds";
  EXPECT_EQ(Decatt(options, 12, 3).taps(), (std::vector<nn::Tap>{2}));
}

}  // namespace
}  // namespace vitrail::models
