#include "vitrail/models/diffusion.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/full.h>
#include <ATen/ops/tensor.h>
#include <fmt/core.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "vitrail/core/error.h"
#include "vitrail/models/diffusion_noise.h"

namespace vitrail::models {
namespace {

using testing::HasSubstr;

config::Model small(std::vector<int64_t> sides = {8, 8}) {
  config::Model options;
  options.kind.value = "diffusion";
  options.image_size = std::move(sides);
  options.patch_size = 4;
  options.in_channels = 2;
  options.num_classes = 3;
  options.embed_dim = 24;
  options.depth = 2;
  options.num_heads = 2;
  options.class_token = false;
  options.pos_embed.value = "sincos";
  options.decoder_embed_dim = 12;
  options.decoder_depth = 1;
  options.decoder_num_heads = 2;
  options.num_timesteps = 50;
  options.loss.value = "mse";
  return options;
}

/// A model whose every parameter is random, so that nothing is hidden behind a zero start.
std::shared_ptr<Diffusion> scrambled(const config::Model& options) {
  auto model = std::make_shared<Diffusion>(options);
  initialise(model->named_parameters(), 1, [](const std::string&, const at::Tensor&) {
    return Initial{Fill::normal, 0.2};
  });
  return model;
}

data::Batch images(const config::Model& options, const std::vector<int64_t>& ids,
                   int64_t channels = 2) {
  data::Batch batch;
  batch.sample_ids = at::tensor(ids, at::kLong);
  std::vector<int64_t> shape{channels};
  shape.insert(shape.end(), options.image_size.begin(), options.image_size.end());
  batch.image = normal({9, core::Stream::test, 0, 0}, batch.sample_ids, shape);
  batch.label = batch.sample_ids.remainder(3);
  return batch;
}

nn::Draws draws_of(const data::Batch& batch, bool training, uint32_t step = 0) {
  return {7, step, batch.sample_ids, training};
}

at::Tensor output_of(Diffusion& model, const data::Batch& batch, bool training, uint32_t step = 0) {
  const at::NoGradGuard no_grad;
  return model.forward(batch, draws_of(batch, training, step)).output;
}

class EveryForm : public testing::TestWithParam<std::tuple<int, const char*, const char*>> {
 protected:
  static config::Model options() {
    const auto [axes, conditioning, decoder] = GetParam();
    config::Model options =
        small(axes == 2 ? std::vector<int64_t>{8, 12} : std::vector<int64_t>{8, 4, 8});
    options.time_conditioning.value = conditioning;
    options.decoder.value = decoder;
    return options;
  }
};

TEST_P(EveryForm, PredictsNoiseLikeTheImageAndScoresItsMeanSquare) {
  const auto model = scrambled(options());
  data::Batch batch = images(options(), {0, 5, 1});
  batch.noise = batch.image.flip(0);
  batch.timestep = at::tensor({0, 49, 20}, at::kLong);
  const Output out = model->forward(batch, draws_of(batch, true));
  EXPECT_EQ(out.output.sizes(), batch.image.sizes());
  EXPECT_EQ(out.output.scalar_type(), at::kFloat);
  const double expected = (out.output - batch.noise).square().sum().item<double>() /
                          static_cast<double>(batch.image.numel());
  EXPECT_NEAR(out.loss.item<double>(), expected, 1e-5 * expected);  // fp32 sums of 600 terms
  out.loss.backward();
  for (const nn::NamedTensor& parameter : model->named_parameters())
    EXPECT_TRUE(parameter.tensor.grad().defined() &&
                parameter.tensor.grad().abs().max().item<double>() > 0)
        << parameter.name << " gets no gradient";
}

TEST_P(EveryForm, HasEveryParameterInOneUnit) {
  const auto model = scrambled(options());
  std::multiset<std::string> in_units, all;
  for (const UnitSpec& unit : model->units())
    for (const nn::NamedTensor& parameter : unit.parameters) in_units.insert(parameter.name);
  for (const nn::NamedTensor& parameter : model->named_parameters()) all.insert(parameter.name);
  EXPECT_EQ(in_units, all);
  EXPECT_TRUE(all.count("time_embed.fc1.weight") && all.count("class_embed"));
}

TEST_P(EveryForm, ListensToTimeAndClass) {
  const auto model = scrambled(options());
  data::Batch batch = images(options(), {0, 0});
  batch.noise = batch.image.clone();
  batch.timestep = at::tensor({10, 10}, at::kLong);
  batch.label = at::tensor({1, 2}, at::kLong);
  const at::Tensor by_class = output_of(*model, batch, false);
  EXPECT_GT((by_class[0] - by_class[1]).abs().max().item<double>(), 1e-4);
  batch.label = at::Tensor();
  const at::Tensor same = output_of(*model, batch, false);
  EXPECT_TRUE(same[0].equal(same[1]));
  const auto noise_at = [&](int64_t t) {  // of the very same input
    data::Batch noisy = batch;
    noisy.timestep = at::full({2}, t, at::kLong);
    const at::NoGradGuard no_grad;
    return model->predict_noise(noisy);
  };
  EXPECT_GT((noise_at(10) - noise_at(11)).abs().max().item<double>(), 1e-4);
}

INSTANTIATE_TEST_SUITE_P(Diffusion, EveryForm,
                         testing::Combine(testing::Values(2, 3), testing::Values("input", "block"),
                                          testing::Values("transformer", "linear")),
                         [](const auto& form) {
                           return fmt::format("{}d_{}_{}", std::get<0>(form.param),
                                              std::get<1>(form.param), std::get<2>(form.param));
                         });

TEST(Diffusion, DrawsLevelAndNoiseFromSeedStepAndSample) {
  const auto model = scrambled(small());
  const at::Tensor all = output_of(*model, images(small(), {3, 8, 5}), true, 2);
  const at::Tensor one = output_of(*model, images(small(), {8}), true, 2);
  // Matrix products of other sizes may sum in another order.
  EXPECT_LT((all[1] - one[0]).abs().max().item<double>(), 1e-5);
  EXPECT_GT(
      (all - output_of(*model, images(small(), {3, 8, 5}), true, 3)).abs().max().item<double>(),
      1e-3);
}

TEST(Diffusion, EveryEvaluationDrawsTheSame) {
  const auto model = scrambled(small());
  const data::Batch batch = images(small(), {3, 8});
  EXPECT_TRUE(output_of(*model, batch, false, 0).equal(output_of(*model, batch, false, 17)));
}

TEST(Diffusion, AHiddenClassIsNoClass) {
  config::Model options = small();
  options.class_drop_rate = 1.0;
  const auto model = scrambled(options);
  data::Batch with = images(options, {3, 8}), without = with;
  without.label = at::Tensor();
  EXPECT_TRUE(output_of(*model, with, true).equal(output_of(*model, without, true)));
  EXPECT_FALSE(output_of(*model, with, false).equal(output_of(*model, without, false)));
  data::Batch unknown = with;
  unknown.label = at::full({2}, -1, at::kLong);
  EXPECT_TRUE(output_of(*model, unknown, false).equal(output_of(*model, without, false)));
}

TEST(Diffusion, HidesTheSameShareOfClassesThatItSays) {
  config::Model options = small();
  options.class_drop_rate = 0.25;
  const auto model = scrambled(options);
  std::vector<int64_t> ids(2000);
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int64_t>(i);
  data::Batch batch = images(options, ids), without = batch;
  without.label = at::Tensor();
  const at::Tensor differs = (output_of(*model, batch, true) - output_of(*model, without, true))
                                 .flatten(1)
                                 .abs()
                                 .amax(1)
                                 .gt(0);
  // Five standard deviations of a binomial count.
  EXPECT_NEAR(differs.sum().item<double>(), 1500.0, 5 * std::sqrt(2000 * 0.25 * 0.75));
}

TEST(Diffusion, PredictsTheVariablesOfTheBatchOnly) {
  config::Model options = small();
  options.variables = {"t", "u", "v"};
  options.in_channels = 3;
  options.num_classes = 0;
  const auto model = scrambled(options);
  data::Batch some = images(options, {0, 1});
  some.label = at::Tensor();
  some.variables = {"v", "t"};
  const Output out = model->forward(some, draws_of(some, true));
  EXPECT_EQ(out.output.sizes(), some.image.sizes());
  out.loss.backward();
  // decoder_pred's rows are (p, q, channel): those of u have no part in it.
  for (const nn::NamedTensor& parameter : model->named_parameters())
    if (parameter.name == "decoder_pred.weight") {
      const at::Tensor by_channel =
          parameter.tensor.grad().view({16, 3, -1}).abs().sum(at::IntArrayRef{0, 2});
      EXPECT_GT(by_channel[0].item<double>(), 0.0);
      EXPECT_EQ(by_channel[1].item<double>(), 0.0);
      EXPECT_GT(by_channel[2].item<double>(), 0.0);
    }
}

TEST(Diffusion, StartsByPredictingNothing) {
  config::Model options = small();
  options.time_conditioning.value = "block";
  Diffusion model(options);
  initialise(model.named_parameters(), 1, diffusion_initial(options));
  const data::Batch batch = images(options, {0, 1, 2, 3});
  const Output out = model.forward(batch, draws_of(batch, true));
  EXPECT_EQ(out.output.abs().max().item<double>(), 0.0);
  EXPECT_NEAR(out.loss.item<double>(), 1.0, 5 * std::sqrt(2.0 / (4 * 128)));  // mean of e^2
}

TEST(Diffusion, LearnedPositionsStartAtTheTable) {
  config::Model options = small();
  options.pos_embed.value = "learned";
  Diffusion model(options);
  initialise(model.named_parameters(), 1, diffusion_initial(options));
  int found = 0;
  for (const nn::NamedTensor& parameter : model.named_parameters())
    if (parameter.name.ends_with("pos_embed")) {
      ++found;
      EXPECT_TRUE(parameter.tensor.equal(position_table(options, 0, parameter.tensor.size(2))));
    }
  EXPECT_EQ(found, 2);
}

TEST(Diffusion, RunsInBf16CloseToFp32) {
  config::Model options = small();
  options.time_conditioning.value = "block";
  const auto model = scrambled(options);
  const data::Batch batch = images(options, {0, 1, 2, 3});
  const at::Tensor exact = output_of(*model, batch, false);
  move_parameters(*model, at::kCPU, at::kBFloat16);
  const at::Tensor rounded = output_of(*model, batch, false);
  EXPECT_EQ(rounded.scalar_type(), at::kFloat);
  const double difference = ((rounded - exact).norm() / exact.norm()).item<double>();
  fmt::print("bf16: relative difference {:.1e} (allowed 5e-2)\n", difference);
  EXPECT_LT(difference, 5e-2);  // 8 bits are 4e-3; some ten roundings in a row through three blocks
}

TEST(Diffusion, TimeTableTakesTurnsOfSineAndCosine) {
  const TimeEmbed embed(100, 6, 0.0);
  for (const int64_t t : {0, 1, 99})
    for (const int64_t j : {0, 1, 2}) {
      const double angle =
          static_cast<double>(t) * std::pow(10000.0, -2.0 * static_cast<double>(j) / 6.0);
      EXPECT_NEAR(embed.table()[t][2 * j].item<double>(), std::sin(angle), 1e-7);
      EXPECT_NEAR(embed.table()[t][2 * j + 1].item<double>(), std::cos(angle), 1e-7);
    }
}

TEST(Diffusion, RefusesWhatCannotWork) {
  const auto refused = [](auto change, const char* key) {
    config::Model options = small();
    change(options);
    EXPECT_THAT([&] { Diffusion model(options); },
                testing::ThrowsMessage<core::ConfigError>(HasSubstr(key)));
  };
  refused([](config::Model& o) { o.patch_drop_rate = 0.5; }, "model.patch_drop_rate");
  refused([](config::Model& o) { o.adaptive.fixed_length = 16; }, "model.adaptive.fixed_length");
  refused([](config::Model& o) { o.decoder.value = "conv"; }, "model.decoder");
  refused([](config::Model& o) { o.num_timesteps = 0; }, "model.num_timesteps");
  refused([](config::Model& o) { o.embed_dim = 25; }, "model.embed_dim");
  const auto model = scrambled(small());
  data::Batch batch = images(small(), {0, 1});
  batch.timestep = at::tensor({0, 50}, at::kLong);
  EXPECT_THAT([&] { output_of(*model, batch, false); },
              testing::ThrowsMessage<core::DataError>(HasSubstr("num_timesteps = 50")));
  batch.timestep = at::Tensor();
  batch.noise = batch.image.slice(0, 0, 1);
  EXPECT_THAT([&] { output_of(*model, batch, false); },
              testing::ThrowsMessage<core::Error>(HasSubstr("noise must be like the image")));
}

}  // namespace
}  // namespace vitrail::models
