#include "vitrail/config/override.h"

#include <charconv>
#include <optional>

#include <fmt/format.h>

#include "vitrail/config/recipe.h"
#include "vitrail/config/yaml.h"

namespace vitrail::config {

namespace {

/// One part of a key path: a name, or an index in brackets.
struct Step {
  std::string name;
  std::optional<size_t> index;
};

/// "data.sources[0].root" -> data, sources, [0], root. Nothing when the path is malformed.
std::optional<std::vector<Step>> parse_path(std::string_view path) {
  std::vector<Step> steps;
  size_t at = 0;
  while (true) {
    const size_t end = std::min(path.find_first_of(".[", at), path.size());
    if (end == at) return {};
    steps.push_back({std::string(path.substr(at, end - at)), {}});
    at = end;
    while (at < path.size() && path[at] == '[') {
      const size_t close = path.find(']', at);
      if (close == std::string_view::npos) return {};
      size_t index = 0;
      const auto [last, error] = std::from_chars(path.data() + at + 1, path.data() + close, index);
      if (error != std::errc() || last != path.data() + close) return {};
      steps.push_back({"", index});
      at = close + 1;
    }
    if (at == path.size()) return steps;
    if (path[at] != '.') return {};
    ++at;
  }
}

/// The tree of a recipe that says nothing: every key with its default.
const Node& default_tree() {
  static const Node tree = [] {
    Problems none;
    return parse_yaml(to_yaml(Recipe{}), "default", none);
  }();
  return tree;
}

class Walker {
 public:
  Walker(Node& root, const Place& place)
      : node_(&root), defaults_(&default_tree()), place_(place) {}

  /// Moves to the child; returns what is wrong, or an empty string.
  std::string step(const Step& step) {
    std::string problem = step.index ? step_index(*step.index) : step_name(step.name);
    path_ += step.index ? fmt::format("[{}]", *step.index) : (path_.empty() ? "" : ".") + step.name;
    return problem;
  }
  Node& node() { return *node_; }

 private:
  std::string step_name(const std::string& name) {
    if (node_->is_list())
      return fmt::format("{0} is a list; name one of its elements, as in {0}[0].{1}", path_, name);
    if (!node_->is_map()) *node_ = empty(Node::Kind::map);
    Node* child = node_->find(name);
    node_ = child ? child : &node_->set(name, empty(Node::Kind::null));
    defaults_ = defaults_ ? defaults_->find(name) : nullptr;
    return "";
  }

  std::string step_index(size_t index) {
    if (node_->is_null() && defaults_ && defaults_->is_list()) {
      *node_ = *defaults_;
      for (Node& item : node_->items) item.place = place_;
    }
    if (node_->is_null()) *node_ = empty(Node::Kind::list);
    if (!node_->is_list())
      return fmt::format("{} is no list, so it has no element [{}]", path_, index);
    node_->place = place_;
    const size_t size = node_->items.size();
    if (index > size)
      return fmt::format("{} has {} element{}, so the next one is [{}] but got [{}]", path_, size,
                         size == 1 ? "" : "s", size, index);
    if (index == size) node_->items.push_back(empty(Node::Kind::null));
    node_ = &node_->items[index];
    defaults_ = nullptr;
    return "";
  }

  Node empty(Node::Kind kind) const {
    Node node;
    node.kind = kind;
    node.place = place_;
    return node;
  }

  Node* node_;
  const Node* defaults_;
  Place place_;
  std::string path_;
};

}  // namespace

void apply_override(Node& root, const std::string& override_text, Problems& problems,
                    const std::string& source) {
  const std::string& text = override_text;
  const Place place{source.empty() ? "command line: " + printable(text) : source, 0, 0, true};
  const size_t equals = override_text.find('=');
  if (equals == std::string::npos) {
    problems.add(place, fmt::format("an override must be key.path=value but got '{}'",
                                    printable(override_text)));
    return;
  }
  const std::string key = override_text.substr(0, equals);
  const auto steps = parse_path(key);
  if (!steps) {
    problems.add(place,
                 fmt::format("an override's key must be like data.sources[0].root but got '{}'",
                             printable(key)));
    return;
  }
  const size_t before = problems.size();
  Node value = parse_yaml_value(override_text.substr(equals + 1), printable(key), place, problems);
  if (problems.size() != before) return;
  Walker walker(root, place);
  for (const Step& step : *steps)
    if (const std::string problem = walker.step(step); !problem.empty()) {
      problems.add(place, problem);
      return;
    }
  walker.node() = std::move(value);
}

}  // namespace vitrail::config
