#include "vitrail/config/converter.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <cmath>

#include <fmt/format.h>

#include "vitrail/config/override.h"
#include "vitrail/config/scalars.h"
#include "vitrail/config/yaml.h"
#include "vitrail/core/did_you_mean.h"
#include "vitrail/core/error.h"

namespace vitrail::config {
namespace {

std::string lower(std::string text) {
  std::ranges::transform(text, text.begin(), [](unsigned char c) { return std::tolower(c); });
  return text;
}

std::string last_part(const std::string& path) { return path.substr(path.rfind('.') + 1); }
std::string section_of(const std::string& path) {
  const size_t dot = path.rfind('.');
  return dot == std::string::npos ? "" : path.substr(0, dot);
}

}  // namespace

std::optional<double> as_number(const Node& node) {
  if (!node.is_scalar()) return {};
  std::string text = node.text;
  std::erase(text, '_');
  if (text.starts_with('+')) text.erase(0, 1);
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || !std::isfinite(value)) return {};
  return value;
}

std::optional<int64_t> as_integer(const Node& node) {
  constexpr double kExact = 9007199254740992.0;  // 2^53
  const std::optional<double> value = as_number(node);
  if (!value || *value != std::floor(*value) || std::abs(*value) > kExact) return {};
  return static_cast<int64_t>(*value);
}

std::optional<bool> as_bool(const Node& node) {
  if (!node.is_scalar()) return {};
  const std::string text = lower(node.text);
  if (text == "true" || text == "1") return true;
  if (text == "false" || text == "0") return false;
  return {};
}

bool is_auto(const Node& node) { return node.is_scalar() && lower(node.text) == "auto"; }

std::string value_text(const Node& node) {
  if (node.is_null()) return "null";
  if (node.is_scalar()) return printable(node.text);
  if (node.is_map()) return fmt::format("{{{} keys}}", node.entries.size());
  std::string text;
  for (const Node& item : node.items) text += (text.empty() ? "" : ", ") + value_text(item);
  return printable("[" + text + "]");
}

std::string recipe_number(double value) { return to_flow(value); }
std::string recipe_text(const std::string& value) { return to_flow(value); }

Converter::Converter(const Node& root, std::string file, std::string system)
    : root_(root), system_(std::move(system)) {
  result_.file = std::move(file);
}

const Node* Converter::find(const std::string& path) const {
  const Node* node = &root_;
  for (size_t at = 0; node && at <= path.size();) {
    const size_t end = std::min(path.find('.', at), path.size());
    node = node->find(path.substr(at, end - at));
    at = end + 1;
  }
  return node;
}

bool Converter::has(const std::string& path) const {
  const Node* node = find(path);
  return node && !node->is_null();
}

const Node* Converter::take(const std::string& path) {
  known_.insert(path);
  const Node* node = find(path);
  return node && !node->is_null() ? node : nullptr;
}

const Node* Converter::enter(const std::string& path) {
  entered_.insert(path);
  return take(path);
}

void Converter::set(const std::string& path, const std::string& key, const std::string& value,
                    const std::string& note) {
  const Node* node = find(path);
  answers_[path].push_back({"", "", key + "=" + value, note});
  result_.settings.push_back({key + "=" + value, node ? node->place.text() : result_.file});
}

void Converter::note(const std::string& path, const std::string& why) {
  answers_[path].push_back({"", "", "", why});
}

void Converter::derive(const std::string& key, const std::string& value, const std::string& why) {
  derived_.push_back({"", "", key.empty() ? "" : key + "=" + value, why});
  if (!key.empty()) result_.settings.push_back({key + "=" + value, result_.file});
}

void Converter::refuse(const std::string& path, const std::string& why) {
  const Node* node = find(path);
  answers_[path].push_back({"", "", "", "refused: " + why});
  result_.problems.push_back(problem_line(path + " " + why, node ? node->place.text() : ""));
}

void Converter::bad(const std::string& path, const Node& node, const std::string& expected) {
  refuse(path, fmt::format("must be {} but got {}", expected, describe(node)));
}

template <class T, class Read>
std::optional<T> Converter::read(const std::string& path, const char* expected, Read&& as) {
  const Node* node = take(path);
  if (!node) return {};
  if (is_auto(*node)) {
    note(path, auto_note_);
    return {};
  }
  const std::optional<T> value = as(*node);
  if (!value) bad(path, *node, expected);
  return value;
}

std::optional<double> Converter::number(const std::string& path) {
  return read<double>(path, "a number", as_number);
}
std::optional<int64_t> Converter::integer(const std::string& path) {
  return read<int64_t>(path, "a whole number", as_integer);
}
std::optional<bool> Converter::boolean(const std::string& path) {
  return read<bool>(path, "true or false", as_bool);
}
std::optional<std::string> Converter::text(const std::string& path) {
  return read<std::string>(path, "text", [](const Node& node) {
    return node.is_scalar() ? std::optional(node.text) : std::nullopt;
  });
}

std::vector<int64_t> Converter::integers(const std::string& path) {
  const Node* node = take(path);
  std::vector<int64_t> values;
  if (!node) return values;
  if (node->is_scalar() && as_integer(*node)) return {*as_integer(*node)};
  for (const Node& item : node->items)
    if (const std::optional<int64_t> value = as_integer(item)) values.push_back(*value);
  if (!node->is_list() || values.size() != node->items.size()) {
    bad(path, *node, "a list of whole numbers");
    return {};
  }
  return values;
}

std::string Converter::unknown(const std::string& path) const {
  const std::string section = section_of(path);
  std::vector<std::string> names;
  for (const std::string& known : known_)
    if (section_of(known) == section) names.push_back(last_part(known));
  const std::string near = core::nearest_word(last_part(path), names);
  const std::string said =
      fmt::format("unknown to vitrail as a key of {}; nothing follows", system_);
  if (!near.empty()) return fmt::format("{}; did you mean '{}'?", said, near);
  for (const std::string& known : known_)
    if (last_part(known) == last_part(path))
      return fmt::format("{}; did you mean '{}'?", said, known);
  return said;
}

void Converter::collect(const Node& node, const std::string& path,
                        std::vector<ConvertedLine>& lines) const {
  for (const Entry& entry : node.entries) {
    const std::string inner = path.empty() ? entry.key : path + "." + entry.key;
    const auto answers = answers_.find(inner);
    if (answers != answers_.end()) {
      bool first = true;
      for (ConvertedLine line : answers->second) {
        if (std::exchange(first, false)) line.key = inner, line.value = value_text(entry.value);
        lines.push_back(std::move(line));
      }
    } else if (entered_.count(inner) == 0) {
      const bool is_quiet = known_.count(inner) > 0;
      lines.push_back({inner, value_text(entry.value), "", is_quiet ? "" : unknown(inner)});
    }
    if (entered_.count(inner) > 0) collect(entry.value, inner, lines);
  }
}

Conversion Converter::finish() {
  collect(root_, "", result_.lines);
  for (ConvertedLine& line : derived_) result_.lines.push_back(std::move(line));
  return std::move(result_);
}

std::string Conversion::table() const {
  constexpr size_t kWidestValue = 24, kWidestKey = 64;
  std::vector<std::array<std::string, 4>> rows{{"key", "value", "vitrail", "note"}};
  for (const ConvertedLine& line : lines)
    rows.push_back({line.key, line.value, line.target.empty() ? "-" : line.target, line.note});
  std::array<size_t, 3> widths{};
  for (const auto& row : rows)
    for (size_t i = 0; i < widths.size(); ++i)
      widths[i] = std::max(widths[i], std::min(row[i].size(), i == 1 ? kWidestValue : kWidestKey));
  std::string text;
  for (const auto& row : rows) {
    std::string line = fmt::format("{:<{}}  {:<{}}  {:<{}}  {}", row[0], widths[0], row[1],
                                   widths[1], row[2], widths[2], row[3]);
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + "\n";
  }
  return text;
}

void Conversion::throw_if_any() const {
  std::string text;
  for (const std::string& problem : problems) text += (text.empty() ? "" : "\n") + problem;
  if (!text.empty()) throw core::ConfigError(text);
}

namespace {

/// A tree as YAML: sections in blocks, lists of values in a line.
void print(const Node& node, const std::string& indent, std::string& text);

std::string flow(const Node& node) {
  if (node.is_null()) return "null";
  if (node.is_scalar()) {
    const bool is_value = !node.quoted && (as_number(node) || as_bool(node));
    return is_value ? node.text : to_flow(node.text);
  }
  std::string inner;
  for (const Node& item : node.items) inner += (inner.empty() ? "" : ", ") + flow(item);
  for (const Entry& entry : node.entries)
    inner +=
        fmt::format("{}{}: {}", inner.empty() ? "" : ", ", to_flow(entry.key), flow(entry.value));
  return node.is_list() ? "[" + inner + "]" : "{" + inner + "}";
}

bool holds_sections(const Node& list) {
  return list.is_list() && std::ranges::any_of(list.items, &Node::is_map);
}

void print(const Node& node, const std::string& indent, std::string& text) {
  for (const Entry& entry : node.entries) {
    const Node& value = entry.value;
    const std::string head = fmt::format("{}{}:", indent, to_flow(entry.key));
    if (value.is_map() && !value.entries.empty()) {
      text += head + "\n";
      print(value, indent + "  ", text);
    } else if (holds_sections(value)) {
      text += head + "\n";
      for (const Node& item : value.items) text += fmt::format("{}  - {}\n", indent, flow(item));
    } else {
      text += fmt::format("{} {}\n", head, flow(value));
    }
  }
}

}  // namespace

std::string merged_yaml(const std::string& recipe, const std::string& name,
                        const std::vector<Setting>& settings) {
  Problems problems;
  Node root = recipe.empty() ? Node{} : parse_yaml(recipe, name, problems);
  if (!root.is_map()) root = Node{.kind = Node::Kind::map};
  for (const Setting& setting : settings)
    apply_override(root, setting.text, problems, setting.source);
  problems.throw_if_any();
  std::string text;
  print(root, "", text);
  return text;
}

}  // namespace vitrail::config
