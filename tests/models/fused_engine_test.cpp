// Whole models train alike under the fused and the autograd engine.

#include <algorithm>
#include <cmath>
#include <cstdio>

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "tests/models/segmenter_cases.h"
#include "tests/models/tiny_models.h"

namespace vitrail::models {
namespace {

struct Case {
  const char* name;
  config::Model (*options)();
  double tolerance = 1e-5;
};

config::Model with_draws(config::Model options) {
  options.drop_path_rate = 0.2, options.proj_drop_rate = 0.1;
  return options;
}

const Case kCases[] = {
    {"vit", [] { return with_draws(tiny("vit")); }},
    {"vit_leaves",
     [] {
       config::Model options = with_draws(tiny("vit"));
       make_adaptive(options);
       return options;
     }},
    {"mae", [] { return with_draws(tiny("mae")); }},
    {"unetr",
     [] {
       config::Model options = segmenter("unetr", {8, 8}, 2);
       options.skips = true;
       return options;
     }},
    {"sap",
     [] {
       config::Model options = segmenter("sap", {8, 8}, 2);
       options.adaptive.fixed_length = 16;
       return options;
     }},
    {"diffusion",
     [] {
       config::Model options = tiny("diffusion");
       options.class_token = false, options.pos_embed.value = "sincos";
       options.loss.value = "mse", options.num_timesteps = 50;
       options.time_conditioning.value = "block";
       return options;
     }},
};

data::Batch batch_of(const config::Model& options, int64_t step) {
  if (options.kind != "unetr" && options.kind != "sap") return batch_for(options, 4, 4 * step);
  data::Batch batch = images(options, 4);
  if (options.kind == "sap") add_leaves(batch, options, 4);
  return batch;
}

/// Ten steps of gradient descent in fp32.
std::vector<double> losses_under(const char* engine, const config::Model& options,
                                 const char* attention = "sdpa") {
  config::Train train;
  train.engine.value = engine;
  train.attention.value = attention;
  const std::shared_ptr<Model> model = make_model(options, 3);
  configure(*model, train);
  std::vector<double> losses;
  for (int64_t step = 0; step < 10; ++step) {
    const data::Batch batch = batch_of(options, step);
    const nn::Draws draws{3, static_cast<uint32_t>(step), batch.sample_ids, true};
    const at::Tensor loss = model->forward(model->prepared(batch, draws), draws).loss;
    loss.backward();
    losses.push_back(loss.item().toDouble());
    const at::NoGradGuard no_grad;
    for (nn::NamedTensor& parameter : model->named_parameters()) {
      if (!parameter.tensor.grad().defined()) continue;
      parameter.tensor.sub_(parameter.tensor.grad() * 0.05);
      parameter.tensor.mutable_grad().reset();
    }
  }
  EXPECT_EQ(model->stacks().front()->engine().name(), engine);
  return losses;
}

double worst_of(const std::vector<double>& found, const std::vector<double>& expected) {
  double worst = 0.0;
  for (size_t s = 0; s < expected.size(); ++s)
    worst = std::max(worst, std::abs(found[s] - expected[s]) / std::abs(expected[s]));
  return worst;
}

TEST(FusedModels, TrainAsUnderTheAutogradEngine) {
  at::set_num_threads(1);  // tensors this small gain nothing from more
  for (const Case& c : kCases) {
    const std::vector<double> expected = losses_under("autograd", c.options());
    const double difference = worst_of(losses_under("fused", c.options()), expected);
    const double of_other_sums = worst_of(losses_under("autograd", c.options(), "plain"), expected);
    std::printf(
        "%s: loss %.4f to %.4f, worst relative difference %.2g; of another attention under "
        "autograd %.2g\n",
        c.name, expected.front(), expected.back(), difference, of_other_sums);
    // fp32 sums in another order, carried on by ten updates.
    EXPECT_LT(difference, c.tolerance) << c.name;
    EXPECT_NE(expected.front(), expected.back()) << c.name;
  }
}

}  // namespace
}  // namespace vitrail::models
