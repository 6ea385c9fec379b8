#include "vitrail/parallel/pipeline.h"

#include <cmath>
#include <cstdio>
#include <map>
#include <mutex>
#include <set>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/equal.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/models/chain_cases.h"
#include "tests/parallel/tiny.h"
#include "vitrail/comm/mesh.h"
#include "vitrail/core/error.h"
#include "vitrail/parallel/pipeline_cut.h"

namespace vitrail::parallel {
namespace {

using models::ChainCase;

constexpr int64_t kSamples = 8;
constexpr double kRate = 0.02;

struct Plan {
  const char* schedule = "1f1b";
  int ranks = 2, parts = 1, micro_batches = 4;
  std::string name() const {
    return std::string(schedule) + " R" + std::to_string(ranks) + " V" + std::to_string(parts) +
           " M" + std::to_string(micro_batches);
  }
};

/// Losses of all steps, gradients of the first, by name.
struct Outcome {
  std::vector<double> losses;
  std::map<std::string, at::Tensor> gradients;
};

std::vector<data::Batch> cut_batch(const data::Batch& batch, int pieces) {
  std::vector<data::Batch> all;
  const int64_t size = batch.size() / pieces;
  for (int i = 0; i < pieces; ++i) {
    all.push_back(batch);
    for (at::Tensor* tensor : all.back().rows()) *tensor = tensor->narrow(0, i * size, size);
  }
  return all;
}

nn::Draws draws_at(int step, const data::Batch& batch) {
  return {3, static_cast<uint32_t>(step), batch.sample_ids, true};
}

void descend(std::vector<nn::NamedTensor> parameters) {
  const at::NoGradGuard no_grad;
  for (nn::NamedTensor& parameter : parameters) {
    parameter.tensor.sub_(parameter.tensor.grad() * kRate);
    parameter.tensor.mutable_grad() = at::Tensor();
  }
}

void note(std::map<std::string, at::Tensor>& gradients,
          const std::vector<nn::NamedTensor>& parameters) {
  for (const nn::NamedTensor& parameter : parameters)
    gradients[parameter.name] = parameter.tensor.grad().clone();
}

/// No parameter starts at zero, behind which gradients would vanish.
std::shared_ptr<models::Model> started(const config::Model& options) {
  const auto model = models::make_model(options, 3);
  const at::NoGradGuard no_grad;
  uint16_t layer = 50;
  for (nn::NamedTensor& parameter : model->named_parameters())
    parameter.tensor.add_(models::random(parameter.tensor.sizes(), layer++) * 0.1);
  return model;
}

Outcome run_alone(const config::Model& options, int micro_batches, int steps) {
  const auto model = started(options);
  const auto batches = cut_batch(models::chain_batch(options, kSamples), micro_batches);
  Outcome run;
  for (int step = 0; step < steps; ++step) {
    double loss = 0.0;
    for (const data::Batch& batch : batches) {
      const at::Tensor share =
          model->forward(batch, draws_at(step, batch)).loss / static_cast<double>(micro_batches);
      share.backward();
      loss += share.item<double>();
    }
    if (step == 0) note(run.gradients, model->named_parameters());
    descend(model->named_parameters());
    run.losses.push_back(loss);
  }
  return run;
}

config::Recipe recipe_of(const config::Model& options, const Plan& plan) {
  config::Recipe recipe;
  recipe.model = options;
  recipe.parallel.pipeline = plan.ranks, recipe.parallel.pipeline_parts = plan.parts;
  recipe.parallel.pipeline_schedule.value = plan.schedule;
  return recipe;
}

/// Parameters that a rank holds; all others become NaN, so that nothing can have read them.
std::vector<nn::NamedTensor> keep_held(models::Model& model, const Pipeline& pipeline) {
  const at::NoGradGuard no_grad;
  std::vector<nn::NamedTensor> held;
  for (models::UnitSpec& unit : model.units())
    for (nn::NamedTensor& parameter : unit.parameters)
      pipeline.is_held(unit) ? held.push_back(parameter) : void(parameter.tensor.fill_(NAN));
  return held;
}

/// A rank's view of a test.
struct Rank {
  Rank(comm::Communicator& world, const config::Model& options, const Plan& plan)
      : mesh(world, {1, 1, plan.ranks, 1, 1}),
        groups(mesh, at::kCPU),
        model(started(options)),
        pipeline(*model, recipe_of(options, plan), groups),
        held(keep_held(*model, pipeline)) {}

  comm::Mesh mesh;
  Groups groups;
  std::shared_ptr<models::Model> model;
  Pipeline pipeline;
  std::vector<nn::NamedTensor> held;
};

Outcome run_pipeline(const config::Model& options, const Plan& plan, int steps) {
  Outcome run;
  std::mutex mutex;
  comm::run_thread_group(plan.ranks, [&](comm::Communicator& world) {
    vitrail::testing::use_one_thread();
    Rank rank(world, options, plan);
    const auto batches = cut_batch(models::chain_batch(options, kSamples), plan.micro_batches);
    for (int step = 0; step < steps; ++step) {
      const at::Tensor loss = rank.pipeline.run(
          batches, [&](const data::Batch& batch) { return draws_at(step, batch); }, {});
      const std::lock_guard lock(mutex);
      if (step == 0) note(run.gradients, rank.held);
      // Every rank has the same loss; the first to come here writes it.
      if (static_cast<int>(run.losses.size()) == step) run.losses.push_back(loss.item<double>());
      EXPECT_EQ(loss.item<double>(), run.losses[static_cast<size_t>(step)]);
      descend(rank.held);
    }
  });
  return run;
}

double worst_loss(const Outcome& run, const Outcome& expected) {
  double worst = run.losses.size() == expected.losses.size() ? 0.0 : INFINITY;
  for (size_t i = 0; i < expected.losses.size(); ++i) {
    const double error =
        std::abs(run.losses[i] - expected.losses[i]) / std::abs(expected.losses[i]);
    worst = std::isnan(error) ? INFINITY : std::max(worst, error);
  }
  return worst;
}

/// Largest difference of a gradient over its largest value; gradients below a thousandth of the model's largest (keys'
/// biases, which are zero but for rounding) are measured by that.
double worst_gradient(const Outcome& run, const Outcome& expected) {
  double largest = 0.0, worst = run.gradients.size() == expected.gradients.size() ? 0.0 : INFINITY;
  for (const auto& [name, gradient] : expected.gradients)
    largest = std::max(largest, vitrail::testing::largest(gradient));
  for (const auto& [name, gradient] : expected.gradients) {
    const auto found = run.gradients.find(name);
    if (found == run.gradients.end()) return INFINITY;
    const double scale = std::max(vitrail::testing::largest(gradient), 1e-3 * largest);
    const double error = vitrail::testing::largest(found->second - gradient) / scale;
    worst = std::isnan(error) ? INFINITY : std::max(worst, error);
  }
  return worst;
}

class EveryModelInPipeline : public ::testing::TestWithParam<ChainCase> {};
INSTANTIATE_TEST_SUITE_P(Models, EveryModelInPipeline, ::testing::ValuesIn(models::chain_cases()),
                         [](const auto& tested) { return tested.param.name; });

std::vector<Plan> plans() {
  std::vector<Plan> all;
  for (const int ranks : {2, 4})
    for (const int micro : {1, 2, 4, 8}) {
      all.push_back({"gpipe", ranks, 1, micro});
      all.push_back({"1f1b", ranks, 1, micro});
      if (micro % ranks == 0) all.push_back({"interleaved", ranks, 2, micro});
    }
  all.push_back({"1f1b", 3, 1, 4});
  all.push_back({"interleaved", 3, 2, 6});
  return all;
}

// The same sums in the same order but where several blocks give gradients to one condition or tap, and for the sum of
// losses, here in fp64: 1e-6 for the loss and 1e-5 for gradients leave room for rounding in fp32 only.
TEST_P(EveryModelInPipeline, HasTheLossAndGradientsOfOneRank) {
  vitrail::testing::use_one_thread();
  const config::Model& options = GetParam().options;
  std::map<int, Outcome> expected;
  double loss = 0.0, gradient = 0.0;
  for (const Plan& plan : plans()) {
    if (kSamples % plan.micro_batches != 0) continue;
    SCOPED_TRACE(plan.name());
    if (!expected.contains(plan.micro_batches))
      expected[plan.micro_batches] = run_alone(options, plan.micro_batches, 1);
    const Outcome run = run_pipeline(options, plan, 1);
    const double of_loss = worst_loss(run, expected[plan.micro_batches]),
                 of_gradient = worst_gradient(run, expected[plan.micro_batches]);
    EXPECT_LE(of_loss, 1e-6);
    EXPECT_LE(of_gradient, 1e-5);
    loss = std::max(loss, of_loss), gradient = std::max(gradient, of_gradient);
  }
  std::printf("%s: loss differs by %.3g at most (1e-6), a gradient by %.3g (1e-5)\n",
              GetParam().name.c_str(), loss, gradient);
}

TEST_P(EveryModelInPipeline, LearnsAsOneRankDoes) {
  vitrail::testing::use_one_thread();
  const config::Model& options = GetParam().options;
  const Outcome expected = run_alone(options, 4, 10);
  EXPECT_NE(expected.losses.front(), expected.losses.back());
  for (const Plan& plan :
       {Plan{"gpipe", 2, 1, 4}, Plan{"1f1b", 4, 1, 4}, Plan{"interleaved", 2, 2, 4}}) {
    const double worst = worst_loss(run_pipeline(options, plan, 10), expected);
    std::printf("%s, %s: losses of 10 steps differ by %.3g at most (1e-5)\n",
                GetParam().name.c_str(), plan.name().c_str(), worst);
    EXPECT_LE(worst, 1e-5) << plan.name();
  }
}

TEST_P(EveryModelInPipeline, EvaluatesOnEveryRankAsForwardDoes) {
  vitrail::testing::use_one_thread();
  const config::Model& options = GetParam().options;
  const data::Batch whole = models::chain_batch(options, 4);
  models::Output expected;
  {
    const at::NoGradGuard no_grad;
    expected = started(options)->forward(whole, models::draws_of(whole));
  }
  comm::run_thread_group(2, [&](comm::Communicator& world) {
    vitrail::testing::use_one_thread();
    Rank rank(world, options, {"interleaved", 2, 2, 2});
    for (int again = 0; again < 2; ++again) {
      const models::Output out = rank.pipeline.evaluate(whole, models::draws_of(whole));
      EXPECT_TRUE(at::equal(out.output, expected.output));
      EXPECT_TRUE(at::equal(out.loss, expected.loss));
      EXPECT_EQ(out.mask.defined(), expected.mask.defined());
      if (out.mask.defined()) {
        EXPECT_TRUE(at::equal(out.mask, expected.mask));
      }
    }
  });
}

TEST_P(EveryModelInPipeline, GivesEveryTapOnEveryRankAsForwardDoes) {
  vitrail::testing::use_one_thread();
  const config::Model& options = GetParam().options;
  const data::Batch whole = models::chain_batch(options, 4);
  std::vector<std::string> taps{"embed", "blocks.0", "blocks.4", "norm"};
  if (options.kind == "vit") taps.push_back("pool");
  if (options.kind == "diffusion") taps.insert(taps.end(), {"noise", "time_embed"});
  if (options.kind == "mae" && options.decoder == "transformer")
    taps.insert(taps.end(), {"decoder_embed", "decoder_blocks.1", "decoder_norm"});
  if (options.kind == "unetr" && options.skips) taps.insert(taps.end(), {"enc2", "dec3"});
  models::Output expected;
  {
    const at::NoGradGuard no_grad;
    expected = started(options)->forward(whole, models::draws_of(whole), taps);
  }
  ASSERT_EQ(expected.taps.size(), taps.size());
  comm::run_thread_group(2, [&](comm::Communicator& world) {
    vitrail::testing::use_one_thread();
    Rank rank(world, options, {"interleaved", 2, 2, 2});
    for (int again = 0; again < 2; ++again) {
      const models::Output out = rank.pipeline.evaluate(whole, models::draws_of(whole), taps);
      EXPECT_TRUE(at::equal(out.output, expected.output));
      for (const std::string& tap : taps) {
        ASSERT_TRUE(out.taps.contains(tap)) << tap;
        EXPECT_TRUE(at::equal(out.taps.at(tap), expected.taps.at(tap))) << tap;
      }
    }
    EXPECT_THROW(rank.pipeline.evaluate(whole, models::draws_of(whole), {"blocks.99"}),
                 core::ConfigError);
  });
}

TEST_P(EveryModelInPipeline, HoldsEveryUnitOnOneStageInEvenRuns) {
  const auto model = models::make_model_shapes(GetParam().options);
  for (const int stages : {1, 2, 3, 4, 7, 8}) {
    int last = 0;
    std::map<int, int> blocks;
    std::set<std::string> names;
    for (const auto& [unit, stage] : stage_of_units(*model, stages)) {
      EXPECT_GE(stage, last) << unit;  // units come in the order in which forward uses them
      last = stage;
      EXPECT_TRUE(names.insert(unit).second);
      if (unit.find("blocks.") != std::string::npos) ++blocks[stage];
    }
    EXPECT_EQ(last, stages - 1);
    EXPECT_EQ(names.size(), model->units().size());
    for (int stage = 0; stage < stages; ++stage) {
      EXPECT_GE(blocks[stage], 8 / stages);
      EXPECT_LE(blocks[stage], (8 + stages - 1) / stages);
    }
  }
}

TEST(Pipeline, RefusesMoreStagesThanBlocks) {
  const auto model = models::make_model_shapes(models::chain_cases().front().options);
  EXPECT_THROW(stage_of_units(*model, 9), core::ConfigError);
}

TEST(Pipeline, SaysWhichBackwardIsTheLast) {
  for (const Plan& plan : {Plan{"1f1b", 2, 1, 4}, Plan{"gpipe", 2, 1, 2},
                           Plan{"interleaved", 2, 2, 4}, Plan{"1f1b", 1, 1, 4}})
    comm::run_thread_group(plan.ranks, [&](comm::Communicator& world) {
      vitrail::testing::use_one_thread();
      const config::Model options = models::chain_cases()[2].options;
      Rank rank(world, options, plan);
      const auto batches = cut_batch(models::chain_batch(options, kSamples), plan.micro_batches);
      std::vector<std::string> events;
      PassHooks hooks;
      hooks.before_forward = [&] { events.push_back("forward"); };
      hooks.before_backward = [&](bool last) { events.push_back(last ? "last" : "backward"); };
      hooks.after_backward = [&] { events.push_back("after"); };
      rank.pipeline.run(
          batches, [](const data::Batch& batch) { return draws_at(0, batch); }, hooks);
      const auto passes = static_cast<size_t>(plan.parts * plan.micro_batches);
      EXPECT_EQ(std::count(events.begin(), events.end(), "forward"), passes);
      EXPECT_EQ(std::count(events.begin(), events.end(), "after"), passes);
      EXPECT_EQ(std::count(events.begin(), events.end(), "last"), 1);
      EXPECT_EQ(events[events.size() - 2], "last");
    });
}

TEST(Pipeline, TakesBatchesOfOtherShapesInTurn) {
  const config::Model options = models::chain_cases().front().options;
  const auto model = started(options);
  std::vector<std::vector<data::Batch>> steps;
  for (const int64_t size : {8, 4, 8, 2})
    steps.push_back(cut_batch(models::chain_batch(options, size), 2));
  std::vector<double> expected;
  for (const auto& batches : steps) {
    double loss = 0.0;
    for (const data::Batch& batch : batches)
      loss += model->forward(batch, draws_at(0, batch)).loss.item<double>() / 2.0;
    expected.push_back(loss);
  }
  comm::run_thread_group(4, [&](comm::Communicator& world) {
    vitrail::testing::use_one_thread();
    Rank rank(world, options, {"1f1b", 4, 1, 2});
    for (size_t i = 0; i < steps.size(); ++i) {
      const at::Tensor loss = rank.pipeline.run(
          steps[i], [](const data::Batch& batch) { return draws_at(0, batch); }, {});
      EXPECT_NEAR(loss.item<double>(), expected[i], 1e-6 * expected[i]);
    }
  });
}

}  // namespace
}  // namespace vitrail::parallel
