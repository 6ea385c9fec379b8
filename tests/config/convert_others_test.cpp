#include <fstream>
#include <sstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "vitrail/config/convert.h"
#include "vitrail/config/toml.h"
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

Recipe recipe_of(const Conversion& conversion) {
  conversion.throw_if_any();
  return parse_recipe(merged_yaml("", "", conversion.settings), conversion.file, {}).recipe;
}

void expect_all_answered(const Conversion& conversion) {
  for (const ConvertedLine& line : conversion.lines) {
    EXPECT_FALSE(line.target.empty() && line.note.empty()) << line.key;
    EXPECT_THAT(line.note, ::testing::Not(HasSubstr("unknown"))) << line.key;
  }
}

TEST(ConvertUcfVit, AMaskedAutoencoderBecomesARecipe) {
  const Conversion conversion = convert_ucf_vit(read("ucf_mae.yaml"), "ucf_mae.yaml");
  expect_all_answered(conversion);
  const Recipe recipe = recipe_of(conversion);
  EXPECT_EQ(recipe.model.kind.value, "mae");
  EXPECT_EQ(recipe.model.image_size, (std::vector<int64_t>{256, 256}));
  EXPECT_EQ(recipe.model.in_channels, 3);
  EXPECT_EQ(recipe.model.decoder_embed_dim, 512);
  EXPECT_EQ(recipe.model.decoder.value, "transformer");
  EXPECT_EQ(recipe.model.loss.value, "mse");
  EXPECT_EQ(recipe.data.batch_size, 32 * 8);  // a rank's times fsdp_size x simple_ddp_size
  EXPECT_EQ(recipe.data.sources[0].reader.value, "image_folder");
  EXPECT_EQ(recipe.data.sources[0].split, (std::vector<double>{0, 1}));
  EXPECT_EQ(recipe.train.epochs, 600);
  EXPECT_EQ(recipe.train.optimizer.betas, (std::vector<double>{0.9, 0.95}));
  EXPECT_EQ(recipe.train.schedule.total_steps, 20000);
  EXPECT_EQ(recipe.train.schedule.min_lr, 1e-8);
}

TEST(ConvertUcfVit, AdaptiveSegmentationInThreeDimensionsBecomesARecipe) {
  const Conversion conversion = convert_ucf_vit(read("ucf_unetr.yaml"), "ucf_unetr.yaml");
  expect_all_answered(conversion);
  const Recipe recipe =
      parse_layered("data: {sources: [{labels: /data/ct/labels}]}\n", "r.yaml", conversion.settings)
          .recipe;
  EXPECT_EQ(recipe.model.kind.value, "unetr");
  EXPECT_EQ(recipe.model.image_size, (std::vector<int64_t>{64, 64, 64}));
  EXPECT_EQ(recipe.model.adaptive.fixed_length, 729);
  EXPECT_EQ(recipe.model.feature_size, 16);
  EXPECT_EQ(recipe.parallel.tensor, 2);
  EXPECT_EQ(recipe.parallel.strategy.value, "zero3");
  EXPECT_EQ(recipe.data.sources[0].reader.value, "nifti");
}

TEST(ConvertUcfVit, UnknownKeysAndDataSetsAreNamed) {
  const Conversion conversion =
      convert_ucf_vit("trainer: {max_epoch: 3}\ndata: {dataset: sst}\n", "u.yaml");
  EXPECT_THAT(conversion.table(), HasSubstr("did you mean 'max_epochs'?"));
  ASSERT_EQ(conversion.problems.size(), 1u);
  EXPECT_THAT(conversion.problems[0], HasSubstr("data.dataset must be imagenet"));
}

TEST(ConvertTorchtitanMae, TheDemoBecomesARecipe) {
  const Conversion conversion =
      convert_torchtitan_mae(read("torchtitan_demo.toml"), "demo.toml", {.data_ranks = 20});
  expect_all_answered(conversion);
  const Recipe recipe = recipe_of(conversion);
  EXPECT_EQ(recipe.model.preset, "mae3d_2b");
  EXPECT_EQ(recipe.model.embed_dim, 3072);
  EXPECT_EQ(recipe.model.image_size, (std::vector<int64_t>{512, 512, 512}));
  EXPECT_EQ(recipe.model.mask_ratio, 0.95);
  EXPECT_EQ(recipe.data.batch_size, 20);
  EXPECT_EQ(recipe.data.sources[0].array, "recon-1/em/fibsem-uint8/s0");
  EXPECT_EQ(recipe.train.recompute.value, "block");
  EXPECT_EQ(recipe.train.precision.value, "bf16");
  EXPECT_EQ(recipe.train.optimizer.weight_decay, 0.1);
  EXPECT_EQ(recipe.train.steps, 100000);
  EXPECT_EQ(recipe.parallel.strategy.value, "zero3");
  // Step 0 of lr (s + 1) / (W + 1).
  EXPECT_DOUBLE_EQ(recipe.train.schedule.warmup_start_lr, 3e-4 / 1001);
  EXPECT_EQ(recipe.checkpoint.every_steps, 1000);
  EXPECT_TRUE(recipe.checkpoint.async);
}

TEST(Toml, ReadsWhatSettingsUse) {
  Problems problems;
  const Node root = parse_toml(
      "# comment\ntop = 1\n[a]\nx = \"two # words\" # end\n'y z' = 'raw\\n'\nb.c = [1, 2,\n  3, ]\n"
      "\n[a.d]\non = true\nbig = 1_000.5\n",
      "t.toml", problems);
  EXPECT_TRUE(problems.empty()) << problems.text();
  EXPECT_EQ(root.find("top")->text, "1");
  const Node* a = root.find("a");
  EXPECT_EQ(a->find("x")->text, "two # words");
  EXPECT_EQ(a->find("y z")->text, "raw\\n");
  EXPECT_EQ(a->find("b")->find("c")->items.size(), 3u);
  EXPECT_EQ(a->find("d")->find("on")->text, "true");
  EXPECT_EQ(a->find("x")->place.text(), "t.toml:4:1");
}

TEST(Toml, RefusesTheRestWithItsPlace) {
  const auto problem = [](const std::string& text) {
    Problems problems;
    parse_toml(text, "t.toml", problems);
    return problems.text();
  };
  EXPECT_THAT(problem("a = 1\na = 2\n"), HasSubstr("a is given twice  (t.toml:2:6)"));
  EXPECT_THAT(problem("[[a]]\n"), HasSubstr("arrays of tables"));
  EXPECT_THAT(problem("a = {b = 1}\n"), HasSubstr("inline tables"));
  EXPECT_THAT(problem("a = \"x\n\"\n"), HasSubstr("must end on its line"));
  EXPECT_THAT(problem("a 1\n"), HasSubstr("followed by ="));
  EXPECT_THAT(problem("a = 1 2\n"), HasSubstr("must end here"));
  EXPECT_THAT(problem("a = [1, 2\n"), HasSubstr("a list must go on"));
  EXPECT_THAT(problem("a = 1979-05-27T07:32:00Z\n"), HasSubstr("dates"));
  EXPECT_THAT(problem("a = 1\na.b = 2\n"), HasSubstr("cannot hold keys"));
  EXPECT_THAT(problem("a = " + std::string(5000, '[')), HasSubstr("nested too deeply"));
}

}  // namespace
}  // namespace vitrail::config
