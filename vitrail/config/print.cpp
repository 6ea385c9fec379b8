// A recipe as YAML.

#include <algorithm>
#include <map>

#include <fmt/format.h>

#include "vitrail/config/fields.h"
#include "vitrail/config/recipe.h"
#include "vitrail/config/scalars.h"

namespace vitrail::config {

namespace {

/// One printed line and the key it gives a value to (empty for the head of a section).
struct Line {
  std::string text, key;
};

class Printer {
 public:
  Printer(std::vector<Line>& lines, std::string path, std::string indent)
      : lines_(lines), path_(std::move(path)), indent_(std::move(indent)) {}

  template <class Field>
  void operator()(const char* key, const Field& field, const char*) {
    const std::string path = join_key(path_, key);
    if constexpr (Section<const Field>) {
      lines_.push_back({fmt::format("{}{}:", lead(), key), ""});
      Printer inner(lines_, path, indent_ + "  ");
      Field::fields(field, inner);
    } else if constexpr (SectionList<const Field>) {
      print_list(key, path, field);
    } else {
      lines_.push_back({fmt::format("{}{}: {}", lead(), key, to_flow(field)), path});
    }
  }
  /// The first line of a list element begins with a dash.
  void begin_element() { dash_ = true; }

 private:
  template <class T>
  void print_list(const char* key, const std::string& path, const std::vector<T>& elements) {
    lines_.push_back({fmt::format("{}{}:{}", lead(), key, elements.empty() ? " []" : ""), ""});
    for (size_t i = 0; i < elements.size(); ++i) {
      Printer inner(lines_, fmt::format("{}[{}]", path, i), indent_ + "    ");
      inner.begin_element();
      T::fields(elements[i], inner);
    }
  }
  std::string lead() {
    if (!dash_) return indent_;
    dash_ = false;
    return indent_.substr(0, indent_.size() - 2) + "- ";
  }

  std::vector<Line>& lines_;
  std::string path_, indent_;
  bool dash_ = false;
};

std::vector<Line> print(const Recipe& recipe) {
  std::vector<Line> lines;
  Printer printer(lines, "", "");
  Recipe::fields(recipe, printer);
  return lines;
}

}  // namespace

std::string to_yaml(const Recipe& recipe) {
  std::string text;
  for (const Line& line : print(recipe)) text += line.text + "\n";
  return text;
}

std::string to_yaml(const ResolvedRecipe& resolved) {
  constexpr size_t kWidest = 48;  // longer lines carry their comment unaligned
  std::map<std::string, std::string> origins;
  for (const Origin& origin : resolved.origins) origins[origin.key] = origin.text;
  const std::vector<Line> lines = print(resolved.recipe);
  size_t width = 0;
  for (const Line& line : lines)
    if (line.text.size() <= kWidest) width = std::max(width, line.text.size());
  std::string text;
  for (const Line& line : lines) {
    const auto origin = origins.find(line.key);
    if (origin == origins.end())
      text += line.text + "\n";
    else
      text += fmt::format("{:<{}}  # {}\n", line.text, width, origin->second);
  }
  return text;
}

}  // namespace vitrail::config
