#include "vitrail/parallel/placement.h"

#include <set>

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/models/segmenter_cases.h"
#include "vitrail/core/error.h"
#include "vitrail/parallel/tensor.h"

namespace vitrail::parallel {
namespace {

at::Tensor counting(const std::vector<int64_t>& shape) {
  int64_t count = 1;
  for (const int64_t extent : shape) count *= extent;
  return at::arange(count, at::kFloat).view(shape);
}

TEST(Placement, TakesAPartOfEverySection) {
  Placement placement{Split::rows, 2, 1, {4, 2, 2}};
  const at::Tensor whole = counting({8, 3});
  // Rows 2, 3 of q, row 5 of k, row 7 of v.
  const at::Tensor part = local_part(whole, placement);
  EXPECT_THAT(local_shape({8, 3}, placement), ::testing::ElementsAre(4, 3));
  for (const auto& [mine, row] : {std::pair{0, 2}, {1, 3}, {2, 5}, {3, 7}})
    EXPECT_TRUE(at::equal(part[mine], whole[row])) << row;
}

TEST(Placement, GivesAnOwnerEverything) {
  Placement placement{Split::owner, 3, 1};
  placement.owner = 1;
  EXPECT_TRUE(at::equal(local_part(counting({2, 5}), placement), counting({2, 5})));
  placement.part = 0;
  EXPECT_EQ(local_part(counting({2, 5}), placement).numel(), 0);
  EXPECT_TRUE(boxes({2, 5}, placement).empty());
}

TEST(Placement, RefusesWhatDoesNotDivide) {
  EXPECT_THROW(boxes({7}, {Split::rows, 2, 0}), core::ConfigError);
  EXPECT_THROW(boxes({8, 3}, {Split::columns, 2, 0}), core::ConfigError);
  EXPECT_THROW(boxes({8, 4}, {Split::rows, 2, 0, {5, 3}}), core::ConfigError);
  EXPECT_THROW(boxes({8, 4}, {Split::rows, 2, 0, {4, 2}}), core::Error);
}

std::vector<config::Model> every_model() {
  std::vector<config::Model> all;
  for (const char* kind : {"vit", "mae", "unetr", "sap", "diffusion"}) {
    const std::string name = kind;
    all.push_back(name == "unetr" || name == "sap" ? models::segmenter(kind, {16, 16}, 4)
                                                   : models::tiny(kind));
    config::Model& options = all.back();
    options.layer_scale = 0.1, options.qk_norm = true, options.mlp.value = "swiglu";
    if (options.kind == "sap") options.adaptive.fixed_length = 16;
    if (options.kind == "diffusion")
      options.loss.value = "mse", options.time_conditioning.value = "block";
  }
  all.push_back(models::tiny("vit"));
  models::add_variables(all.back(), 4);
  all.back().aggregation.groups = 2, all.back().aggregation.partial.value = "cross_attention";
  return all;
}

/// Of what is divided every element is on one rank, of the rest on all.
TEST(Placement, CoversEveryParameterOfEveryModelOnce) {
  for (const bool split_channels : {false, true})
    for (const config::Model& options : every_model()) {
      config::Recipe recipe;
      recipe.model = options;
      recipe.parallel.tensor = 2;
      recipe.parallel.split_channels = split_channels && !options.variables.empty();
      for (const nn::NamedTensor& parameter :
           models::make_model_shapes(options)->named_parameters()) {
        const std::vector<int64_t> shape = parameter.tensor.sizes().vec();
        at::Tensor held = at::zeros(shape);
        Split split = Split::none;
        for (int part = 0; part < 2; ++part) {
          const Placement placement = tensor_placement(recipe, 2, part)(parameter.name, shape);
          split = placement.split;
          for (const Box& box : boxes(shape, placement)) {
            at::Tensor place = held;
            for (size_t axis = 0; axis < shape.size(); ++axis)
              place = place.narrow(static_cast<int64_t>(axis), box.start[axis], box.shape[axis]);
            place.add_(1.0);
          }
        }
        const double times = split == Split::none ? 2 : 1;
        EXPECT_TRUE(held.eq(times).all().item<bool>())
            << options.kind.value << " " << parameter.name;
      }
    }
}

TEST(Placement, NamesWhatIsDivided) {
  config::Recipe recipe;
  recipe.model = models::tiny("mae");
  const auto model = models::make_model_shapes(recipe.model);
  const auto partial = [&](bool split_norms) {
    recipe.parallel.split_norms = split_norms;
    std::set<std::string> names;
    for (const nn::NamedTensor& parameter : model->named_parameters()) {
      const Placement placement =
          tensor_placement(recipe, 2, 0)(parameter.name, parameter.tensor.sizes().vec());
      EXPECT_FALSE(placement.partial && placement.split != Split::none) << parameter.name;
      if (placement.partial && parameter.name.find("blocks.0.") != std::string::npos)
        names.insert(parameter.name);
      const bool divided = parameter.name.find("qkv") != std::string::npos ||
                           parameter.name.find("fc1") != std::string::npos ||
                           parameter.name.ends_with("fc2.weight") ||
                           parameter.name.ends_with("attn.proj.weight");
      EXPECT_EQ(placement.split != Split::none, divided) << parameter.name;
    }
    return names;
  };
  EXPECT_TRUE(partial(false).empty());
  std::set<std::string> expected;
  for (const char* trunk : {"blocks.0.", "decoder_blocks.0."})
    for (const char* name : {"norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias",
                             "attn.proj.bias", "mlp.fc2.bias"})
      expected.insert(std::string(trunk) + name);
  EXPECT_EQ(partial(true), expected);
}

TEST(Placement, OfOneRankIsNone) { EXPECT_FALSE(tensor_placement({}, 1, 0)); }

}  // namespace
}  // namespace vitrail::parallel
