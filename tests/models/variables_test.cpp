#include "vitrail/models/variables.h"

#include <ATen/ops/equal.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros_like.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/models/tiny_models.h"
#include "vitrail/core/error.h"

namespace vitrail::models {
namespace {

double worst(const at::Tensor& a, const at::Tensor& b) {
  return (a - b).abs().max().item<double>();
}

/// The channels `ids` of a batch of all variables.
data::Batch only(const data::Batch& all, const std::vector<int64_t>& ids) {
  data::Batch some = all;
  const at::Tensor chosen = at::tensor(ids, at::kLong);
  for (at::Tensor* input : {&some.image, &some.leaf_tokens})
    if (input->defined()) *input = input->index_select(1, chosen);
  for (const int64_t id : ids) some.variables.push_back("v" + std::to_string(id));
  return some;
}

config::Model with_variables(const char* kind, const char* aggregation = "cross_attention",
                             int64_t groups = 1, const char* partial = "linear") {
  config::Model options = tiny(kind);
  add_variables(options, 6);
  options.aggregation.kind.value = aggregation;
  options.aggregation.groups = groups, options.aggregation.partial.value = partial;
  return options;
}

std::vector<config::Model> every_aggregation(const char* kind) {
  std::vector<config::Model> all;
  for (const char* aggregation : {"cross_attention", "linear"}) {
    all.push_back(with_variables(kind, aggregation));
    for (const char* partial : {"linear", "cross_attention"})
      for (const bool shared : {false, true}) {
        all.push_back(with_variables(kind, aggregation, 3, partial));
        all.back().aggregation.shared_groups = shared;
      }
  }
  return all;
}

std::string describe(const config::Model& options) {
  const config::Aggregation& how = options.aggregation;
  return how.kind.value + ", groups of " + how.partial.value + ": " + std::to_string(how.groups) +
         (how.shared_groups ? " shared" : "");
}

TEST(Variables, MayComeInAnyOrder) {
  for (const config::Model& options : every_aggregation("vit")) {
    const auto model = make_model(options, 0);
    randomise(*model);
    const data::Batch all = batch_for(options, 2), mixed = only(all, {4, 0, 5, 2, 1, 3});
    EXPECT_LE(worst(model->forward(all, draws_of(all)).output,
                    model->forward(mixed, draws_of(mixed)).output),
              2e-5)
        << describe(options) << ": sums over variables in another order, values of order 1";
  }
}

TEST(Variables, OfWhichSomeAreAbsentTrainTheOthersOnly) {
  for (const config::Model& options : every_aggregation("vit")) {
    const auto model = make_model(options, 0);
    randomise(*model);
    const data::Batch all = batch_for(options, 2), some = only(all, {5, 1});  // no 2, 3: a group
    const Output out = model->forward(some, draws_of(some));
    EXPECT_GT(worst(out.output, model->forward(all, draws_of(all)).output), 1e-3)
        << describe(options);
    out.loss.backward();
    for (const nn::NamedTensor& parameter : model->named_parameters()) {
      if (parameter.name != "token_embeds.0.proj.weight" &&
          parameter.name != "token_embeds.1.proj.weight")
        continue;
      const bool present = parameter.name.find(".1.") != std::string::npos;
      const at::Tensor gradient = parameter.tensor.grad();
      EXPECT_EQ(gradient.defined() && gradient.abs().max().item<float>() > 0, present)
          << describe(options) << " " << parameter.name;
    }
  }
}

/// A linear aggregation is a mean over what is there, so that results keep their size.
TEST(Variables, ALinearAggregationOfEqualTokensIsOneOfThem) {
  for (const int64_t present : {1, 4}) {
    const LinearAggregator linear(6);
    const at::NoGradGuard no_grad;
    linear.named_parameters()[0].tensor.fill_(1.0);
    const at::Tensor one = random({3, 1, 8}), x = one.expand({3, present, 8}).contiguous();
    std::vector<int64_t> ids;
    for (int64_t v = 0; v < present; ++v) ids.push_back(5 - v);
    EXPECT_LE(worst(linear.forward(x, ids), one.squeeze(1)), 1e-6);
  }
}

TEST(Variables, OneSampleOfOnePatchKeepsItsAxes) {
  for (config::Model options : every_aggregation("vit")) {
    options.image_size = {4, 4};
    const auto model = make_model(options, 0);
    const data::Batch batch = batch_for(options, 1);
    EXPECT_EQ(model->forward(batch, draws_of(batch), {"embed"}).taps.at("embed").sizes(),
              at::IntArrayRef({1, 2, 16}))
        << describe(options);
  }
}

TEST(Variables, AloneInABatchAreNotAggregatedInSingleChannelModels) {
  config::Model options = with_variables("mae");
  options.single_channel = true;
  const auto model = make_model(options, 0);
  for (const nn::NamedTensor& parameter : model->named_parameters())
    EXPECT_EQ(parameter.name.find("var_agg"), std::string::npos);
  const data::Batch all = batch_for(options, 2), one = only(all, {3});
  const Output out = model->forward(one, draws_of(one));
  EXPECT_EQ(out.output.sizes(), at::IntArrayRef({2, 6, 16}));
  EXPECT_THROW(model->forward(all, draws_of(all)), core::DataError);
}

TEST(Variables, StartAtDifferentPlacesOfTheSinCosTable) {
  const auto model = make_model(with_variables("vit"), 0);
  for (const nn::NamedTensor& parameter : model->named_parameters()) {
    if (parameter.name == "var_embed") {
      EXPECT_EQ(parameter.tensor[0][0].slice(0, 0, 8).abs().max().item<float>(), 0.0f);
      EXPECT_NEAR(parameter.tensor[0][1][0].item<float>(), 0.84147098f, 1e-6) << "sin 1";
    }
    if (parameter.name == "var_query") {
      EXPECT_EQ(parameter.tensor.abs().max().item<float>(), 0.0f);
    }
  }
}

TEST(Variables, UnknownOrRepeatedAreRefusedByName) {
  const config::Model options = with_variables("vit");
  const auto model = make_model(options, 0);
  data::Batch batch = only(batch_for(options, 1), {0, 1});
  for (const char* name : {"wind", "v0"}) {
    batch.variables[1] = name;
    try {
      model->forward(batch, draws_of(batch));
      FAIL() << name;
    } catch (const core::DataError& error) {
      EXPECT_THAT(error.what(), testing::HasSubstr(name));
    }
  }
}

TEST(Variables, AsManyAsTheImageHasChannelsOrItIsRefused) {
  const config::Model options = with_variables("vit");
  const auto model = make_model(options, 0);
  data::Batch batch = batch_for(options, 1);
  batch.variables = {"v0", "v1"};
  EXPECT_THROW(model->forward(batch, draws_of(batch)), core::Error);
}

TEST(Variables, ThatGroupsDoNotDivideAreRefused) {
  EXPECT_THROW(make_model_shapes(with_variables("vit", "linear", 4)), core::ConfigError);
}

TEST(PatchHead, GivesTheRowsOfTheVariablesOfTheBatch) {
  const config::Model options = with_variables("mae");
  const PatchHead head(options, 16, true);
  const at::NoGradGuard no_grad;
  for (nn::NamedTensor& parameter : head.named_parameters())
    parameter.tensor.copy_(random(parameter.tensor.sizes(), 70));
  const at::Tensor x = random({2, 3, 16});
  const at::Tensor all = head.forward(x, {0, 1, 2, 3, 4, 5}).view({2, 3, 16, 6});
  const at::Tensor some = head.forward(x, {4, 1}).view({2, 3, 16, 2});
  EXPECT_LE(worst(some, all.index_select(3, at::tensor({4, 1}, at::kLong))), 1e-6)
      << "products of another number of columns";
}

TEST(Variables, AMaskedAutoencoderScoresThoseOfTheBatch) {
  for (const config::Model& options : every_aggregation("mae")) {
    const auto model = make_model(options, 0);
    randomise(*model);
    const data::Batch some = only(batch_for(options, 2), {5, 1});
    const Output out = model->forward(some, draws_of(some));
    ASSERT_EQ(out.output.sizes(), at::IntArrayRef({2, 6, 32})) << describe(options);
    out.loss.backward();
    for (const nn::NamedTensor& parameter : model->named_parameters())
      if (parameter.name == "decoder_pred.bias") {
        const at::Tensor per_variable = parameter.tensor.grad().view({16, 6}).abs().sum(0);
        EXPECT_TRUE(at::equal(per_variable.gt(0), at::tensor({0, 1, 0, 0, 0, 1}).to(at::kBool)))
            << describe(options);
      }
  }
}

}  // namespace
}  // namespace vitrail::models
