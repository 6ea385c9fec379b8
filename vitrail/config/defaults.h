#pragma once
/// Values that a recipe need not give: shorthands, presets, and defaults that depend on other keys.

#include <string>
#include <utility>
#include <vector>

#include "vitrail/config/node.h"
#include "vitrail/config/problems.h"

namespace vitrail::config {

/// Writes the short forms of a source in full: split {start, end}, normalize {mean, std} and
/// normalize {percentile}.
void expand_shorthands(Node& root, Problems& problems);

/// train.steps on the command line replaces the file's train.epochs, and the other way round:
/// `train.steps=5` is a short run of any recipe.
void replace_length(Node& root);

/// Sets what model.preset means, where the recipe does not give the key. A preset for one kind of
/// model goes with no other.
void apply_preset(Node& root, Problems& problems);

/// Defaults that depend on other keys, where neither recipe nor preset gives the key.
void apply_dependent_defaults(Node& root);

struct Preset {
  std::string name;
  std::vector<std::pair<std::string, std::string>> values;  // key of model, value as YAML
};
const std::vector<Preset>& presets();

struct DependentDefault {
  std::string key, value;
  std::string on;                  // the key of model that decides
  std::vector<std::string> words;  // its values for which this default holds
};
const std::vector<DependentDefault>& dependent_defaults();
/// "for unetr, sap" or "without class_token"; the origin is "default " and this for one word.
std::string condition_text(const std::string& on, const std::string& words);

}  // namespace vitrail::config
