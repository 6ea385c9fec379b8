#include "vitrail/train/sample.h"

#include <cmath>
#include <filesystem>
#include <set>

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/full.h>
#include <ATen/ops/tensor.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/train/tiny_run.h"
#include "vitrail/core/error.h"
#include "vitrail/io/image.h"
#include "vitrail/io/npy.h"
#include "vitrail/models/init.h"
#include "vitrail/models/weights.h"
#include "vitrail/train/loop.h"

namespace vitrail::train {
namespace {

using testing::HasSubstr;
using testing::ThrowsMessage;

config::ResolvedRecipe recipe_of(const Workplace& place, const std::string& model,
                                 const std::string& source = "{reader: random}") {
  return config::parse_recipe(fmt::format(R"yaml(
run: {{name: drawn, output: {}, device: cpu, threads: 1, seed: 3}}
model: {{kind: diffusion, patch_size: 4, embed_dim: 24, depth: 2, num_heads: 2, decoder: linear, num_timesteps: 20, {}}}
data: {{batch_size: 4, sources: [{}]}}
train: {{steps: 1}}
)yaml",
                                          place.file("runs"), model, source),
                              "drawn.yaml", {});
}

constexpr const char* kImages =
    "image_size: [8, 12], in_channels: 1, num_classes: 3, time_conditioning: block";

/// Nothing is hidden behind a zero start.
std::shared_ptr<models::Model> scrambled(const config::Recipe& recipe) {
  auto model = models::make_model(recipe.model, 0);
  models::initialise(model->named_parameters(), 1, [](const std::string&, const at::Tensor&) {
    return models::Initial{models::Fill::normal, 0.3};
  });
  return model;
}

Samples draw(const config::Recipe& recipe, DrawOptions options) {
  return draw_samples(*scrambled(recipe), recipe, at::kCPU, options);
}

double distance(const at::Tensor& a, const at::Tensor& b) {
  return (a - b).abs().max().item<double>();
}

// Matrix products of other batch sizes may sum in another order; each step may double the difference.
constexpr double kRounding = 1e-4;

TEST(DrawSamples, SampleIDoesNotDependOnTheBatch) {
  const Workplace place;
  const config::Recipe recipe = recipe_of(place, kImages).recipe;
  for (const auto method : {models::SamplingMethod::ddim, models::SamplingMethod::ddpm}) {
    DrawOptions options;
    options.method = method;
    options.steps = 5;
    options.count = 7;
    const Samples once = draw(recipe, options);
    options.batch = 2;
    const Samples pieces = draw(recipe, options);
    EXPECT_EQ(once.images.sizes(), (at::IntArrayRef{7, 1, 8, 12}));
    EXPECT_LT(distance(once.images, pieces.images), kRounding);
    EXPECT_TRUE(once.labels.equal(at::tensor({0, 1, 2, 0, 1, 2, 0}, at::kLong)));
    EXPECT_GT(distance(once.images[0], once.images[3]), 0.01);  // of one class, yet another sample
    options.seed = 1;
    EXPECT_GT(distance(once.images, draw(recipe, options).images), 0.01);
  }
}

TEST(DrawSamples, ValuesLieInTheRangeOfTheDataUnlessToldOtherwise) {
  const Workplace place;
  const config::Recipe recipe =
      recipe_of(place, kImages, "{reader: random, mean: [0.3], std: [0.1]}").recipe;
  DrawOptions options;
  options.steps = 4;
  const at::Tensor kept = draw(recipe, options).images;
  EXPECT_GE(kept.min().item<double>(), -1e-6);
  EXPECT_LE(kept.max().item<double>(), 1 + 1e-6);
  EXPECT_GT(kept.max().item<double>() - kept.min().item<double>(), 0.5);
  options.clip = false;
  const at::Tensor free = draw(recipe, options).images;
  EXPECT_TRUE(free.min().item<double>() < 0 || free.max().item<double>() > 1);
}

TEST(DrawSamples, GuidanceOfOneIsTheClassAndOfZeroIsNone) {
  const Workplace place;
  const config::Recipe recipe = recipe_of(place, kImages).recipe;
  DrawOptions options;
  options.steps = 4;
  options.count = 2;
  options.label = 2;
  const at::Tensor plain = draw(recipe, options).images;
  options.guidance = 1.0 + 1e-9;  // both passes run
  EXPECT_LT(distance(plain, draw(recipe, options).images), kRounding);
  options.guidance = 3.0;
  EXPECT_GT(distance(plain, draw(recipe, options).images), 1e-3);
  options.guidance = 0.0;
  const Samples none = draw(recipe, options);
  EXPECT_EQ(none.labels.max().item<int64_t>(), -1);
  options.label = 0;
  EXPECT_TRUE(draw(recipe, options).images.equal(none.images));
}

TEST(DrawSamples, DdpmTakesAllLevelsByDefaultAndDdimAtMostFifty) {
  const Workplace place;
  const config::Recipe recipe = recipe_of(place, kImages).recipe;  // 20 levels
  DrawOptions options;
  options.count = 1;
  for (const auto method : {models::SamplingMethod::ddim, models::SamplingMethod::ddpm}) {
    options.method = method;
    options.steps = 0;
    const at::Tensor by_default = draw(recipe, options).images;
    options.steps = 20;
    EXPECT_TRUE(by_default.equal(draw(recipe, options).images));
  }
}

TEST(DrawSamples, DrawsTheVariablesOfTheFirstSource) {
  const Workplace place;
  const config::Recipe recipe =
      recipe_of(place, "image_size: [8, 8], in_channels: 3, variables: [t, u, v]",
                "{reader: random, variables: [v, t]}")
          .recipe;
  DrawOptions options;
  options.steps = 2;
  EXPECT_EQ(draw(recipe, options).images.size(1), 2);
}

TEST(DrawSamples, RefusesWhatTheModelCannotDo) {
  const Workplace place;
  const config::Recipe with = recipe_of(place, kImages).recipe,
                       without = recipe_of(place, "image_size: [8, 8], in_channels: 1").recipe;
  const auto refused = [](const config::Recipe& recipe, auto change, const char* message) {
    DrawOptions options;
    change(options);
    EXPECT_THAT([&] { check_draw(recipe.model, options); },
                ThrowsMessage<core::ConfigError>(HasSubstr(message)));
  };
  refused(
      with, [](DrawOptions& o) { o.steps = 21; }, "model.num_timesteps = 20 but got 21");
  refused(
      with, [](DrawOptions& o) { o.label = 3; }, "class must be in [0, 3) but got 3");
  refused(
      with, [](DrawOptions& o) { o.label = -1; }, "class must be in [0, 3) but got -1");
  refused(
      with, [](DrawOptions& o) { o.count = 0; }, "count");
  refused(
      with, [](DrawOptions& o) { o.guidance = -1; }, "guidance");
  refused(
      without, [](DrawOptions& o) { o.label = 0; }, "model.num_classes is 0");
  refused(
      without, [](DrawOptions& o) { o.guidance = 2; }, "model.num_classes is 0");
  config::Recipe other = with;
  other.model.kind.value = "vit";
  refused(
      other, [](DrawOptions&) {}, "model.kind must be diffusion but got vit");
}

/// Weights of the recipe's model in a file.
std::string saved(const Workplace& place, const config::Recipe& recipe) {
  const std::string path = place.file("w.safetensors");
  models::save_weights(*scrambled(recipe), path);
  return path;
}

TEST(SampleRecipe, WritesASheetAFileOrAFolder) {
  const Workplace place;
  const config::ResolvedRecipe resolved = recipe_of(place, kImages);
  SampleOptions options;
  options.weights = saved(place, resolved.recipe);
  options.draw.count = 7;
  options.draw.steps = 2;
  options.output = place.file("sheet.png");
  sample_recipe(resolved, *comm::self_communicator(), options);
  const io::Image sheet = io::read_image(options.output);
  // Three columns (classes), three rows, 8 x 12 pixels four times enlarged, gaps of 2.
  EXPECT_EQ(sheet.width, 3 * (48 + 2) + 2);
  EXPECT_EQ(sheet.height, 3 * (32 + 2) + 2);
  options.output = place.file("all.safetensors");
  sample_recipe(resolved, *comm::self_communicator(), options);
  const auto tensors = models::read_tensors(options.output);
  ASSERT_EQ(tensors.size(), 2u);
  options.output = place.file("folder");
  sample_recipe(resolved, *comm::self_communicator(), options);
  std::set<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(options.output))
    names.insert(entry.path().filename().string());
  EXPECT_EQ(names.size(), 8u);
  EXPECT_TRUE(names.count("sheet.png") && names.count("00004-class-1.png"));
}

TEST(SampleRecipe, VolumesBecomeArraysAndSlices) {
  const Workplace place;
  const config::ResolvedRecipe resolved = recipe_of(place, "image_size: [8, 4, 8], in_channels: 2");
  SampleOptions options;
  options.weights = saved(place, resolved.recipe);
  options.draw.count = 4;
  options.draw.steps = 2;
  options.output = place.file("volumes");
  sample_recipe(resolved, *comm::self_communicator(), options);
  const io::NpyFile volume = io::NpyFile::open(place.file("volumes/00003.npy"));
  EXPECT_THAT(volume.shape(), testing::ElementsAre(2, 8, 4, 8));
  // Two columns of three slices of 8, twice enlarged to 48.
  EXPECT_EQ(io::read_image(place.file("volumes/sheet.png")).width, 2 * (48 + 2) + 2);
}

TEST(SampleSheet, HasAColumnAClass) {
  const Workplace place;
  const config::Recipe recipe = recipe_of(place, kImages).recipe;
  const auto model = scrambled(recipe);
  const PictureTable table = sample_sheet(*model, recipe, at::kCPU, 7);
  EXPECT_THAT(table.columns, testing::ElementsAre("class 0", "class 1", "class 2"));
  ASSERT_EQ(table.rows.size(), 3u);
  EXPECT_EQ(table.rows[0].size(), 3u);
  EXPECT_EQ(table.rows[2].size(), 1u);
}

TEST(SampleSheet, LeavesGradientsAndWeightsAlone) {
  const Workplace place;
  const config::Recipe recipe = recipe_of(place, kImages).recipe;
  const auto model = scrambled(recipe);
  const at::Tensor before = model->named_parameters().front().tensor.detach().clone();
  sample_sheet(*model, recipe, at::kCPU, 3);
  EXPECT_TRUE(model->named_parameters().front().tensor.equal(before));
  EXPECT_FALSE(model->named_parameters().front().tensor.grad().defined());
}

TEST(SampleRecipe, DrawsWithTheMovingAverageOfARun) {
  const Workplace place;
  const config::ResolvedRecipe resolved = tiny_recipe(
      place, "ema",
      {"model.kind=diffusion", "model.decoder=linear", "model.num_timesteps=10", "train.steps=6",
       "train.ema_decay=0.9", "checkpoint.every_steps=6", "checkpoint.keep=1"});
  TrainOptions training;
  training.print = false;
  const RunResult run = run_training(resolved, *comm::self_communicator(), training);
  for (const double loss : run.losses) EXPECT_TRUE(std::isfinite(loss));
  const auto drawn = [&](const std::string& weights) {
    SampleOptions options;
    options.weights = weights;
    options.draw.count = 3;
    options.output = place.file("out.safetensors");
    sample_recipe(resolved, *comm::self_communicator(), options);
    for (const nn::NamedTensor& entry : models::read_tensors(options.output))
      if (entry.name == "image") return entry.tensor;
    return at::Tensor();
  };
  const at::Tensor of_run = drawn("");
  EXPECT_TRUE(of_run.equal(drawn(run.folder + "/weights-ema.safetensors")));
  EXPECT_FALSE(of_run.equal(drawn(run.folder + "/weights.safetensors")));
}

}  // namespace
}  // namespace vitrail::train
