// Rules of variables, their aggregation, and tokens that are leaves of a tree.

#include <map>

#include <fmt/format.h>
#include <fmt/ranges.h>

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

bool is_power_of_two(int64_t value) { return value > 0 && (value & (value - 1)) == 0; }

/// Positions of tokens that form no grid.
void check_leaf_positions(const Model& model, const std::string& key, RuleBook& rules) {
  if (model.rope != "none")
    rules.add({"model.rope", key},
              fmt::format("model.rope must be none with {}, whose tokens form no grid, but got {}",
                          key, model.rope.value));
}

void check_compat(const Model& model, RuleBook& rules) {
  const Adaptive& adaptive = model.adaptive;
  if (adaptive.compat == "none") return;
  const char* key = "model.adaptive.compat";
  const int64_t side = model.image_size.empty() ? 0 : model.image_size.front();
  for (const int64_t other : model.image_size)
    if (other != side || !is_power_of_two(side)) {
      rules.add({key, "model.image_size"},
                fmt::format("{} ucf-vit needs equal sides that are powers of two but got [{}]", key,
                            fmt::join(model.image_size, ", ")));
      return;
    }
  const int64_t step = model.image_size.size() == 3 ? 7 : 3;
  if (adaptive.fixed_length % step != 1)
    rules.add({key, "model.adaptive.fixed_length"},
              fmt::format("{} ucf-vit needs a model.adaptive.fixed_length of {} n + 1 but got {}",
                          key, step, adaptive.fixed_length));
  if (adaptive.importance != "edges" || adaptive.order != "morton")
    rules.add({key, "model.adaptive.importance", "model.adaptive.order"},
              fmt::format("{} ucf-vit has an order and edges of its own; leave "
                          "model.adaptive.importance and model.adaptive.order out",
                          key));
}

void check_trees(const Model& model, RuleBook& rules) {
  const Adaptive& adaptive = model.adaptive;
  if (adaptive.trees == "shared") return;
  const char* key = "model.adaptive.trees";
  if (model.variables.empty() || model.single_channel)
    rules.add({key, "model.variables"},
              fmt::format("{} per_channel needs model.variables, several in a batch, whose "
                          "embeddings tell the leaves apart",
                          key));
  if (model.kind != "vit" && model.kind != "mae")
    rules.add(
        {key, "model.kind"},
        fmt::format("{} per_channel needs model.kind vit or mae but the kind is {}, which has "
                    "one prediction a place",
                    key, model.kind.value));
  if (adaptive.importance == "given")
    rules.add({key, "model.adaptive.importance"},
              fmt::format("{} per_channel divides each channel by its own pixels; "
                          "model.adaptive.importance must not be given",
                          key));
}

void check_importance(const Model& model, RuleBook& rules) {
  const Adaptive& adaptive = model.adaptive;
  if (adaptive.importance == "given")
    rules.within("model.adaptive.importance_channel", adaptive.importance_channel, 0,
                 model.in_channels - 1);
  if (adaptive.importance != "feature_based") return;
  if (adaptive.scorer_weights.empty())
    rules.add({"model.adaptive.scorer_weights", "model.adaptive.importance"},
              "model.adaptive.scorer_weights must name the network's weights for the importance "
              "feature_based but is empty");
  if (model.image_size.size() != 2 || model.in_channels != 3)
    rules.add({"model.adaptive.importance", "model.image_size", "model.in_channels"},
              "model.adaptive.importance feature_based needs images of 2 sides and 3 channels");
}

void check_leaf_loss(const Model& model, RuleBook& rules) {
  const Adaptive& adaptive = model.adaptive;
  const bool has_loss = model.kind == "mae" || model.kind == "sap";
  if (adaptive.area_weight && !has_loss)
    rules.add(
        {"model.adaptive.area_weight", "model.kind"},
        fmt::format("model.adaptive.area_weight needs a loss over leaves, that of mae or sap, "
                    "but the kind is {}",
                    model.kind.value));
  if (adaptive.loss_space == "leaf") return;
  if (!has_loss)
    rules.add({"model.adaptive.loss_space", "model.kind"},
              fmt::format("model.adaptive.loss_space image needs mae or sap but the kind is {}",
                          model.kind.value));
  if (adaptive.area_weight)
    rules.add({"model.adaptive.area_weight", "model.adaptive.loss_space"},
              "model.adaptive.area_weight belongs to loss_space leaf: on the image every pixel "
              "counts once already");
  if (model.kind == "mae" && model.norm_pix_loss)
    rules.add(
        {"model.norm_pix_loss", "model.adaptive.loss_space"},
        "model.norm_pix_loss needs model.adaptive.loss_space leaf: normalised patches have no "
        "image to be pasted to");
}

void check_adaptive(const Model& model, RuleBook& rules) {
  const Adaptive& adaptive = model.adaptive;
  const char* key = "model.adaptive.fixed_length";
  if (!rules.within(key, adaptive.fixed_length, 0, kMaxPatches) || adaptive.fixed_length == 0)
    return;
  rules.within("model.adaptive.min_leaf", adaptive.min_leaf, 0, kMaxPatch);
  if (adaptive.value_floor < -1)
    rules.add({"model.adaptive.value_floor"},
              fmt::format("model.adaptive.value_floor must be at least -1 but got {}",
                          adaptive.value_floor));
  if (model.mixed_resolution.num_tokens > 0)
    rules.add(
        {"model.mixed_resolution.num_tokens", key},
        "model.mixed_resolution and model.adaptive are two ways to make tokens; leave one out");
  if (model.kind == "diffusion")
    rules.add(
        {key, "model.kind"},
        fmt::format("model.adaptive.fixed_length must be 0 for diffusion, which predicts whole "
                    "images, but got {}",
                    adaptive.fixed_length));
  check_leaf_positions(model, key, rules);
  check_importance(model, rules);
  check_trees(model, rules);
  check_compat(model, rules);
  check_leaf_loss(model, rules);
}

/// min_patch * 2^n, n >= 0.
bool is_doubled(int64_t large, int64_t small) {
  return small > 0 && large % small == 0 && is_power_of_two(large / small);
}

/// Coarse patches, and how many tokens can be made of them.
void check_token_count(const Model& model, int64_t min_patch, RuleBook& rules) {
  const MixedResolution& mixed = model.mixed_resolution;
  int64_t coarse = 1, fine = 1;
  for (const int64_t side : model.image_size) {
    if (side < 1 || side % mixed.max_patch != 0) {
      rules.add({"model.mixed_resolution.max_patch", "model.image_size"},
                fmt::format("model.mixed_resolution.max_patch must divide every side of "
                            "model.image_size but got {} and [{}]",
                            mixed.max_patch, fmt::join(model.image_size, ", ")));
      return;
    }
    coarse *= side / mixed.max_patch;
    fine *= side / min_patch;
  }
  if (mixed.num_tokens < coarse || mixed.num_tokens > fine || (mixed.num_tokens - coarse) % 3 != 0)
    rules.add(
        {"model.mixed_resolution.num_tokens"},
        fmt::format("model.mixed_resolution.num_tokens must be {} + 3 n and at most {} but got "
                    "{}: {} patches of edge {}, and each division adds 3",
                    coarse, fine, mixed.num_tokens, coarse, mixed.max_patch),
        {"model.image_size", "model.mixed_resolution.max_patch"});
}

void check_mixed_resolution(const Model& model, RuleBook& rules) {
  const MixedResolution& mixed = model.mixed_resolution;
  const char* key = "model.mixed_resolution.num_tokens";
  if (!rules.within(key, mixed.num_tokens, 0, kMaxPatches) || mixed.num_tokens == 0) return;
  const int64_t min_patch = mixed.min_patch.value_or(model.patch_size);
  if (min_patch != model.patch_size)
    rules.add(
        {"model.mixed_resolution.min_patch", "model.patch_size"},
        fmt::format("model.mixed_resolution.min_patch must equal model.patch_size, the edge of "
                    "every token's pixels, but got {} and {}",
                    min_patch, model.patch_size));
  else if (model.image_size.size() != 2 || !model.variables.empty() || model.kind == "diffusion")
    rules.add(
        {key, "model.image_size", "model.variables", "model.kind"},
        "model.mixed_resolution needs images of 2 sides, no model.variables, and a kind other "
        "than diffusion");
  else if (!rules.within("model.mixed_resolution.max_patch", mixed.max_patch, 1, kMaxPatch) ||
           !is_doubled(mixed.max_patch, min_patch))
    rules.add(
        {"model.mixed_resolution.max_patch", "model.patch_size"},
        fmt::format("model.mixed_resolution.max_patch must be the smallest patch times a power "
                    "of two but got {} and {}",
                    mixed.max_patch, min_patch));
  else
    check_token_count(model, min_patch, rules);
  check_leaf_positions(model, key, rules);
  if (mixed.scorer == "given")
    rules.within("model.mixed_resolution.scorer_channel", mixed.scorer_channel, 0,
                 model.in_channels - 1);
  if (mixed.scorer == "feature_based" && mixed.scorer_weights.empty())
    rules.add(
        {"model.mixed_resolution.scorer_weights", "model.mixed_resolution.scorer"},
        "model.mixed_resolution.scorer_weights must name the network's weights for the scorer "
        "feature_based but is empty");
  if (mixed.scorer == "feature_based" && model.in_channels != 3)
    rules.add({"model.mixed_resolution.scorer", "model.in_channels"},
              fmt::format("model.mixed_resolution.scorer feature_based needs 3 channels but "
                          "model.in_channels is {}",
                          model.in_channels));
}

}  // namespace

void check_tokens(const Model& model, RuleBook& rules) {
  check_variables(model, rules);
  check_adaptive(model, rules);
  check_mixed_resolution(model, rules);
}

}  // namespace vitrail::config
