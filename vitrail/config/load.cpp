// From a file or text to a checked recipe.

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "vitrail/config/defaults.h"
#include "vitrail/config/layered.h"
#include "vitrail/config/override.h"
#include "vitrail/config/problems.h"
#include "vitrail/config/reader.h"
#include "vitrail/config/recipe.h"
#include "vitrail/config/rules.h"
#include "vitrail/config/yaml.h"
#include "vitrail/core/error.h"

namespace vitrail::config {

std::string read_text_file(const std::string& path, const std::string& what) {
  const std::string name = printable(path);
  std::error_code error;
  const auto status = std::filesystem::status(path, error);
  VT_REQUIRE(ConfigError, std::filesystem::exists(status),
             "[config] {} must be a {} file but there is no such file", name, what);
  VT_REQUIRE(ConfigError, !std::filesystem::is_directory(status),
             "[config] {} must be a {} file but is a folder; name a file in it", name, what);
  errno = 0;
  std::ifstream file(path, std::ios::binary);
  VT_REQUIRE(ConfigError, file.is_open(), "[config] {} must be readable but: {}", name,
             std::strerror(errno));
  // Read by pieces, not by the size that the file system states: pipes and devices state none.
  std::string text, piece(size_t{1} << 16, '\0');
  while (file.read(piece.data(), static_cast<std::streamsize>(piece.size())) || file.gcount() > 0) {
    text.append(piece, 0, static_cast<size_t>(file.gcount()));
    VT_REQUIRE(ConfigError, static_cast<int64_t>(text.size()) <= kMaxFileBytes,
               "[config] {} must be a {} of at most {} MiB but is larger", name, what,
               kMaxFileBytes >> 20);
  }
  VT_REQUIRE(ConfigError, !file.bad(), "[config] {} could not be read to its end: {}", name,
             std::strerror(errno));
  return text;
}

namespace {

/// The node at "data.sources[0].std"; the nearest section above it when it is missing.
const Node* find_path(const Node& root, const std::string& path, bool& whole) {
  const Node* node = &root;
  size_t at = 0;
  whole = true;
  while (at < path.size()) {
    const Node* next = nullptr;
    if (path[at] == '[') {
      const size_t close = path.find(']', at);
      const size_t index = std::stoul(path.substr(at + 1, close - at - 1));
      if (node->is_list() && index < node->items.size()) next = &node->items[index];
      at = close + 1;
    } else {
      const size_t end = std::min(path.find_first_of(".[", at), path.size());
      next = node->find(path.substr(at, end - at));
      at = end;
    }
    if (!next) {
      whole = false;
      return node;
    }
    node = next;
    if (at < path.size() && path[at] == '.') ++at;
  }
  return node;
}

/// Where the user wrote the keys that a rule names.
struct Places {
  Place first;
  std::string text;  // "recipe.yaml:4:9, command line: model.num_heads=5"
};

Places places_of(const Node& root, const std::vector<std::string>& keys) {
  Places places;
  for (const std::string& key : keys) {
    bool whole = false;
    const Node* node = find_path(root, key, whole);
    if (!whole || !node->place.given) continue;
    const std::string text = node->place.text();
    if (places.text.empty()) places.first = node->place;
    if (places.text.find(text) == std::string::npos)
      places.text += (places.text.empty() ? "" : ", ") + text;
  }
  if (!places.text.empty() || keys.empty()) return places;
  // All are missing: the section that lacks the first of them.
  bool whole = false;
  const Node* section = find_path(root, keys.front(), whole);
  if (section != &root && section->place.given) places = {section->place, section->place.text()};
  return places;
}

/// Training needs keys that a recipe for `forward` or `weights` may leave out.
bool is_for_training(const Recipe& recipe) {
  return !recipe.data.sources.empty() || recipe.train.epochs || recipe.train.steps;
}

void judge(const Node& root, const Recipe& recipe, Problems& problems) {
  std::vector<Violation> found = violations(recipe);
  if (is_for_training(recipe)) {
    const std::vector<Violation> more = training_violations(recipe);
    found.insert(found.end(), more.begin(), more.end());
  }
  // Problems found by one rule do not silence another: only unreadable keys do.
  const Problems unreadable = problems;
  for (const Violation& violation : found) {
    const auto is_unreadable = [&](const std::string& key) { return unreadable.concerns(key); };
    if (std::any_of(violation.keys.begin(), violation.keys.end(), is_unreadable) ||
        std::any_of(violation.context.begin(), violation.context.end(), is_unreadable))
      continue;
    const Places places = places_of(root, violation.keys);
    problems.add(places.first, violation.text, places.text);
  }
}

std::vector<Setting> from_command_line(const std::vector<std::string>& overrides) {
  std::vector<Setting> settings;
  for (const std::string& text : overrides) settings.push_back({text, ""});
  return settings;
}

}  // namespace

ResolvedRecipe parse_layered(const std::string& yaml, const std::string& name,
                             const std::vector<Setting>& settings) {
  Problems problems;
  Node root = parse_yaml(yaml, name, problems);
  if (root.is_null() && problems.empty())
    problems.add(Place{printable(name), 1, 1, true}, "the recipe is empty");
  else if (!root.is_map() && problems.empty())
    problems.add(root.place, "a recipe must be a map of sections but got " + describe(root));
  if (!root.is_map()) problems.throw_if_any();  // without a tree every further line would be noise
  for (const Setting& setting : settings)
    apply_override(root, setting.text, problems, setting.source);
  replace_length(root);
  expand_shorthands(root, problems);
  apply_preset(root, problems);
  apply_dependent_defaults(root);
  ResolvedRecipe resolved = read_recipe(root, problems);
  judge(root, resolved.recipe, problems);
  problems.throw_if_any();
  return resolved;
}

ResolvedRecipe load_layered(const std::string& path, const std::vector<Setting>& settings) {
  return parse_layered(read_text_file(path), path, settings);
}

ResolvedRecipe parse_recipe(const std::string& yaml, const std::string& name,
                            const std::vector<std::string>& overrides) {
  return parse_layered(yaml, name, from_command_line(overrides));
}

ResolvedRecipe load_recipe(const std::string& path, const std::vector<std::string>& overrides) {
  return load_layered(path, from_command_line(overrides));
}

}  // namespace vitrail::config
