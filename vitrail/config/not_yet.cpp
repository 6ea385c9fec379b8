#include "vitrail/config/not_yet.h"

#include <algorithm>

#include <fmt/format.h>

namespace vitrail::config {

namespace {

/// data.sources[3].array and eval.sources[0].array -> data.sources[].array
std::string table_key(const std::string& path) {
  std::string key;
  bool inside = false;
  for (const char c : path) {
    if (c == ']') inside = false;
    if (!inside) key += c;
    if (c == '[') inside = true;
  }
  constexpr std::string_view kEval = "eval.sources[]";
  return key.rfind(kEval, 0) == 0 ? "data.sources[]" + key.substr(kEval.size()) : key;
}

const NotYet* find_entry(const std::string& path, bool words) {
  const std::string key = table_key(path);
  for (const NotYet& entry : not_yet_table())
    if (entry.key == key && entry.words.empty() != words) return &entry;
  return nullptr;
}

bool contains(const std::vector<std::string>& words, const std::string& word) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

}  // namespace

const std::vector<NotYet>& not_yet_table() {
  static const std::vector<NotYet> table{
      {"data.sources[].reader", {"hdf5"}, {}, ""},
  };
  return table;
}

bool is_key_not_yet(const std::string& path) { return find_entry(path, false) != nullptr; }

bool is_neutral(const std::string& path, const Node& value) {
  const NotYet* entry = find_entry(path, false);
  if (!entry || !(value.is_null() || value.is_scalar())) return false;
  return contains(entry->neutral, value.is_null() ? "null" : value.text);
}

std::string hint_of_key(const std::string& path) {
  const NotYet* entry = find_entry(path, false);
  return entry && !entry->hint.empty() ? "; " + entry->hint : "";
}

std::string word_not_yet(const std::string& path, const Node& value) {
  const NotYet* entry = find_entry(path, true);
  if (!entry || !value.is_scalar() || !contains(entry->words, value.text)) return "";
  return fmt::format("'{}' is not in this version", value.text);
}

}  // namespace vitrail::config
