// What train.precision fp8 asks of the rest of a recipe.

#include <string>

#include <fmt/format.h>

#include "vitrail/config/rules.h"

namespace vitrail::config {
namespace {

constexpr int64_t kWidthUnit = 16;  // tensor cores read rows of 8-bit numbers by 16 bytes

void check_width(const std::string& key, int64_t width, RuleBook& rules) {
  if (width % kWidthUnit != 0)
    rules.add({key, "train.precision"},
              fmt::format("{} must be a multiple of {} for train.precision fp8 but got {}", key,
                          kWidthUnit, width));
}

}  // namespace

void check_fp8(const Recipe& recipe, RuleBook& rules) {
  const Train& train = recipe.train;
  if (!(train.precision == "fp8")) {
    if (train.fp8_weight_gradients == "fp8")
      rules.add({"train.fp8_weight_gradients", "train.precision"},
                fmt::format("train.fp8_weight_gradients fp8 is for train.precision fp8 but "
                            "train.precision is {}; set it to fp8 or leave the former out",
                            train.precision.value));
    return;
  }
  if (train.engine == "autograd")
    rules.add({"train.precision", "train.engine"},
              "train.precision fp8 needs the fused engine but train.engine is autograd; set "
              "train.engine to auto or fused");
  if (recipe.parallel.tensor > 1)
    rules.add({"train.precision", "parallel.tensor"},
              fmt::format("train.precision fp8 needs the fused engine, which does not run blocks "
                          "divided over tensor ranks, but parallel.tensor is {}; set "
                          "train.precision to bf16 or parallel.tensor to 1",
                          recipe.parallel.tensor));
  if (recipe.model.kind == "rat")
    rules.add({"train.precision", "model.kind"},
              "train.precision fp8 is for transformer blocks but model.kind is rat; set "
              "train.precision to bf16");
  check_width("model.embed_dim", recipe.model.embed_dim, rules);
  if (recipe.model.mlp_hidden_dim)
    check_width("model.mlp_hidden_dim", *recipe.model.mlp_hidden_dim, rules);
  if (has_transformer_decoder(recipe.model))
    check_width("model.decoder_embed_dim", recipe.model.decoder_embed_dim, rules);
}

}  // namespace vitrail::config
