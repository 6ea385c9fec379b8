// UNETR's decoder on tiles of sequence ranks, against one rank that has the whole maps.

#include <cstdio>
#include <map>
#include <mutex>
#include <string>

#include <ATen/ops/zeros_like.h>
#include <gtest/gtest.h>

#include "tests/models/segmenter_cases.h"
#include "tests/models/tiny_models.h"
#include "tests/parallel/live_bytes.h"
#include "tests/parallel/ranks.h"
#include "vitrail/parallel/exchange.h"
#include "vitrail/parallel/halo.h"
#include "vitrail/parallel/sequence.h"

namespace vitrail::parallel {
namespace {

using comm::Axis;

// Rounding of sums in another order. Worst seen in fp32: loss 1.4e-7, output 1.5e-6 of the largest; in fp64: gradients
// 3.1e-14 of the parameter's largest. In fp32 an activation whose input is nothing but rounding may take the other slope
// of the leaky ReLU: 4.4e-3 where that happened, else 7.5e-6.
constexpr double kAllowedLoss = 1e-6, kAllowedOutput = 1e-5, kAllowedGradient = 2e-2,
                 kAllowedGradient64 = 1e-9;

config::Model model_of(std::vector<int64_t> sides, int64_t patch, bool skips = true) {
  config::Model model = models::segmenter("unetr", std::move(sides), patch);
  model.skips = skips, model.drop_path_rate = 0.1;
  return model;
}

struct Form {
  const char* name;
  config::Model model;
};

std::vector<Form> forms() {
  std::vector<Form> forms{{"2-D", model_of({64, 64}, 16)},
                          {"2-D, resized up, sides differ", model_of({64, 160}, 32)},
                          {"2-D, resized down", model_of({48, 48}, 6)},
                          {"2-D, without skips", model_of({64, 64}, 16, false)},
                          {"2-D, without skips, resized down", model_of({32, 32}, 8, false)},
                          {"3-D", model_of({32, 32, 32}, 16)},
                          {"3-D, small patches", model_of({32, 32, 32}, 8)}};
  forms.push_back({"2-D, values", model_of({64, 64}, 16)});
  forms.back().model.loss.value = "mse";
  forms.push_back({"2-D, generalized Dice", model_of({64, 64}, 16)});
  forms.back().model.loss.value = "generalized_dice";
  return forms;
}

data::Batch batch_of(const config::Model& model, int64_t size) {
  data::Batch batch = models::images(model, size);
  if (model.loss == "mse")
    batch.label = models::random(models::shape_of(size, model.num_classes, model.image_size), 3);
  return batch;
}

struct Pass {
  double loss = 0;
  std::map<std::string, at::Tensor> gradients;
  at::Tensor output;  // without gradients, whole
  std::map<std::string, at::Tensor> taps;
};

const std::vector<std::string> kTaps{"dec5", "dec2"};

Pass pass_of(models::Model& model, const data::Batch& batch) {
  Pass pass;
  const at::Tensor loss = model.forward(batch, {7, 3, batch.sample_ids, /*training=*/true}).loss;
  loss.backward();
  pass.loss = loss.item<double>();
  for (const nn::NamedTensor& parameter : model.named_parameters())
    pass.gradients[parameter.name] = parameter.tensor.grad().defined()
                                         ? parameter.tensor.grad()
                                         : at::zeros_like(parameter.tensor);
  const at::NoGradGuard no_grad;
  models::Output out = model.forward(batch, {7, 3, batch.sample_ids, false}, kTaps);
  pass.output = out.output, pass.taps = out.taps;
  return pass;
}

config::Recipe recipe_of(const config::Model& model, int64_t ranks) {
  config::Recipe recipe;
  recipe.model = model, recipe.parallel.sequence = ranks;
  return recipe;
}

void on_sequence_ranks(const config::Model& model, int ranks,
                       const std::function<void(models::Model&, comm::Communicator&)>& body,
                       at::ScalarType type = at::kFloat) {
  comm::run_thread_group(ranks, [&](comm::Communicator& world) {
    testing::use_one_thread();
    comm::Mesh mesh(world, {.replicate = 1, .sequence = ranks});
    Groups groups(mesh, at::kCPU);
    const auto own = models::make_model(model, 1);
    models::move_parameters(*own, at::kCPU, type);
    const SequenceParallel sequence(*own, recipe_of(model, ranks), groups);
    body(*own, world);
  });
}

struct Worst {
  double loss = 0, gradient = 0, output = 0;
  std::string where;
};

Worst worst_of(const config::Model& model, int ranks, at::ScalarType type) {
  testing::use_one_thread();
  const data::Batch batch = batch_of(model, 2);
  const auto alone = models::make_model(model, 1);
  models::move_parameters(*alone, at::kCPU, type);
  const Pass expected = pass_of(*alone, batch);
  Worst worst;
  std::mutex mutex;
  on_sequence_ranks(
      model, ranks,
      [&](models::Model& own, comm::Communicator& world) {
        Pass pass = pass_of(own, batch);
        for (auto& [name, gradient] : pass.gradients)
          world.all_reduce(buffer_of(gradient), comm::Reduce::average).wait();
        const at::NoGradGuard no_grad;
        const std::lock_guard lock(mutex);
        worst.loss = std::max(worst.loss, std::abs(pass.loss / expected.loss - 1));
        const auto compare_output = [&](const at::Tensor& value, const at::Tensor& whole) {
          ASSERT_EQ(value.sizes(), whole.sizes());
          worst.output = std::max(worst.output, testing::relative_difference(value, whole));
        };
        compare_output(pass.output, expected.output);
        for (const auto& [name, value] : expected.taps) compare_output(pass.taps.at(name), value);
        for (const auto& [name, gradient] : expected.gradients) {
          const double largest = std::max(testing::largest(gradient), 1e-3);
          const double difference = testing::largest(pass.gradients.at(name) - gradient) / largest;
          if (difference > worst.gradient) worst.gradient = difference, worst.where = name;
        }
      },
      type);
  return worst;
}

TEST(HaloUnetr, HasTheLossGradientsAndPredictionOfOneRank) {
  for (const Form& form : forms())
    for (const int ranks : {2, 3, 4}) {
      const Worst worst = worst_of(form.model, ranks, at::kFloat);
      const Worst wide = worst_of(form.model, ranks, at::kDouble);
      std::printf(
          "%s on %d ranks: loss %.2g (%.0e), output %.2g (%.0e), gradient %.2g (%.0e) %s, in fp64 "
          "%.2g (%.0e)\n",
          form.name, ranks, worst.loss, kAllowedLoss, worst.output, kAllowedOutput, worst.gradient,
          kAllowedGradient, worst.where.c_str(), wide.gradient, kAllowedGradient64);
      EXPECT_LE(worst.loss, kAllowedLoss);
      EXPECT_LE(worst.output, kAllowedOutput);
      EXPECT_LE(worst.gradient, kAllowedGradient);
      EXPECT_LE(wide.gradient, kAllowedGradient64);
    }
}

TEST(HaloUnetr, TrainsAsOneRankDoes) {
  for (const Form& form : {forms()[0], forms()[5]})
    for (const int ranks : {2, 3, 4}) {
      const bool is_plane = form.model.image_size.size() == 2;
      if (!is_plane && ranks == 3) continue;  // 2 x 2 x 2 patches
      config::Recipe recipe = testing::tiny_recipe(form.model);
      recipe.train.micro_batches = is_plane ? 2 : 1;
      // Norms behind convolutions leave some gradients nothing but rounding, which AdamW would blow up to full steps.
      recipe.train.optimizer.eps = 1e-3;
      testing::RanksOptions options;
      options.global_batch = is_plane ? 2 : 1, options.evaluate = true;
      // Of a million activations some lie within rounding of the leaky ReLU's kink; large steps would amplify it.
      options.learning_rate = is_plane ? 3e-3 : 3e-4;
      options.samples = [&](int64_t first, int64_t count) {
        data::Batch batch = models::images(form.model, count + first % 5);
        for (at::Tensor* rows : batch.rows()) *rows = rows->narrow(0, first % 5, count);
        return batch;
      };
      const std::vector<double> expected =
          testing::losses_of(1, testing::alone(recipe), 10, options);
      recipe.parallel.strategy.value = "ddp";
      recipe.parallel.sequence = ranks, recipe.parallel.replicate = 1;
      const std::vector<double> losses = testing::losses_of(ranks, recipe, 10, options);
      const std::string name = fmt::format("{} on {} ranks", form.name, ranks);
      EXPECT_LE(testing::compare(name + ", first step", losses, expected, 1), 1e-6);
      EXPECT_LE(testing::compare(name + ", ten steps and evaluation", losses, expected), 1e-5);
    }
}

struct Bytes {
  int64_t peak = 0, largest = 0;
};

/// Of a training pass; with tiles the most of any rank.
Bytes bytes_of(const config::Model& model, int ranks) {
  const data::Batch batch = batch_of(model, 2);
  Bytes bytes;
  std::mutex mutex;
  on_sequence_ranks(model, ranks, [&](models::Model& own, comm::Communicator&) {
    const testing::LiveBytes live;
    own.forward(batch, {7, 3, batch.sample_ids, /*training=*/true}).loss.backward();
    const std::lock_guard lock(mutex);
    bytes.peak = std::max(bytes.peak, live.peak());
    bytes.largest = std::max(bytes.largest, live.largest());
  });
  return bytes;
}

TEST(HaloUnetr, ARankHoldsItsShareOfTheDecodersMaps) {
  config::Model plane = model_of({128, 128}, 16), volume = model_of({64, 64, 64}, 16);
  plane.feature_size = 8;
  for (const config::Model& model : {plane, volume}) {
    const Bytes whole = bytes_of(model, 1);
    for (const int ranks : {2, 4}) {
      const Bytes own = bytes_of(model, ranks);
      const double largest = static_cast<double>(own.largest) / static_cast<double>(whole.largest);
      const double peak = static_cast<double>(own.peak) / static_cast<double>(whole.peak);
      std::printf("%d axes, %d ranks: largest tensor %.3f, peak %.3f of one rank's\n",
                  static_cast<int>(model.image_size.size()), ranks, largest, peak);
      // A share, and the halo: of 16 or more rows two.
      EXPECT_LE(largest, 1.13 / ranks);
      EXPECT_LE(peak, 1.25 / ranks);
    }
  }
}

TEST(HaloUnetr, RunsWholeWhereRanksWouldHaveNothing) {
  const config::Model model = model_of({32, 32}, 16);  // 2 x 2 patches
  on_sequence_ranks(model, 3, [&](models::Model& own, comm::Communicator&) {
    const data::Batch batch = batch_of(model, 1);
    const models::Output out = own.forward(batch, {7, 3, batch.sample_ids, true});
    EXPECT_EQ(out.output.size(2), 32);  // else the output of training is a tile
  });
  on_sequence_ranks(model, 2, [&](models::Model& own, comm::Communicator&) {
    const data::Batch batch = batch_of(model, 1);
    EXPECT_EQ(own.forward(batch, {7, 3, batch.sample_ids, true}).output.size(2), 16);
  });
}

}  // namespace
}  // namespace vitrail::parallel
