#include "vitrail/parallel/sequence.h"

#include <cmath>
#include <cstdio>
#include <map>
#include <mutex>
#include <string>

#include <ATen/ops/zeros_like.h>
#include <gtest/gtest.h>

#include "tests/models/segmenter_cases.h"
#include "tests/models/tiny_models.h"
#include "tests/parallel/tiny.h"
#include "vitrail/core/error.h"
#include "vitrail/parallel/exchange.h"
#include "vitrail/parallel/timeline.h"
#include "vitrail/parallel/token_border.h"

namespace vitrail::parallel {
namespace {

using comm::Axis;

// fp32: rounding of sums in another order. Worst seen 1.5e-7 and 4.5e-6.
constexpr double kAllowedLoss = 1e-6, kAllowedGradient = 1e-5;

struct Form {
  std::string name;
  config::Model model;
  data::Batch batch;
};

void with_all_drops(config::Model& model) {
  model.drop_path_rate = 0.3, model.attn_drop_rate = 0.2, model.proj_drop_rate = 0.1;
}

Form vit() {
  config::Model model = models::tiny("vit");
  model.patch_size = 2, model.embed_dim = 32,
  model.num_heads = 4;  // 24 patches and the class token
  model.rope.value = "axial", model.qk_norm = true;
  with_all_drops(model);
  return {"vit", model, models::batch_for(model, 3)};
}

Form shared_keys() {
  Form form = vit();
  form.name = "vit, shared keys";
  form.model.num_kv_heads = 2;
  return form;
}

Form leaves() {
  config::Model model = models::tiny("vit");
  models::make_adaptive(model);
  model.num_heads = 4;
  with_all_drops(model);
  return {"vit, leaves with padding", model, models::batch_for(model, 3)};
}

Form mae() {
  config::Model model = models::tiny("mae");
  model.patch_size = 2, model.embed_dim = 32, model.num_heads = 4;
  model.decoder_num_heads = 2;  // other than the encoder's
  model.rope.value = "raster";
  with_all_drops(model);
  return {"mae", model, models::batch_for(model, 3)};
}

Form unetr() {
  config::Model model = models::segmenter("unetr", {16, 8}, 4);
  model.num_heads = 3, model.skips = true;  // a prime: rings of 2 and 4
  with_all_drops(model);
  return {"unetr", model, models::images(model, 3)};
}

Form diffusion() {
  config::Model model = models::tiny("diffusion");
  model.patch_size = 2, model.embed_dim = 32, model.num_heads = 4;
  model.decoder_embed_dim = 16, model.decoder_num_heads = 2;
  model.class_token = false, model.pos_embed.value = "sincos", model.loss.value = "mse";
  model.num_timesteps = 50, model.time_conditioning.value = "block";
  with_all_drops(model);
  return {"diffusion", model, models::batch_for(model, 3)};
}

struct Pass {
  double loss = 0;
  std::map<std::string, at::Tensor> gradients;
};

Pass pass_of(models::Model& model, const Form& form) {
  const at::Tensor loss =
      model.forward(form.batch, {7, 3, form.batch.sample_ids, /*training=*/true}).loss;
  loss.backward();
  Pass pass{loss.item().toDouble(), {}};
  for (const nn::NamedTensor& parameter : model.named_parameters())
    pass.gradients[parameter.name] = parameter.tensor.grad().defined()
                                         ? parameter.tensor.grad()
                                         : at::zeros_like(parameter.tensor);
  return pass;
}

std::shared_ptr<models::Model> model_of(const Form& form) {
  const auto model = models::make_model(form.model, 1);
  models::randomise(*model);  // nothing hides behind a zero start
  return model;
}

/// Every rank's pass; gradients are the mean over the ranks, as sharding makes it.
Pass divided_pass(const Form& form, const config::Recipe& recipe) {
  Pass result;
  std::mutex mutex;
  comm::run_thread_group(static_cast<int>(recipe.parallel.sequence),
                         [&](comm::Communicator& world) {
                           testing::use_one_thread();
                           comm::Mesh mesh(world, {.replicate = 1, .sequence = world.size()});
                           Groups groups(mesh, at::kCPU);
                           const auto model = model_of(form);
                           models::configure(*model, recipe.train);
                           const SequenceParallel sequence(*model, recipe, groups);
                           Pass pass = pass_of(*model, form);
                           for (auto& [name, gradient] : pass.gradients)
                             world.all_reduce(buffer_of(gradient), comm::Reduce::average).wait();
                           const std::lock_guard lock(mutex);
                           if (world.rank() == 0) result = std::move(pass);
                         });
  return result;
}

double worst_gradient(const Pass& pass, const Pass& expected) {
  double worst = 0;
  for (const auto& [name, gradient] : expected.gradients) {
    const double largest = std::max(testing::largest(gradient), 1e-3);
    worst = std::max(worst, testing::largest(pass.gradients.at(name) - gradient) / largest);
  }
  return worst;
}

config::Recipe recipe_of(const Form& form, int64_t ranks, std::optional<int64_t> ulysses) {
  config::Recipe recipe;
  recipe.model = form.model;
  recipe.parallel.sequence = ranks;
  recipe.parallel.ulysses = ulysses;
  return recipe;
}

class EveryForm : public ::testing::TestWithParam<Form (*)()> {};

TEST_P(EveryForm, HasTheLossAndGradientsOfOneRank) {
  const Form form = GetParam()();
  testing::use_one_thread();
  const Pass expected = pass_of(*model_of(form), form);
  const std::vector<std::pair<int64_t, std::optional<int64_t>>> layouts{
      {2, {}}, {2, 1}, {2, 2}, {3, {}}, {4, {}}, {4, 1}, {4, 2}, {4, 4}};
  for (const auto& [ranks, ulysses] : layouts) {
    const Pass pass = divided_pass(form, recipe_of(form, ranks, ulysses));
    const double loss = std::abs(pass.loss - expected.loss) / std::abs(expected.loss);
    const double gradient = worst_gradient(pass, expected);
    std::printf("%s, sequence %d, ulysses %d: loss %.2g (allowed %.0e), gradient %.2g (%.0e)\n",
                form.name.c_str(), static_cast<int>(ranks), static_cast<int>(ulysses.value_or(0)),
                loss, kAllowedLoss, gradient, kAllowedGradient);
    EXPECT_LE(loss, kAllowedLoss);
    EXPECT_LE(gradient, kAllowedGradient);
  }
}

INSTANTIATE_TEST_SUITE_P(Sequence, EveryForm,
                         ::testing::Values(vit, shared_keys, leaves, mae, unetr, diffusion));

TEST(Sequence, PlainAttentionAndRecomputeGiveTheSame) {
  const Form form = vit();
  testing::use_one_thread();
  const Pass expected = pass_of(*model_of(form), form);
  config::Recipe recipe = recipe_of(form, 4, 2);
  recipe.train.attention.value = "plain";
  recipe.train.recompute.value = "block";
  const Pass pass = divided_pass(form, recipe);
  EXPECT_LE(std::abs(pass.loss - expected.loss) / expected.loss, kAllowedLoss);
  EXPECT_LE(worst_gradient(pass, expected), kAllowedGradient);
}

/// Of one rank's pass: how often keys were sent on.
int64_t shifts_of(const Form& form, const char* recompute) {
  config::Recipe recipe = recipe_of(form, 4, 1);
  recipe.train.recompute.value = recompute;
  int64_t count = 0;
  comm::run_thread_group(4, [&](comm::Communicator& world) {
    testing::use_one_thread();
    comm::Mesh mesh(world, {.replicate = 1, .sequence = 4});
    Groups groups(mesh, at::kCPU);
    const auto model = model_of(form);
    models::configure(*model, recipe.train);
    const SequenceParallel sequence(*model, recipe, groups);
    Timeline timeline(at::kCPU);
    const Recording recording(timeline);
    pass_of(*model, form);
    if (world.rank() != 0) return;
    for (const TimedRange& range : timeline.ranges()) count += range.name == "ring";
  });
  return count;
}

TEST(Sequence, SelectiveRecomputeKeepsTheResultsOfRings) {
  const Form form = vit();  // its attention dropout is part of what is kept
  testing::use_one_thread();
  const int64_t depth = form.model.depth;
  EXPECT_EQ(shifts_of(form, "none"), depth * (3 + 7));
  EXPECT_EQ(shifts_of(form, "block"), depth * (3 + 3 + 7));
  EXPECT_EQ(shifts_of(form, "selective"), depth * (3 + 7));
  const Pass expected = pass_of(*model_of(form), form);
  for (const std::optional<int64_t> ulysses : {1, 2, 4}) {
    config::Recipe recipe = recipe_of(form, 4, ulysses);
    recipe.train.recompute.value = "selective";
    const Pass pass = divided_pass(form, recipe);
    EXPECT_LE(std::abs(pass.loss - expected.loss) / expected.loss, kAllowedLoss);
    EXPECT_LE(worst_gradient(pass, expected), kAllowedGradient);
  }
}

TEST(Sequence, EvaluationNeedsNoGradients) {
  const Form form = mae();
  const auto alone = model_of(form);
  const at::NoGradGuard no_grad;
  const nn::Draws draws{7, 3, form.batch.sample_ids, false};
  const at::Tensor expected = alone->forward(form.batch, draws).output;
  comm::run_thread_group(3, [&](comm::Communicator& world) {
    testing::use_one_thread();
    const at::NoGradGuard no_grad_either;
    comm::Mesh mesh(world, {.replicate = 1, .sequence = 3});
    Groups groups(mesh, at::kCPU);
    const auto model = model_of(form);
    const SequenceParallel sequence(*model, recipe_of(form, 3, {}), groups);
    EXPECT_LE(testing::relative_difference(model->forward(form.batch, draws).output, expected),
              kAllowedGradient);
  });
}

TEST(Sequence, IsTakenBackWhenItGoes) {
  const Form form = vit();
  comm::run_thread_group(2, [&](comm::Communicator& world) {
    testing::use_one_thread();
    comm::Mesh mesh(world, {.replicate = 1, .sequence = 2});
    Groups groups(mesh, at::kCPU);
    const auto model = model_of(form);
    const Pass before = pass_of(*model, form);
    { const SequenceParallel sequence(*model, recipe_of(form, 2, {}), groups); }
    if (world.rank() == 0) {  // alone: a collective would wait for ever
      EXPECT_EQ(pass_of(*model, form).loss, before.loss);
    }
  });
}

TEST(Sequence, RefusesExchangesThatDoNotDivideTheRanks) {
  comm::run_thread_group(4, [&](comm::Communicator& world) {
    comm::Mesh mesh(world, {.replicate = 1, .sequence = 4});
    Groups groups(mesh, at::kCPU);
    const auto model = model_of(vit());
    EXPECT_THROW(SequenceParallel(*model, recipe_of(vit(), 4, 3), groups), core::ConfigError);
  });
}

TEST(TokenBorder, CutsRunsAndPutsThemTogetherAgain) {
  for (const int ranks : {1, 2, 3, 4})
    for (const int64_t tokens : {1, 3, 4, 9})
      comm::run_thread_group(ranks, [&](comm::Communicator& group) {
        testing::use_one_thread();
        const at::Tensor x = models::random({2, tokens, 3}).set_requires_grad(true);
        const at::Tensor weight = models::random({2, tokens, 3}, 1);
        TokenBorder border(group, ranks);
        nn::Context context;
        const at::Tensor part = border.enter(x, context);
        EXPECT_EQ(part.size(1), run_length(tokens, ranks));
        EXPECT_EQ(context.window.whole, tokens);
        EXPECT_EQ(context.window.start, group.rank() * run_length(tokens, ranks));
        const at::Tensor whole = border.leave(part, tokens);
        EXPECT_TRUE(whole.equal(x));
        (whole * weight).sum().backward();
        // Times the ranks on the way in, divided by them on the way out.
        EXPECT_LE(testing::largest(x.grad() - weight), 1e-7);
      });
}

TEST(TokenBorder, ConditionsGetTheSumOfAllRanksGradients) {
  for (const int sequence : {1, 2, 4})
    comm::run_thread_group(4, [&](comm::Communicator& group) {
      testing::use_one_thread();
      TokenBorder border(group, sequence);
      nn::Context context;
      const at::Tensor condition = models::random({2, 3}).set_requires_grad(true);
      context.condition_BD = condition;
      border.enter(models::random({2, 9, 3}), context);
      EXPECT_TRUE(context.condition_BD.equal(condition));
      (context.condition_BD * (1.0 + group.rank())).sum().backward();
      EXPECT_TRUE(condition.grad().eq(10.0 / sequence).all().item<bool>());
    });
}

TEST(TokenBorder, TensorRanksAreNotCounted) {
  comm::run_thread_group(4, [&](comm::Communicator& group) {
    testing::use_one_thread();
    TokenBorder border(group, 2);
    nn::Context context;
    const at::Tensor table = models::random({1, 9, 2}, 2);
    context.rotary = {table, table};
    const at::Tensor x = models::random({1, 9, 3}).set_requires_grad(true);
    at::Tensor part = border.enter(x, context).detach().set_requires_grad(true);
    // Positions are those of the tokens of both tensor ranks: run 3, so 6 from 0 or 6 on.
    EXPECT_TRUE(context.rotary.cos.equal(padded_narrow(table, 1, group.rank() / 2 * 6, 6)));
    border.leave(part, 9).sum().backward();
    const int64_t real = std::min<int64_t>(3, 9 - 3 * std::min(group.rank(), 3));
    EXPECT_TRUE(part.grad().narrow(1, 0, real).eq(2.0).all().item<bool>());
    EXPECT_TRUE(part.grad().narrow(1, real, 3 - real).eq(0.0).all().item<bool>());
  });
}

}  // namespace
}  // namespace vitrail::parallel
