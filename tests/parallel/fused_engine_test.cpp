// Blocks run by the fused engine on several ranks, against one rank under the autograd engine.

#include <gtest/gtest.h>

#include "tests/parallel/ranks.h"

namespace vitrail::testing {
namespace {

/// fp32 sums in another order; ten updates carry the difference on, and Adam divides by the root of the second moment,
/// which is near zero for some elements.
constexpr double kFirst = 1e-6, kTen = 1e-5;

config::Recipe with_draws() {
  config::Model model = tiny_vit();
  model.num_heads = 4, model.layer_scale = 0.5, model.proj_drop_rate = 0.1;
  config::Recipe recipe = tiny_recipe(model);
  recipe.train.micro_batches = 2;
  return recipe;
}

struct Layout {
  const char* name;
  int ranks;
  void (*apply)(config::Recipe&);
};

const Layout kLayouts[] = {
    {"one rank", 1, [](config::Recipe&) {}},
    {"ddp", 2, [](config::Recipe& recipe) { recipe.parallel.strategy.value = "ddp"; }},
    {"zero2", 2, [](config::Recipe& recipe) { recipe.parallel.strategy.value = "zero2"; }},
    {"zero3", 2, [](config::Recipe& recipe) { recipe.parallel.strategy.value = "zero3"; }},
    {"zero3, recomputed", 2,
     [](config::Recipe& recipe) {
       recipe.parallel.strategy.value = "zero3";
       recipe.train.recompute.value = "selective";
     }},
    {"sequence 2", 2, [](config::Recipe& recipe) { recipe.parallel.sequence = 2; }},
    {"sequence 2, recomputed", 2,
     [](config::Recipe& recipe) {
       recipe.parallel.sequence = 2;
       recipe.train.recompute.value = "block";
     }},
    {"tensor 2", 2, [](config::Recipe& recipe) { recipe.parallel.tensor = 2; }},
};

TEST(FusedRanks, TrainAsOneRankUnderAutograd) {
  const config::Recipe plain = with_draws();
  const std::vector<double> expected = losses_of(1, alone(plain), 10);
  for (const Layout& layout : kLayouts) {
    config::Recipe recipe = plain;
    recipe.train.engine.value = "fused";
    layout.apply(recipe);
    const std::vector<double> found = losses_of(layout.ranks, recipe, 10);
    EXPECT_LE(compare(std::string(layout.name) + ", first step", found, expected, 1), kFirst);
    EXPECT_LE(compare(std::string(layout.name) + ", ten steps", found, expected), kTen);
  }
}

/// bf16 weights, fp32 gradients and master: the engines round at other places, so losses agree to bf16's 3 digits.
TEST(FusedRanks, TrainInBf16AsAutogradDoes) {
  config::Recipe recipe = with_draws();
  recipe.train.precision.value = "bf16";
  const std::vector<double> expected = losses_of(1, alone(recipe), 10);
  recipe.train.engine.value = "fused";
  recipe.parallel.strategy.value = "zero3";
  EXPECT_LE(compare("bf16, zero3", losses_of(2, recipe, 10), expected), 1e-2);
}

}  // namespace
}  // namespace vitrail::testing
