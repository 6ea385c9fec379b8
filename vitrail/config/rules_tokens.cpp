// Rules of variables, their aggregation, and adaptive tokens.

#include <cmath>
#include <map>

#include <fmt/format.h>

#include "vitrail/config/limits.h"
#include "vitrail/config/node.h"
#include "vitrail/config/rules.h"

namespace vitrail::config {

namespace {

void check_names(const std::vector<std::string>& names, RuleBook& rules) {
  std::map<std::string, size_t> first;
  for (size_t i = 0; i < names.size(); ++i) {
    const std::string key = fmt::format("model.variables[{}]", i);
    const auto [at, is_new] = first.emplace(names[i], i);
    if (names[i].empty())
      rules.add({key}, fmt::format("{} must be a name but is empty", key));
    else if (!is_new)
      rules.add({key}, fmt::format("{} must differ from model.variables[{}] but both are '{}'", key,
                                   at->second, printable(names[i])));
  }
}

void check_groups(const Model& model, int64_t variables, RuleBook& rules) {
  const int64_t groups = model.aggregation.groups;
  if (rules.within("model.aggregation.groups", groups, 1, kMaxChannels) && variables % groups != 0)
    rules.add({"model.aggregation.groups", "model.variables"},
              fmt::format("model.aggregation.groups must divide the number of model.variables but "
                          "got {} and {}",
                          groups, variables));
}

void check_aggregation(const Model& model, RuleBook& rules) {
  const Aggregation& aggregation = model.aggregation;
  rules.within("model.aggregation.queries", aggregation.queries, 1, kMaxQueries);
  if (!aggregation.num_heads) return;
  const int64_t heads = *aggregation.num_heads;
  if (rules.within("model.aggregation.num_heads", heads, 1, kMaxHeads) && model.embed_dim >= 1 &&
      model.embed_dim % heads != 0)
    rules.add(
        {"model.aggregation.num_heads", "model.embed_dim"},
        fmt::format("model.aggregation.num_heads must divide model.embed_dim but got {} and {}",
                    heads, model.embed_dim));
}

void check_variables(const Model& model, RuleBook& rules) {
  const auto count = static_cast<int64_t>(model.variables.size());
  check_aggregation(model, rules);
  if (count == 0) {
    rules.within("model.aggregation.groups", model.aggregation.groups, 1, kMaxChannels);
    if (model.single_channel)
      rules.add({"model.single_channel", "model.variables"},
                "model.single_channel true needs model.variables but there are none; name the "
                "variables");
    return;
  }
  check_names(model.variables, rules);
  check_groups(model, count, rules);
  if (count != model.in_channels)
    rules.add({"model.in_channels", "model.variables"},
              fmt::format("model.in_channels must be the number of model.variables but got {} and "
                          "{}; leave model.in_channels out",
                          model.in_channels, count));
  if (model.variable_embedding && model.embed_dim >= 1 && model.embed_dim % 2 != 0)
    rules.add({"model.embed_dim", "model.variable_embedding"},
              fmt::format("model.embed_dim must be even for model.variable_embedding but got {}",
                          model.embed_dim));
}

/// SAP lays its tokens out as a square or cube.
void check_leaf_grid(const Model& model, RuleBook& rules) {
  const auto axes = static_cast<int64_t>(model.image_size.size());
  if (axes != 2 && axes != 3) return;
  const int64_t leaves = model.adaptive.fixed_length;
  const auto side = static_cast<int64_t>(
      std::llround(std::pow(static_cast<double>(leaves), 1.0 / static_cast<double>(axes))));
  const auto power = [axes](int64_t edge) { return axes == 2 ? edge * edge : edge * edge * edge; };
  if (power(side) == leaves) return;
  const int64_t below = power(side) < leaves ? side : side - 1;
  rules.add(
      {"model.adaptive.fixed_length", "model.kind"},
      fmt::format("model.adaptive.fixed_length must be a {} for sap in {}-D but got {}; {} "
                  "or {} would do",
                  axes == 2 ? "square" : "cube", axes, leaves, power(below), power(below + 1)),
      {"model.image_size"});
}

void check_adaptive(const Model& model, RuleBook& rules) {
  const Adaptive& adaptive = model.adaptive;
  const char* key = "model.adaptive.fixed_length";
  if (!rules.within(key, adaptive.fixed_length, 0, kMaxPatches) || adaptive.fixed_length == 0)
    return;
  if (model.kind == "unetr")
    rules.add({key, "model.kind"},
              "model.adaptive.fixed_length with unetr is not in this version; it must be 0");
  if (model.kind == "diffusion")
    rules.add(
        {key, "model.kind"},
        fmt::format("model.adaptive.fixed_length must be 0 for diffusion, which predicts whole "
                    "images, but got {}",
                    adaptive.fixed_length));
  if (model.kind == "sap") check_leaf_grid(model, rules);
  if (model.rope != "none")
    rules.add({"model.rope", key},
              fmt::format("model.rope must be none with model.adaptive.fixed_length, whose tokens "
                          "form no grid, but got {}",
                          model.rope.value));
  if (model.pos_embed == "sincos" && !adaptive.position_embedding)
    rules.add({"model.pos_embed", "model.adaptive.position_embedding"},
              "model.pos_embed sincos needs a grid of patches, which model.adaptive has not; set "
              "model.adaptive.position_embedding: true or model.pos_embed: learned",
              {key});
}

}  // namespace

void check_tokens(const Model& model, RuleBook& rules) {
  check_variables(model, rules);
  check_adaptive(model, rules);
}

}  // namespace vitrail::config
