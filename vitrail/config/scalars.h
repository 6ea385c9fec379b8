#pragma once
/// Single values as YAML.

#include <optional>
#include <string>
#include <vector>

#include "vitrail/config/recipe.h"

namespace vitrail::config {

/// Text, in double quotes where YAML would take it for something else.
std::string to_flow(const std::string& value);
std::string to_flow(const Choice& value);
std::string to_flow(bool value);
std::string to_flow(int64_t value);
/// The shortest digits that read back to the same number.
std::string to_flow(double value);

template <class T>
std::string to_flow(const std::optional<T>& value) {
  return value ? to_flow(*value) : "null";
}

template <class T>
std::string to_flow(const std::vector<T>& values) {
  std::string text;
  for (const T& value : values) text += (text.empty() ? "" : ", ") + to_flow(value);
  return "[" + text + "]";
}

}  // namespace vitrail::config
