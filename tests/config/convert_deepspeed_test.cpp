#include <algorithm>
#include <fstream>
#include <sstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "vitrail/config/convert.h"
#include "vitrail/core/error.h"

namespace vitrail::config {
namespace {

using ::testing::HasSubstr;

std::string read(const std::string& name) {
  std::ifstream in(std::string(VITRAIL_SOURCE_DIR) + "/tests/config/convert/" + name);
  EXPECT_TRUE(in) << name;
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

Conversion from(const std::string& json, int64_t ranks = 0, const Recipe& base = {}) {
  return convert_deepspeed(json, "ds.json", {.base = base, .data_ranks = ranks});
}

/// The recipe that nothing but the file gives.
Recipe recipe_of(const Conversion& conversion) {
  conversion.throw_if_any();
  return parse_layered("run: {name: x}\n", "r.yaml", conversion.settings).recipe;
}

/// What is said about a key, all lines of it.
std::string said(const Conversion& conversion, const std::string& key) {
  std::string text;
  bool here = false;
  for (const ConvertedLine& line : conversion.lines) {
    here = line.key == key || (here && line.key.empty());
    if (here) text += line.target + " | " + line.note + "\n";
  }
  return text;
}

TEST(ConvertDeepSpeed, TheStageTwoFileBecomesTheSameTraining) {
  const Conversion conversion = from(read("deepspeed_config.json"));
  const Recipe recipe = recipe_of(conversion);
  EXPECT_EQ(recipe.data.batch_size, 32);
  EXPECT_EQ(recipe.train.micro_batches, 1);
  EXPECT_EQ(recipe.train.precision.value, "fp16");
  EXPECT_EQ(recipe.train.loss_scale, (LossScale{0.0, 16, 1000, 2, false, 1.0}));
  EXPECT_EQ(recipe.train.optimizer.kind.value, "adamw");
  EXPECT_EQ(recipe.train.optimizer.lr, 1e-4);
  EXPECT_EQ(recipe.train.optimizer.betas, (std::vector<double>{0.9, 0.999}));
  EXPECT_EQ(recipe.train.optimizer.weight_decay, 0.01);
  EXPECT_EQ(recipe.train.schedule.kind.value, "cosine");
  EXPECT_EQ(recipe.train.schedule.warmup_steps, 100);
  EXPECT_EQ(recipe.train.schedule.total_steps, 10000);
  EXPECT_EQ(recipe.train.schedule.warmup.value, "log");
  EXPECT_EQ(recipe.train.schedule.counting.value, "deepspeed");
  EXPECT_EQ(recipe.train.schedule.warmup_start_lr, 0.0);
  EXPECT_DOUBLE_EQ(recipe.train.schedule.min_lr, 1e-8);  // cos_min_ratio 1e-4 of 1e-4
  EXPECT_EQ(recipe.train.clip_grad_norm, 1.0);
  EXPECT_EQ(recipe.parallel.strategy.value, "zero2");
  EXPECT_EQ(recipe.parallel.offload.value, "none");
  EXPECT_EQ(recipe.train.recompute.value, "block");
  EXPECT_TRUE(recipe.train.offload_activations);
  EXPECT_THAT(said(conversion, "zero_optimization.cpu_offload"), HasSubstr("deprecated"));
}

TEST(ConvertDeepSpeed, TheStageThreeFileBecomesTheSameTraining) {
  const Conversion conversion = from(read("deepspeed_stage3_config.json"));
  const Recipe recipe = recipe_of(conversion);
  EXPECT_EQ(recipe.data.batch_size, 64);
  EXPECT_EQ(recipe.train.micro_batches, 4);
  EXPECT_EQ(recipe.parallel.strategy.value, "zero3");
  EXPECT_EQ(recipe.parallel.offload.value, "parameters");
  for (const char* key :
       {"reduce_bucket_size", "stage3_prefetch_bucket_size", "stage3_param_persistence_threshold"})
    EXPECT_THAT(said(conversion, std::string("zero_optimization.") + key), HasSubstr("auto: "));
}

TEST(ConvertDeepSpeed, EveryKeyOfTheFilesIsAnswered) {
  for (const char* name : {"deepspeed_config.json", "deepspeed_stage3_config.json"}) {
    const Conversion conversion = from(read(name));
    EXPECT_GE(conversion.lines.size(), 27u);
    for (const ConvertedLine& line : conversion.lines) {
      EXPECT_FALSE(line.target.empty() && line.note.empty()) << line.key;
      EXPECT_THAT(line.note, ::testing::Not(HasSubstr("unknown"))) << line.key;
    }
  }
}

TEST(ConvertDeepSpeed, MorePiecesMakeUpForFewerRanks) {
  for (const auto& [ranks, pieces] : {std::pair{1, 8}, {2, 4}, {4, 2}, {8, 1}}) {
    const Recipe recipe = recipe_of(from(read("deepspeed_config.json"), ranks));
    EXPECT_EQ(recipe.data.batch_size, 32);
    EXPECT_EQ(recipe.train.micro_batches, pieces) << ranks;
  }
  for (const auto& [ranks, pieces] : {std::pair{1, 32}, {2, 16}, {8, 4}}) {
    const Recipe recipe = recipe_of(from(read("deepspeed_stage3_config.json"), ranks));
    EXPECT_EQ(recipe.data.batch_size, 64);
    EXPECT_EQ(recipe.train.micro_batches, pieces) << ranks;
  }
}

TEST(ConvertDeepSpeed, TheBatchIdentityIsEnforced) {
  const auto sizes = [](const std::string& text, int64_t ranks) {
    const Conversion conversion = from("{" + text + "}", ranks);
    return conversion.problems.empty() ? "" : conversion.problems.front();
  };
  EXPECT_EQ(sizes(R"("train_batch_size": 30, "train_micro_batch_size_per_gpu": 4,
                     "gradient_accumulation_steps": 1)",
                  0),
            "[config] train_batch_size must be train_micro_batch_size_per_gpu x "
            "gradient_accumulation_steps x data ranks but 30 is not 4 x 1 x a whole number  "
            "(ds.json:1:22)");
  EXPECT_THAT(sizes(R"("train_batch_size": 32, "train_micro_batch_size_per_gpu": 4,
                       "gradient_accumulation_steps": 1)",
                    3),
              HasSubstr("32 is no multiple of 4 samples x 3 ranks"));
  EXPECT_THAT(sizes(R"("train_batch_size": 10, "gradient_accumulation_steps": 4)", 1),
              HasSubstr("must be a multiple of gradient_accumulation_steps x data ranks"));
  EXPECT_THAT(sizes(R"("train_batch_size": 0)", 1), HasSubstr("must be at least 1 but got 0"));
  EXPECT_THAT(sizes(R"("train_batch_size": "many")", 1), HasSubstr("a whole number"));
}

TEST(ConvertDeepSpeed, MissingSizesAreFoundAsDeepSpeedFindsThem) {
  const auto batch = [](const std::string& text, int64_t ranks) {
    const Recipe recipe = recipe_of(from("{" + text + "}", ranks));
    return std::pair{recipe.data.batch_size, recipe.train.micro_batches};
  };
  using Sizes = std::pair<int64_t, int64_t>;
  const std::string whole = R"("train_batch_size": 48)";
  const std::string micro = R"("train_micro_batch_size_per_gpu": 4)";
  const std::string steps = R"("gradient_accumulation_steps": 3)";
  EXPECT_EQ(batch(whole + "," + micro, 4), (Sizes{48, 3}));
  EXPECT_EQ(batch(whole + "," + steps, 4), (Sizes{48, 3}));
  EXPECT_EQ(batch(micro + "," + steps, 4), (Sizes{48, 3}));
  EXPECT_EQ(batch(whole, 4), (Sizes{48, 1}));
  EXPECT_EQ(batch(micro, 4), (Sizes{16, 1}));
  EXPECT_EQ(batch(R"("train_batch_size": "auto", "gradient_accumulation_steps": "auto",
                     "train_micro_batch_size_per_gpu": 5)",
                  2),
            (Sizes{10, 1}));
}

TEST(ConvertDeepSpeed, ValuesAreReadAsPeopleWriteThem) {
  const Recipe recipe = recipe_of(from(R"({
    "optimizer": {"type": "Adam", "params": {"lr": "1e-4", "betas": ["0.8", 0.95], "eps": "1e-7",
                  "weight_decay": 0}},
    "fp16": {"enabled": "true", "loss_scale": "128", "loss_scale_window": 5e2},
    "gradient_clipping": "0.5",
	"zero_optimization": {"stage": "0", "reduce_bucket_size": 5e8},
    "steps_per_print": 2e1})"));
  EXPECT_EQ(recipe.train.optimizer.lr, 1e-4);
  EXPECT_EQ(recipe.train.optimizer.betas, (std::vector<double>{0.8, 0.95}));
  EXPECT_EQ(recipe.train.loss_scale.fixed, 128.0);
  EXPECT_EQ(recipe.train.loss_scale.window, 500);
  EXPECT_EQ(recipe.train.clip_grad_norm, 0.5);
  EXPECT_EQ(recipe.parallel.strategy.value, "ddp");
  EXPECT_DOUBLE_EQ(recipe.parallel.bucket_mib, 4 * 5e8 / 1048576);
  EXPECT_EQ(recipe.logging.every_steps, 20);
}

TEST(ConvertDeepSpeed, UnknownKeysAreNamedWithTheNearestKnownOne) {
  const Conversion conversion = from(R"({"train_batchsize": 4, "zero_optimization": {"stage": 2,
    "reduce_buckt_size": 5, "xyzzy": 1}, "fp16": {"hysteresis": 2, "histeresis": 3}})");
  EXPECT_THAT(said(conversion, "train_batchsize"), HasSubstr("did you mean 'train_batch_size'?"));
  EXPECT_THAT(said(conversion, "zero_optimization.reduce_buckt_size"),
              HasSubstr("did you mean 'reduce_bucket_size'?"));
  EXPECT_THAT(said(conversion, "fp16.histeresis"), HasSubstr("did you mean 'hysteresis'?"));
  EXPECT_THAT(said(conversion, "zero_optimization.xyzzy"),
              ::testing::AllOf(HasSubstr("unknown"), ::testing::Not(HasSubstr("did you mean"))));
  EXPECT_TRUE(conversion.problems.empty());
}

TEST(ConvertDeepSpeed, DeprecatedKeysSayWhatTheyBecame) {
  const Conversion conversion = from(R"({"zero_optimization": {"stage": 3, "cpu_offload": true,
    "cpu_offload_param": true, "stage3_gather_fp16_weights_on_model_save": true}})");
  EXPECT_EQ(recipe_of(conversion).parallel.offload.value, "parameters");
  EXPECT_THAT(said(conversion, "zero_optimization.cpu_offload"),
              HasSubstr("became offload_optimizer.device = cpu"));
  EXPECT_THAT(said(conversion, "zero_optimization.cpu_offload_param"),
              HasSubstr("became offload_param.device = cpu"));
  EXPECT_THAT(said(conversion, "zero_optimization.stage3_gather_fp16_weights_on_model_save"),
              HasSubstr("became stage3_gather_16bit_weights_on_model_save"));
  EXPECT_EQ(recipe_of(from(R"({"zero_optimization": {"stage": 2, "cpu_offload": true}})"))
                .parallel.offload.value,
            "optimizer");
  EXPECT_EQ(recipe_of(from(R"({"zero_optimization": true})")).parallel.strategy.value, "zero1");
}

TEST(ConvertDeepSpeed, OffloadToFilesNamesItsFolder) {
  const Recipe recipe = recipe_of(from(R"({"zero_optimization": {"stage": 3,
    "offload_optimizer": {"device": "nvme", "nvme_path": "/local nvme", "buffer_count": 4}}})"));
  EXPECT_EQ(recipe.parallel.offload.value, "nvme");
  EXPECT_EQ(recipe.parallel.offload_folder, "/local nvme");
  EXPECT_THAT(
      from(R"({"zero_optimization": {"stage": 3, "offload_optimizer": {"device": "nvme"}}})")
          .problems.front(),
      HasSubstr("nvme needs nvme_path"));
}

TEST(ConvertDeepSpeed, SchedulesKeepTheirRates) {
  const Recipe decay = recipe_of(from(R"({"scheduler": {"type": "WarmupDecayLR", "params": {
    "warmup_min_lr": 0, "warmup_max_lr": 1e-4, "warmup_num_steps": 1000, "warmup_type": "linear",
    "total_num_steps": 50000}}})"));
  EXPECT_EQ(decay.train.schedule.kind.value, "linear");
  EXPECT_EQ(decay.train.schedule.warmup.value, "linear");
  EXPECT_EQ(decay.train.optimizer.lr, 1e-4);
  EXPECT_EQ(decay.train.schedule.total_steps, 50000);
  const Recipe flat = recipe_of(from(R"({"optimizer": {"type": "SGD", "params": {"lr": 0.1}},
    "scheduler": {"type": "WarmupLR", "params": {"warmup_min_lr": [0.01, 0.01]}}})"));
  EXPECT_EQ(flat.train.schedule.kind.value, "constant");
  EXPECT_EQ(flat.train.schedule.warmup_steps, 1000);
  EXPECT_EQ(flat.train.schedule.warmup_start_lr, 0.01);
  EXPECT_EQ(flat.train.optimizer.kind.value, "sgd");
  EXPECT_EQ(flat.train.optimizer.lr, 0.1);
  EXPECT_EQ(flat.train.optimizer.momentum, 0.0);
}

TEST(ConvertDeepSpeed, AutoLeavesTheRecipesValues) {
  Recipe base;
  base.train.optimizer.lr = 3e-4;
  const Conversion conversion = from(R"({"optimizer": {"type": "AdamW", "params": {"lr": "auto",
    "betas": "auto", "eps": "auto", "weight_decay": "auto"}}, "fp16": {"enabled": "auto"},
    "scheduler": {"type": "WarmupCosineLR", "params": {"warmup_num_steps": "auto",
    "total_num_steps": "auto"}}})",
                                     0, base);
  for (const Setting& setting : conversion.settings)
    for (const char* kept : {"optimizer.lr=", "betas=", "eps=", "weight_decay=", "precision=",
                             "warmup_steps=", "total_steps="})
      EXPECT_THAT(setting.text, ::testing::Not(HasSubstr(kept)));
  EXPECT_THAT(said(conversion, "optimizer.params.lr"), HasSubstr("auto: the recipe's value stays"));
  // 1e-4 of the recipe's rate
  EXPECT_DOUBLE_EQ(recipe_of(conversion).train.schedule.min_lr, 1e-4 * 3e-4);
}

TEST(ConvertDeepSpeed, GroupsOfRanksBecomeAxesOfTheMesh) {
  const Recipe secondary =
      recipe_of(from(R"({"zero_optimization": {"stage": 3, "zero_hpz_partition_size": 8}})"));
  EXPECT_EQ(secondary.parallel.shard, 8);
  EXPECT_EQ(secondary.parallel.shard_optimizer.value, "all");
  const Recipe mics =
      recipe_of(from(R"({"zero_optimization": {"stage": 3, "mics_shard_size": 4}})"));
  EXPECT_EQ(mics.parallel.strategy.value, "hybrid");
  EXPECT_EQ(mics.parallel.shard, 4);
}

TEST(ConvertDeepSpeed, WhatCannotBeDoneIsRefused) {
  const auto problem = [](const std::string& json) {
    const Conversion conversion = from(json);
    return conversion.problems.size() == 1 ? conversion.problems.front()
                                           : std::to_string(conversion.problems.size());
  };
  EXPECT_THAT(problem(R"({"optimizer": {"type": "OneBitAdam", "params": {"lr": 1}}})"),
              HasSubstr("optimizer.type must be Adam, AdamW or SGD"));
  EXPECT_THAT(problem(R"({"scheduler": {"type": "OneCycle", "params": {}}})"),
              HasSubstr("scheduler.type must be WarmupLR"));
  EXPECT_THAT(problem(R"({"fp16": {"enabled": true}, "bf16": {"enabled": true}})"),
              HasSubstr("excludes bf16.enabled"));
  EXPECT_THAT(problem(R"({"zero_optimization": {"stage": 4}})"), HasSubstr("0, 1, 2 or 3"));
  EXPECT_THAT(problem(R"({"amp": {"enabled": true}})"), HasSubstr("amp is Apex's"));
  EXPECT_EQ(problem(R"({"amp": {"enabled": false}, "curriculum_learning": {"enabled": false}})"),
            "0");
  EXPECT_THROW(from("[1, 2]"), core::ConfigError);
  EXPECT_THROW(from("{\"a\": }}"), core::ConfigError);
}

TEST(ConvertDeepSpeed, PlacesOfTheFileAreNamedWhenRulesRefuse) {
  const Conversion conversion =
      from("{\n  \"optimizer\": {\"type\": \"AdamW\", \"params\": {\"eps\": -1}}\n}");
  try {
    recipe_of(conversion);
    FAIL();
  } catch (const core::ConfigError& error) {
    EXPECT_STREQ(error.what(),
                 "[config] train.optimizer.eps must be above 0 but got -1  (ds.json:2:52)");
  }
}

TEST(ConvertDeepSpeed, TheTableHasALineForEveryKey) {
  const std::string table = from(read("deepspeed_config.json"), 2).table();
  EXPECT_THAT(table, HasSubstr("train_batch_size"));
  EXPECT_THAT(table, HasSubstr("data.batch_size=32"));
  EXPECT_THAT(table, HasSubstr("32 = 4 samples x 4 pieces x 2 data ranks"));
  EXPECT_THAT(table, HasSubstr("the file is for 8 data ranks, here are 2"));
}

TEST(ConvertDeepSpeed, TheMergedRecipeIsShortAndReadsBack) {
  const std::string below =
      "# mine\nmodel: {preset: vit_tiny, num_classes: 10}\n"
      "train: {epochs: 3, optimizer: {lr: 5e-4, layer_decay: 0.7}}\n"
      "data:\n  sources: [{reader: digits, root: d.csv.gz}]\n";
  const Conversion conversion = from(read("deepspeed_config.json"));
  const std::string yaml = merged_yaml(below, "r.yaml", conversion.settings);
  EXPECT_THAT(yaml, ::testing::Not(HasSubstr("mlp_ratio")));
  const Recipe recipe = parse_recipe(yaml, "merged.yaml", {}).recipe;
  EXPECT_EQ(recipe, parse_layered(below, "r.yaml", conversion.settings).recipe);
  EXPECT_EQ(recipe.train.optimizer.layer_decay, 0.7);
  EXPECT_EQ(recipe.train.optimizer.lr, 1e-4);
}

}  // namespace
}  // namespace vitrail::config
