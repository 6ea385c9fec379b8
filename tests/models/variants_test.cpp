/// What must hold for every form of a model: plain ones, variables, adaptive patches, rotary positions, shared keys.
#include <cmath>
#include <cstdio>

#include <ATen/ops/zeros_like.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/models/tiny_models.h"

namespace vitrail::models {
namespace {

std::vector<Variant> all_variants() {
  std::vector<Variant> all = variants();
  all.push_back({"vit", [] { return tiny("vit"); }});
  all.push_back({"mae", [] { return tiny("mae"); }});
  all.push_back({"mae_linear_decoder", [] {
                   config::Model options = tiny("mae");
                   options.decoder.value = "linear";
                   return options;
                 }});
  return all;
}

class EveryVariant : public testing::TestWithParam<Variant> {};
INSTANTIATE_TEST_SUITE_P(Models, EveryVariant, testing::ValuesIn(all_variants()),
                         [](const auto& tested) { return std::string(tested.param.name); });

TEST_P(EveryVariant, PutsEveryParameterInExactlyOneUnit) {
  const auto model = make_model(GetParam().options(), 0);
  std::vector<std::string> in_units, all;
  for (const UnitSpec& unit : model->units())
    for (const nn::NamedTensor& parameter : unit.parameters) in_units.push_back(parameter.name);
  for (const nn::NamedTensor& parameter : model->named_parameters()) all.push_back(parameter.name);
  EXPECT_THAT(in_units, testing::UnorderedElementsAreArray(all));
}

TEST_P(EveryVariant, HasFiniteInitialValuesAndTheShapesOfTheModelWithoutMemory) {
  const auto model = make_model(GetParam().options(), 0),
             shapes = make_model_shapes(GetParam().options());
  const auto real = model->named_parameters(), bare = shapes->named_parameters();
  ASSERT_EQ(real.size(), bare.size());
  for (size_t p = 0; p < real.size(); ++p) {
    EXPECT_EQ(real[p].name, bare[p].name);
    EXPECT_EQ(real[p].tensor.sizes(), bare[p].tensor.sizes()) << real[p].name;
    EXPECT_TRUE(bare[p].tensor.is_meta()) << real[p].name;
    EXPECT_LE(real[p].tensor.abs().max().item<float>(), 2.0f) << real[p].name;
  }
}

/// A sample's output must not depend on its neighbours in the batch, dropouts included.
TEST_P(EveryVariant, ASampleComputesTheSameInAnyBatch) {
  config::Model options = GetParam().options();
  options.drop_path_rate = 0.5,
  options.proj_drop_rate = options.attn_drop_rate = options.pos_drop_rate = 0.2;
  const auto model = make_model(options, 0);
  randomise(*model);
  const data::Batch four = batch_for(options, 4), last = batch_for(options, 1, 3);
  const at::Tensor together = model->forward(four, draws_of(four, true)).output[3];
  const at::Tensor alone = model->forward(last, draws_of(last, true)).output[0];
  const double worst = (together - alone).abs().max().item<double>();
  EXPECT_LE(worst, 1e-5)
      << "outputs of order 1; matrix products of another batch size add in another order";
}

/// Central differences of the loss along one direction a parameter: half the gradient's, so that the slope is not lost in
/// rounding, half random, so that a wrong direction shows. The loss is fp32 (1e-7 of about 2) and the step 1e-2, so
/// rounding leaves 1e-5 / |slope|, and the third derivative adds step^2: 1 % allowed on slopes above 2e-3.
TEST_P(EveryVariant, GradientsAgreeWithFiniteDifferences) {
  config::Model options = GetParam().options();
  options.qk_norm = options.norm == "layernorm", options.layer_scale = 0.5;
  const auto model = make_model(options, 0);
  randomise(*model);
  data::Batch batch = batch_for(options, 3);
  const auto loss = [&] { return model->forward(batch, draws_of(batch)).loss; };
  loss().backward();
  double worst = 0;
  std::string where;
  int tested = 0;
  uint16_t layer = 200;
  for (nn::NamedTensor& parameter : model->named_parameters()) {
    ASSERT_TRUE(parameter.tensor.grad().defined()) << parameter.name;
    const at::Tensor other = random(parameter.tensor.sizes(), layer++),
                     gradient = parameter.tensor.grad();
    const at::Tensor unit = (other / other.norm() + gradient / gradient.norm()) * 0.5;
    const double slope = (parameter.tensor.grad() * unit).sum().item<double>();
    const at::NoGradGuard no_grad;
    constexpr double kStep = 1e-2;
    const at::Tensor start = parameter.tensor.clone();
    parameter.tensor.copy_(start + unit * kStep);
    const double above = loss().item<double>();
    parameter.tensor.copy_(start - unit * kStep);
    const double below = loss().item<double>();
    parameter.tensor.copy_(start);
    if (std::abs(slope) < 2e-3) continue;
    ++tested;
    const double error = std::abs((above - below) / (2 * kStep) - slope) / std::abs(slope);
    if (error > worst) worst = error, where = parameter.name;
  }
  std::printf("%s: %d slopes, worst relative error %.2e at %s (allowed 1e-2)\n", GetParam().name,
              tested, worst, where.c_str());
  EXPECT_GE(tested, 12);
  EXPECT_LE(worst, 1e-2) << where;
}

TEST_P(EveryVariant, RunsInBf16WithLossAndOutputInFp32) {
  const config::Model options = GetParam().options();
  const auto model = make_model(options, 0);
  const data::Batch batch = batch_for(options, 2);
  const double full = model->forward(batch, draws_of(batch)).loss.item<double>();
  move_parameters(*model, at::kCPU, at::kBFloat16);
  const Output out = model->forward(batch, draws_of(batch));
  EXPECT_EQ(out.loss.scalar_type(), at::kFloat);
  EXPECT_EQ(out.output.scalar_type(), at::kFloat);
  EXPECT_NEAR(out.loss.item<double>(), full, 0.02 * full) << "bf16 keeps 8 bits";
  out.loss.backward();
  for (const nn::NamedTensor& parameter : model->named_parameters()) {
    ASSERT_TRUE(parameter.tensor.grad().defined()) << parameter.name;
    EXPECT_EQ(parameter.tensor.grad().scalar_type(), at::kBFloat16) << parameter.name;
  }
}

}  // namespace
}  // namespace vitrail::models
