#include "vitrail/parallel/channels.h"

#include <ATen/ops/tensor.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/parallel/divided.h"
#include "vitrail/core/error.h"

namespace vitrail::testing {
namespace {

/// fp32 sums over heads in another order; worst seen in the printed lines.
constexpr double kLoss = 1e-6, kGradient = 1e-5;

data::Batch only(const data::Batch& all, const std::vector<int64_t>& ids) {
  data::Batch some = all;
  const at::Tensor chosen = at::tensor(ids, at::kLong);
  for (at::Tensor* input : {&some.image, &some.leaf_tokens})
    if (input->defined()) *input = input->index_select(1, chosen);
  for (const int64_t id : ids) some.variables.push_back("v" + std::to_string(id));
  return some;
}

config::Model with_groups(const char* kind, const char* final, const char* partial) {
  config::Model options = models::tiny(kind);
  options.embed_dim = 32, options.num_heads = 4;
  options.decoder_embed_dim = 16, options.decoder_num_heads = 4;
  models::add_variables(options, 8);
  options.aggregation.groups = 4;
  options.aggregation.kind.value = final, options.aggregation.partial.value = partial;
  return options;
}

DividedCase case_of(const config::Model& model, int ranks, const std::string& name) {
  DividedCase test;
  test.recipe.model = model;
  test.recipe.parallel.tensor = ranks;
  test.recipe.parallel.split_channels = true;
  test.batch = models::batch_for(model, 3);
  const config::Aggregation& how = model.aggregation;
  test.name = name + ", groups " + how.partial.value + ", over groups " + how.kind.value;
  return test;
}

void expect_equal(int ranks, const DividedCase& test) {
  const Difference found = divided_difference(ranks, test);
  const std::string text = print(ranks, test, found);
  EXPECT_LE(found.loss, kLoss) << text;
  EXPECT_LE(found.output, kGradient) << text;
  EXPECT_LE(found.gradient, kGradient) << text;
}

std::vector<config::Model> every_aggregation(const char* kind) {
  std::vector<config::Model> all;
  for (const char* final : {"linear", "cross_attention"})
    for (const char* partial : {"linear", "cross_attention"})
      all.push_back(with_groups(kind, final, partial));
  return all;
}

TEST(SplitChannels, GivesTheValuesOfTheWholeModel) {
  for (const char* kind : {"vit", "mae"})
    for (const config::Model& model : every_aggregation(kind))
      for (const int ranks : {2, 4}) expect_equal(ranks, case_of(model, ranks, kind));
}

/// Each rank must take the planes of its own variables, wherever the batch has them.
TEST(SplitChannels, FindsItsVariablesInAnyBatch) {
  for (const config::Model& model : every_aggregation("vit"))
    for (const int ranks : {2, 4}) {
      DividedCase test = case_of(model, ranks, "variables 7 1 6 0 only");
      test.batch = only(test.batch, {7, 1, 6, 0});  // with four ranks two have none
      expect_equal(ranks, test);
    }
}

TEST(SplitChannels, WorksWithSharedParts) {
  for (const char* partial : {"linear", "cross_attention"}) {
    config::Model model = with_groups("vit", "cross_attention", partial);
    model.aggregation.shared_groups = model.shared_tokenizer = true;
    model.aggregation.queries = 2, model.qk_norm = true;
    expect_equal(4, case_of(model, 4, "shared, 2 queries"));
    model = with_groups("vit", "linear", partial);
    model.aggregation.shared_groups = true, model.variable_embedding = false;
    DividedCase test = case_of(model, 4, "shared groups, split norms, pieces");
    test.recipe.parallel.split_norms = true, test.recipe.parallel.tensor_chunks = 3;
    expect_equal(4, test);
  }
}

TEST(SplitChannels, WorksBesideSequenceRanks) {
  DividedCase test = case_of(with_groups("mae", "cross_attention", "linear"), 2, "sequence 2");
  test.sequence = 2;
  expect_equal(4, test);
}

TEST(SplitChannels, WorksOverLeaves) {
  config::Model model = with_groups("vit", "cross_attention", "linear");
  models::make_adaptive(model);
  expect_equal(2, case_of(model, 2, "leaves"));
}

/// Parameters and tokens of a rank, counted: one group a rank, 8 variables on 4 ranks.
TEST(SplitChannels, HoldsAShareOfTheEmbedding) {
  const config::Model model = with_groups("vit", "linear", "cross_attention");
  const DividedCase test = case_of(model, 4, "memory");
  std::vector<int64_t> held(4), gathered(4);
  comm::run_thread_group(4, [&](comm::Communicator& world) {
    DividedModel divided(world, test);
    for (const nn::NamedTensor& parameter : divided.model->named_parameters())
      if (parameter.name.starts_with("token_embeds.") || parameter.name.starts_with("var_groups."))
        held[world.rank()] += parameter.tensor.numel();
  });
  const auto whole = models::make_model(model, 0);
  int64_t all = 0;
  for (const nn::NamedTensor& parameter : whole->named_parameters())
    if (parameter.name.starts_with("token_embeds.") || parameter.name.starts_with("var_groups."))
      all += parameter.tensor.numel();
  for (const int64_t count : held) EXPECT_EQ(count, all / 4);
  // 18 places of width 32: 8 variables' tokens and 4 groups' tokens; a rank has 2 of the 8.
  EXPECT_EQ(parallel::channel_elements(18, 8, 4, 32, 1), 18 * 32 * (8 + 4));
  EXPECT_EQ(parallel::channel_elements(18, 8, 4, 32, 4), 18 * 32 * (2 + 4));
}

TEST(SplitChannels, NeedsGroups) {
  config::Model model = with_groups("vit", "linear", "linear");
  model.aggregation.groups = 1;
  try {
    comm::run_thread_group(2, [&](comm::Communicator& world) {
      const DividedModel divided(world, case_of(model, 2, ""));
    });
    FAIL() << "one group cannot be divided";
  } catch (const core::ConfigError& error) {
    EXPECT_THAT(error.what(), ::testing::HasSubstr("model.aggregation.groups to be a multiple"));
  }
}

}  // namespace
}  // namespace vitrail::testing
