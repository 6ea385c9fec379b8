#pragma once
/// Helpers for visitors over the recipe's fields.

#include <concepts>
#include <cstdint>
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

#include "vitrail/config/recipe.h"

namespace vitrail::config {

struct AnyVisitor {
  template <class Field>
  void operator()(const char*, Field&, const char*) {}
};

/// A struct with `fields`: a map in YAML.
template <class T>
concept Section = requires(T& section, AnyVisitor visitor) {
  std::remove_cvref_t<T>::fields(section, visitor);
};

template <class T>
struct ListElement;
template <class T>
struct ListElement<std::vector<T>> {
  using type = T;
};
/// A vector of sections: a list of maps in YAML.
template <class T>
concept SectionList = requires {
  typename ListElement<std::remove_cvref_t<T>>::type;
}
&&Section<typename ListElement<std::remove_cvref_t<T>>::type>;

/// Words for a type, as in "must be a whole number".
inline std::string type_words(const bool&) { return "true or false"; }
inline std::string type_words(const int64_t&) { return "a whole number"; }
inline std::string type_words(const double&) { return "a number"; }
inline std::string type_words(const std::string&) { return "text"; }
inline std::string type_words(const std::vector<int64_t>&) { return "a list of whole numbers"; }
inline std::string type_words(const std::vector<double>&) { return "a list of numbers"; }
inline std::string type_words(const std::vector<std::string>&) { return "a list of texts"; }
template <class T>
std::string type_words(const std::optional<T>&) {
  return type_words(T{}) + " or null";
}

/// "model" + "depth" -> "model.depth"; "" + "model" -> "model".
inline std::string join_key(const std::string& section, const std::string& key) {
  return section.empty() ? key : section + "." + key;
}

}  // namespace vitrail::config
