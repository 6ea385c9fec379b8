// What the loss between heads asks of model and mesh.

#include <algorithm>
#include <array>
#include <set>
#include <string_view>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "vitrail/config/rules.h"

namespace vitrail::config {

namespace {

/// Models whose blocks the loss can look into.
constexpr std::array<std::string_view, 5> kKinds{"vit", "mae", "unetr", "sap", "diffusion"};

void check_blocks(const Decatt& decatt, int64_t depth, RuleBook& rules) {
  std::set<int64_t> seen;
  for (size_t i = 0; i < decatt.blocks.size(); ++i) {
    const int64_t block = decatt.blocks[i];
    const std::string key = fmt::format("train.decatt.blocks[{}]", i);
    if (block < 0 || block >= depth)
      rules.add({key, "model.depth"},
                fmt::format("{} must be a block, 0 to model.depth - 1, but got {} with a depth of "
                            "{}",
                            key, block, depth));
    else if (!seen.insert(block).second)
      rules.add({key}, fmt::format("{} names block {} again; name each block once", key, block));
  }
}

void check_mesh(const Recipe& recipe, RuleBook& rules) {
  if (recipe.parallel.pipeline != 1)
    rules.add({"train.decatt.weight", "parallel.pipeline"},
              fmt::format("train.decatt needs parallel.pipeline 1, since the loss is added where "
                          "the whole model is, but it is {}",
                          recipe.parallel.pipeline));
  if (recipe.parallel.tensor != 1 && recipe.train.decatt.form == "heads")
    rules.add(
        {"train.decatt.weight", "parallel.tensor"},
        fmt::format("train.decatt.form heads needs parallel.tensor 1, since tensor ranks hold "
                    "different heads, but it is {}",
                    recipe.parallel.tensor));
}

}  // namespace

void check_decatt(const Recipe& recipe, RuleBook& rules) {
  const Decatt& decatt = recipe.train.decatt;
  if (!rules.at_least("train.decatt.weight", decatt.weight, 0) || decatt.weight == 0) return;
  const std::string& kind = recipe.model.kind.value;
  if (std::ranges::find(kKinds, kind) == kKinds.end()) {
    rules.add({"train.decatt.weight", "model.kind"},
              fmt::format("train.decatt needs model.kind {} but it is {}; set train.decatt.weight: "
                          "0",
                          fmt::join(kKinds, ", "), kind));
    return;
  }
  if (recipe.model.num_heads < 2)
    rules.add({"train.decatt.weight", "model.num_heads"},
              fmt::format("train.decatt compares heads, so model.num_heads must be at least 2 but "
                          "got {}",
                          recipe.model.num_heads));
  check_blocks(decatt, recipe.model.depth, rules);
  check_mesh(recipe, rules);
}

}  // namespace vitrail::config
