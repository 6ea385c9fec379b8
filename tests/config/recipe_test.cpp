// Reading, overrides, presets, dependent defaults, origins.

#include "vitrail/config/recipe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "vitrail/core/error.h"

namespace vitrail::config {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr const char* kDigits = R"(run: {name: digits}
model:
  kind: vit
  image_size: [8, 8]
  patch_size: 2
  in_channels: 1
  num_classes: 10
  embed_dim: 64
  depth: 4
  num_heads: 4
data:
  sources:
    - {reader: digits, root: digits.csv.gz, split: [0, 0.8]}
train: {epochs: 2}
)";

Recipe parse(const std::string& yaml, const std::vector<std::string>& overrides = {}) {
  return parse_recipe(yaml, "recipe.yaml", overrides).recipe;
}

std::string origin_of(const ResolvedRecipe& resolved, const std::string& key) {
  for (const Origin& origin : resolved.origins)
    if (origin.key == key) return origin.text;
  return "no such key";
}

TEST(Recipe, ReadsWhatTheFileSaysAndKeepsDefaultsElsewhere) {
  const Recipe recipe = parse(kDigits);
  EXPECT_EQ(recipe.run.name, "digits");
  EXPECT_THAT(recipe.model.image_size, ElementsAre(8, 8));
  EXPECT_EQ(recipe.model.embed_dim, 64);
  EXPECT_EQ(recipe.train.epochs, 2);
  EXPECT_FALSE(recipe.train.steps);
  EXPECT_EQ(recipe.train.optimizer.lr, 1e-3);
  ASSERT_EQ(recipe.data.sources.size(), 1u);
  EXPECT_EQ(recipe.data.sources[0].root, "digits.csv.gz");
  EXPECT_THAT(recipe.data.sources[0].split, ElementsAre(0, 0.8));
}

TEST(Recipe, ExampleOfTheContractIsAccepted) {
  const Recipe recipe = parse(R"(
run:   {name: cifar10-vit, output: runs, seed: 0, deterministic: false, device: auto}      # auto | cpu | cuda
model: {kind: vit, image_size: [32, 32], patch_size: 4, in_channels: 3, num_classes: 10, embed_dim: 192, depth: 12, num_heads: 3, mlp_ratio: 4}
data:
  batch_size: 256                       # global, samples per optimizer step
  sources: [{name: cifar10, reader: image_folder, root: data/cifar10/train, weight: 1.0}]
train:
  epochs: 50                            # or steps
  precision: bf16                       # fp32 | bf16 | fp16 | fp8
  engine: auto                          # auto | fused | autograd
  optimizer: {kind: adamw, lr: 1e-3, betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0.05}
  schedule: {kind: cosine, warmup_steps: 500, min_lr: 1e-6}
  clip_grad_norm: 1.0
  recompute: none                       # none | block | every_k | selective
parallel: {strategy: ddp, replicate: 1, shard: -1, tensor: 1, sequence: 1, pipeline: 1, prefetch: pre, limit_all_gathers: true, offload: none}
checkpoint: {every_steps: 1000, keep: 3, async: true}
eval: {every_epochs: 1, sources: [{name: cifar10, reader: image_folder, root: data/cifar10/test}]}
logging: {every_steps: 10, tensorboard: true, html: true}
)");
  EXPECT_EQ(recipe.model.embed_dim, 192);
  EXPECT_EQ(recipe.parallel.shard, -1);
  EXPECT_EQ(recipe.train.optimizer.eps, 1e-8);
}

TEST(Recipe, ModelAloneNeedsNoTrainingKeysUntilItIsTrained) {
  const Recipe recipe =
      parse("model: {depth: 2}\n", {"train.precision=fp32", "train.engine=autograd"});
  EXPECT_THAT([&] { require_training(recipe); },
              ::testing::ThrowsMessage<core::ConfigError>(
                  "[config] data.sources must hold at least one source to train from but is empty\n"
                  "[config] one of train.epochs and train.steps must be given but neither is"));
  EXPECT_NO_THROW(require_training(parse(kDigits)));
}

TEST(Recipe, CountsPatchesInTwoAndThreeDimensions) {
  Model model;
  model.image_size = {32, 16};
  model.patch_size = 4;
  EXPECT_EQ(model.num_patches(), 8 * 4);
  EXPECT_EQ(model.patch_values(), 4 * 4 * 3);
  model.image_size = {32, 16, 8};
  EXPECT_EQ(model.num_patches(), 8 * 4 * 2);
  EXPECT_EQ(model.patch_values(), 4 * 4 * 4 * 3);
}

TEST(Recipe, SectionWithAllKeysCommentedOutKeepsDefaults) {
  EXPECT_EQ(parse(std::string(kDigits) + "logging:\n  # every_steps: 5\n").logging.every_steps, 10);
}

TEST(Recipe, AliasesCopyTheirAnchor) {
  const Recipe recipe = parse(R"(
model: {image_size: &size [16, 32]}
data: {sources: [{reader: random, resize: *size}]}
train: {steps: 1}
)");
  EXPECT_THAT(recipe.data.sources[0].resize, ElementsAre(16, 32));
}

TEST(Recipe, ShortFormsOfASourceAreExpanded) {
  const Recipe recipe = parse(kDigits, {"data.sources[0].split={start: 0.25, end: 0.5}",
                                        "data.sources[0].normalize={mean: [0.1], std: [0.2]}"});
  EXPECT_THAT(recipe.data.sources[0].split, ElementsAre(0.25, 0.5));
  EXPECT_THAT(recipe.data.sources[0].mean, ElementsAre(0.1));
  EXPECT_THAT(recipe.data.sources[0].std, ElementsAre(0.2));
  EXPECT_THAT(parse(kDigits, {"data.sources[0].split={start: 0.25}"}).data.sources[0].split,
              ElementsAre(0.25, 1));
}

TEST(Overrides, ReplaceValuesAndCarryTheirOrigin) {
  const ResolvedRecipe resolved = parse_recipe(
      kDigits, "recipe.yaml",
      {"model.depth=6", "model.image_size=[16, 16]", "train.optimizer.lr=3e-4", "run.name=a=b"});
  EXPECT_EQ(resolved.recipe.model.depth, 6);
  EXPECT_THAT(resolved.recipe.model.image_size, ElementsAre(16, 16));
  EXPECT_EQ(resolved.recipe.train.optimizer.lr, 3e-4);
  EXPECT_EQ(resolved.recipe.run.name, "a=b");
  EXPECT_EQ(origin_of(resolved, "model.depth"), "command line: model.depth=6");
  EXPECT_EQ(origin_of(resolved, "model.embed_dim"), "recipe.yaml:8:14");
  EXPECT_EQ(origin_of(resolved, "data.sources[0].root"), "recipe.yaml:13:30");
  EXPECT_EQ(origin_of(resolved, "model.num_heads"), "recipe.yaml:10:14");
  EXPECT_EQ(origin_of(resolved, "logging.html"), "default");
}

TEST(Overrides, LaterOnesWin) {
  EXPECT_EQ(parse(kDigits, {"model.depth=6", "model.depth=7"}).model.depth, 7);
}

TEST(Overrides, ReachIntoListsAndAppendOnePastTheEnd) {
  const Recipe recipe =
      parse(kDigits,
            {"data.sources[0].root=x", "data.sources[1].reader=random", "data.sources[1].weight=2",
             "eval.sources[0]={reader: random}", "data.sources[0].augment[0]=flip"});
  ASSERT_EQ(recipe.data.sources.size(), 2u);
  EXPECT_EQ(recipe.data.sources[0].root, "x");
  EXPECT_EQ(recipe.data.sources[1].reader.value, "random");
  EXPECT_EQ(recipe.data.sources[1].weight, 2);
  EXPECT_EQ(recipe.eval.sources.size(), 1u);
  EXPECT_THAT(recipe.data.sources[0].augment, ElementsAre("flip"));
}

TEST(Overrides, AnIndexIntoADefaultListChangesThatElementAlone) {
  EXPECT_THAT(parse(kDigits, {"train.optimizer.betas[1]=0.95"}).train.optimizer.betas,
              ElementsAre(0.9, 0.95));
}

TEST(Overrides, LengthOnTheCommandLineReplacesTheOtherLengthOfTheFile) {
  const ResolvedRecipe resolved = parse_recipe(kDigits, "recipe.yaml", {"train.steps=5"});
  EXPECT_EQ(resolved.recipe.train.steps, 5);
  EXPECT_FALSE(resolved.recipe.train.epochs);
  EXPECT_EQ(origin_of(resolved, "train.epochs"), "replaced by command line: train.steps=5");
}

TEST(Overrides, NullAndEmptyValues) {
  EXPECT_FALSE(parse(kDigits, {"train.epochs=null", "train.steps=3"}).train.epochs);
  EXPECT_EQ(parse(kDigits, {"model.weights.path="}).model.weights.path, "");
}

TEST(Presets, FillOnlyWhatTheRecipeDoesNotGive) {
  const ResolvedRecipe resolved =
      parse_recipe("model: {preset: vit_huge, depth: 2}\n", "recipe.yaml", {"model.num_heads=8"});
  EXPECT_EQ(resolved.recipe.model.embed_dim, 1280);
  EXPECT_EQ(resolved.recipe.model.patch_size, 14);
  EXPECT_EQ(resolved.recipe.model.depth, 2);
  EXPECT_EQ(resolved.recipe.model.num_heads, 8);
  EXPECT_EQ(origin_of(resolved, "model.embed_dim"), "preset vit_huge");
  EXPECT_EQ(origin_of(resolved, "model.depth"), "recipe.yaml:1:34");
}

/// Parameters without head: arXiv:2404.11706's table, and timm's for the smaller ones.
double millions(const Model& m) {
  const auto width = static_cast<double>(m.embed_dim);
  const double hidden =
      m.mlp_hidden_dim ? static_cast<double>(*m.mlp_hidden_dim) : width * m.mlp_ratio;
  const double block =
      4 * width * width + 4 * width + 2 * width * hidden + hidden + width + 4 * width;
  const double ends = static_cast<double>(m.patch_values()) * width + width + width +
                      static_cast<double>(m.num_patches() + 1) * width + 2 * width;
  return (static_cast<double>(m.depth) * block + ends) / 1e6;
}

TEST(Presets, HaveTheParameterCountsOfTheirSources) {
  const std::vector<std::pair<std::string, double>> expected{
      {"vit_tiny", 5.52},    {"vit_small", 21.67},        {"vit_base", 85.80},
      {"vit_large", 303.30}, {"vit_huge", 630.77},        {"vit_1b", 907.91},
      {"vit_3b", 3048.63},   {"vit_5b_printed", 3805.42}, {"vit_5b_actual", 5333.0},
      {"vit_15b", 14638.75}};
  for (const auto& [name, count] : expected) {
    const double relative =
        count > 5000 && count < 5400 ? 1e-3 : 1e-2 / count;  // as many digits as the source prints
    EXPECT_NEAR(millions(parse("model: {preset: " + name + "}").model), count, relative * count)
        << name;
  }
}

TEST(Presets, AGivenMlpRatioBeatsThePresetsWidth) {
  EXPECT_EQ(parse("model: {preset: vit_5b_printed}").model.mlp_hidden_dim, 15360);
  EXPECT_FALSE(parse("model: {preset: vit_5b_printed, mlp_ratio: 4}").model.mlp_hidden_dim);
}

TEST(DependentDefaults, FollowKindAndClassToken) {
  const ResolvedRecipe mae = parse_recipe("model: {kind: mae}", "recipe.yaml", {});
  EXPECT_TRUE(mae.recipe.model.pos_embed == "sincos");
  EXPECT_TRUE(mae.recipe.model.class_token);
  EXPECT_TRUE(mae.recipe.model.pool == "token");
  EXPECT_EQ(origin_of(mae, "model.pos_embed"), "default for mae");
  EXPECT_TRUE(parse("model: {kind: mae, pos_embed: learned}").model.pos_embed == "learned");
  const ResolvedRecipe without = parse_recipe("model: {class_token: false}", "recipe.yaml", {});
  EXPECT_TRUE(without.recipe.model.pool == "avg");
  EXPECT_EQ(origin_of(without, "model.pool"), "default without class_token");
  EXPECT_TRUE(parse("model: {}").model.pos_embed == "learned");
}

TEST(Recipe, ProblemsOfARecipeBuiltInCodeHaveNoPlace) {
  Recipe recipe;
  EXPECT_TRUE(problems(recipe).empty());
  recipe.model.num_heads = 10;
  EXPECT_THAT(
      problems(recipe),
      ElementsAre(
          "[config] model.embed_dim must be a multiple of model.num_heads but got 768 and 10"));
}

}  // namespace
}  // namespace vitrail::config
