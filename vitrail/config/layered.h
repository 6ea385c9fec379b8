#pragma once
/// A recipe with values from elsewhere laid over it.

#include <string>
#include <vector>

#include "vitrail/config/recipe.h"

namespace vitrail::config {

/// A file's text, at most kMaxFileBytes. `what` as in "must be a recipe file but there is no such file".
/// throws ConfigError.
std::string read_text_file(const std::string& path, const std::string& what = "recipe");

/// "key.path=value" and where it was written, for messages; an empty source is the command line.
struct Setting {
  std::string text;
  std::string source;
};

/// As load_recipe and parse_recipe, later settings over earlier ones.
ResolvedRecipe load_layered(const std::string& path, const std::vector<Setting>& settings);
ResolvedRecipe parse_layered(const std::string& yaml, const std::string& name,
                             const std::vector<Setting>& settings);

}  // namespace vitrail::config
