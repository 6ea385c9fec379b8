#include "vitrail/config/reader.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "vitrail/config/fields.h"
#include "vitrail/config/not_yet.h"
#include "vitrail/core/did_you_mean.h"

namespace vitrail::config {

namespace {

/// Key paths of the whole recipe, for a key that stands in the wrong section.
class KeyLister {
 public:
  template <class Field>
  void operator()(const char* key, const Field& field, const char*) {
    const std::string path = join_key(prefix_, key);
    if constexpr (Section<const Field>) {
      KeyLister inner;
      inner.prefix_ = path;
      Field::fields(field, inner);
      paths.insert(paths.end(), inner.paths.begin(), inner.paths.end());
    }
    paths.push_back(path);
  }
  std::vector<std::string> paths;

 private:
  std::string prefix_;
};

const std::vector<std::string>& all_keys() {
  static const std::vector<std::string> paths = [] {
    KeyLister lister;
    const Recipe recipe;
    Recipe::fields(recipe, lister);
    return lister.paths;
  }();
  return paths;
}

/// "train.optimizer.lr" for "lr"; empty when no section or several have it.
std::string find_elsewhere(const std::string& key) {
  std::string found;
  for (const std::string& path : all_keys()) {
    const size_t dot = path.rfind('.');
    if (dot == std::string::npos || path.compare(dot + 1, std::string::npos, key) != 0) continue;
    if (!found.empty()) return "";
    found = path;
  }
  return found;
}

template <class Number>
std::from_chars_result parse_number(const std::string& text, Number& value) {
  const char* first = text.data();
  if (text.size() > 1 && text[0] == '+' && text[1] != '-')
    ++first;  // from_chars takes no plus sign
  return std::from_chars(first, text.data() + text.size(), value);
}

/// Values that can be read from one scalar. Each returns an empty string, or what must hold.
std::string read_scalar(const Node& node, bool& field) {
  const bool yes = node.text == "true" || node.text == "True" || node.text == "TRUE";
  const bool no = node.text == "false" || node.text == "False" || node.text == "FALSE";
  if (node.quoted || !(yes || no)) return type_words(field);
  field = yes;
  return "";
}

std::string read_scalar(const Node& node, int64_t& field) {
  int64_t value = 0;
  const auto [end, error] = parse_number(node.text, value);
  const bool whole = end == node.text.data() + node.text.size() && !node.quoted;
  if (whole && error == std::errc::result_out_of_range) return "a whole number of at most 64 bits";
  if (!whole || error != std::errc()) return type_words(field);
  field = value;
  return "";
}

std::string read_scalar(const Node& node, double& field) {
  double value = 0;
  const auto [end, error] = parse_number(node.text, value);
  const bool whole = end == node.text.data() + node.text.size() && !node.quoted;
  if (whole && error == std::errc::result_out_of_range)
    return "a number that fits 64-bit floating point";
  const bool infinite =
      node.text.find(".inf") != std::string::npos || node.text == ".nan" || node.text == ".NaN";
  if ((whole && error == std::errc() && !std::isfinite(value)) || (infinite && !node.quoted))
    return "a finite number";
  if (!whole || error != std::errc()) return type_words(field);
  field = value;
  return "";
}

std::string read_scalar(const Node& node, std::string& field) {
  field = node.text;
  return "";
}

struct State {
  Problems& problems;
  std::vector<Origin>& origins;
};

template <class Field>
void read_value(const Node& node, const std::string& path, State& state, Field& field) {
  const std::string needed = node.is_scalar() ? read_scalar(node, field) : type_words(field);
  if (!needed.empty())
    state.problems.add_about(path, node.place,
                             fmt::format("must be {} but got {}", needed, describe(node)));
}

void read_value(const Node& node, const std::string& path, State& state, Choice& field) {
  if (const std::string later = word_not_yet(path, node); !later.empty()) {
    state.problems.add_about(
        path, node.place, fmt::format("{}; there are {}", later, fmt::join(field.allowed, ", ")));
    return;
  }
  if (node.is_null() && (field == "none" || field == "same")) return;  // null asks for nothing, and that is the default
  for (const std::string& word : field.allowed)
    if (node.is_scalar() && node.text == word) {
      field.value = word;
      return;
    }
  const std::string near = node.is_scalar() ? core::nearest_word(node.text, field.allowed) : "";
  state.problems.add_about(
      path, node.place,
      fmt::format("must be one of {} but got {}{}", fmt::join(field.allowed, ", "), describe(node),
                  near.empty() ? "" : fmt::format("; did you mean '{}'?", near)));
}

template <class T>
void read_value(const Node& node, const std::string& path, State& state, std::optional<T>& field) {
  field.reset();
  if (node.is_null()) return;
  T value{};
  const std::string needed = node.is_scalar() ? read_scalar(node, value) : type_words(value);
  if (needed.empty())
    field = value;
  else
    state.problems.add_about(path, node.place,
                             fmt::format("must be {} or null but got {}", needed, describe(node)));
}

template <class T>
void read_value(const Node& node, const std::string& path, State& state, std::vector<T>& field) {
  if (node.is_null() && field.empty()) return;  // null asks for nothing, and that is the default
  if (!node.is_list()) {
    state.problems.add_about(
        path, node.place, fmt::format("must be {} but got {}", type_words(field), describe(node)));
    return;
  }
  field.clear();
  for (size_t i = 0; i < node.items.size(); ++i) {
    T value{};
    read_value(node.items[i], fmt::format("{}[{}]", path, i), state, value);
    field.push_back(std::move(value));
  }
}

template <class T>
void read_section(const Node* node, const std::string& path, State& state, T& section);

/// Visits one section; `node` is null when the recipe does not have it.
class SectionReader {
 public:
  SectionReader(const Node* node, std::string path, State& state)
      : node_(node), path_(std::move(path)), state_(state) {}

  template <class Field>
  void operator()(const char* key, Field& field, const char*) {
    known_.emplace_back(key);
    const std::string path = join_key(path_, key);
    const Node* value = node_ ? node_->find(key) : nullptr;
    if constexpr (Section<Field>) {
      read_section(value, path, state_, field);
    } else if constexpr (SectionList<Field>) {
      if (value) read_list(*value, path, field);
    } else {
      if (value) read_value(*value, path, state_, field);
      state_.origins.push_back({path, value ? value->place.text() : "default"});
    }
  }

  void report_unknown_keys() const {
    if (!node_) return;
    for (const Entry& entry : node_->entries)
      if (std::find(known_.begin(), known_.end(), entry.key) == known_.end()) report(entry);
  }

 private:
  template <class T>
  void read_list(const Node& node, const std::string& path, std::vector<T>& field) {
    if (!node.is_list()) {
      state_.problems.add_about(path, node.place,
                                fmt::format("must be a list of maps but got {}", describe(node)));
      return;
    }
    field.assign(node.items.size(), T{});
    for (size_t i = 0; i < field.size(); ++i) {
      const std::string element = fmt::format("{}[{}]", path, i);
      if (node.items[i].is_map())
        read_section(&node.items[i], element, state_, field[i]);
      else
        state_.problems.add_about(element, node.items[i].place,
                                  fmt::format("must be a map but got {}", describe(node.items[i])));
    }
  }

  void report(const Entry& entry) const {
    const std::string path = join_key(path_, printable(entry.key));
    if (is_key_not_yet(path)) {
      if (!is_neutral(path, entry.value))
        state_.problems.add_about(path, entry.key_place,
                                  "is not in this version" + hint_of_key(path));
      return;
    }
    std::string meant = core::nearest_word(entry.key, known_);
    if (meant.empty()) meant = find_elsewhere(entry.key);
    state_.problems.add_about(
        path, entry.key_place,
        "is not a known key; " + (meant.empty() ? "vitrail check --reference lists them all"
                                                : fmt::format("did you mean '{}'?", meant)));
  }

  const Node* node_;
  std::string path_;
  State& state_;
  std::vector<std::string> known_;
};

template <class T>
void read_section(const Node* node, const std::string& path, State& state, T& section) {
  if (node && !node->is_map()) {
    if (!node->is_null())  // a section whose keys are all commented out
      state.problems.add_about(path, node->place,
                               fmt::format("must be a map but got {}", describe(*node)));
    node = nullptr;
  }
  SectionReader reader(node, path, state);
  T::fields(section, reader);
  reader.report_unknown_keys();
}

}  // namespace

ResolvedRecipe read_recipe(const Node& root, Problems& problems) {
  ResolvedRecipe resolved;
  State state{problems, resolved.origins};
  read_section(&root, "", state, resolved.recipe);
  return resolved;
}

}  // namespace vitrail::config
