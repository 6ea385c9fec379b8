#pragma once
/// Values that a recipe need not give: shorthands, presets, and defaults that depend on other keys.

#include <string>
#include <vector>

#include "vitrail/config/node.h"
#include "vitrail/config/problems.h"

namespace vitrail::config {

/// Writes the short forms of a source in full: split {start, end} and normalize {mean, std}.
void expand_shorthands(Node& root, Problems& problems);

/// train.steps on the command line replaces the file's train.epochs, and the other way round:
/// `train.steps=5` is a short run of any recipe.
void replace_length(Node& root);

/// Sets what model.preset means, where the recipe does not give the key.
void apply_preset(Node& root, Problems& problems);

/// Defaults that depend on other keys, where neither recipe nor preset gives the key.
void apply_dependent_defaults(Node& root);

struct Preset {
  std::string name;
  int64_t embed_dim, depth, num_heads, patch_size,
      mlp_hidden_dim;  // mlp_hidden_dim 0 = mlp_ratio decides
};
const std::vector<Preset>& presets();

struct DependentDefault {
  std::string key, value,
      when;  // `when` in words, for the reference page and as origin "default for ..."
};
const std::vector<DependentDefault>& dependent_defaults();

}  // namespace vitrail::config
