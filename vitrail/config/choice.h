#pragma once
/// A word out of a fixed list, as a type of recipe fields.

#include <string>
#include <utility>
#include <vector>

namespace vitrail::config {

/// A word out of a fixed list; reading any other word is an error that prints the list and the
/// nearest one.
struct Choice {
  std::string value;
  std::vector<std::string> allowed;
  Choice(std::string initial, std::vector<std::string> words)
      : value(std::move(initial)), allowed(std::move(words)) {}
  bool operator==(const char* word) const { return value == word; }
  bool operator==(const Choice& other) const = default;
};

}  // namespace vitrail::config
