// docs/formats/recipe.md.

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "vitrail/config/defaults.h"
#include "vitrail/config/fields.h"
#include "vitrail/config/not_yet.h"
#include "vitrail/config/recipe.h"
#include "vitrail/config/scalars.h"
#include "vitrail/config/yaml.h"

namespace vitrail::config {

namespace {

std::string cell_type(const Choice& field) {
  return fmt::format("{}", fmt::join(field.allowed, ", "));
}
template <class Field>
std::string cell_type(const Field& field) {
  return type_words(field);
}

std::string cell_default(const std::string& text) {
  return text.empty() ? "empty" : "`" + text + "`";
}
template <class Field>
std::string cell_default(const Field& field) {
  const std::string text = to_flow(field);
  return text == "[]" ? "empty" : "`" + text + "`";
}
std::string cell_default(const Choice& field) { return "`" + field.value + "`"; }

/// One table a section; sections inside it follow as tables of their own.
class TableWriter {
 public:
  TableWriter(std::string path, std::string description) {
    text_ = fmt::format(
        "\n## {}\n{}.\n\n| key | type or words | default | meaning |\n|---|---|---|---|\n", path,
        description);
    path_ = std::move(path);
  }

  template <class Field>
  void operator()(const char* key, const Field& field, const char* description) {
    if constexpr (Section<const Field>) {
      inner_ += table(join_key(path_, key), description, field);
    } else if constexpr (SectionList<const Field>) {
      text_ += fmt::format("| `{}` | a list of maps | empty | {}; see data.sources[] |\n", key,
                           description);
      if (path_ == "data") {
        const Source source;
        inner_ += table("data.sources[]", "One source; the same keys in eval.sources[]", source);
      }
    } else {
      text_ += fmt::format("| `{}` | {} | {} | {} |\n", key, cell_type(field), cell_default(field),
                           description);
    }
  }

  template <class T>
  static std::string table(const std::string& path, std::string description, const T& section) {
    description[0] = static_cast<char>(std::toupper(static_cast<unsigned char>(description[0])));
    TableWriter writer(path, description);
    T::fields(section, writer);
    return writer.text_ + writer.inner_;
  }

 private:
  std::string text_, inner_, path_;
};

struct SectionTables {
  template <class T>
  void operator()(const char* key, const T& section, const char* description) {
    text += TableWriter::table(key, description, section);
  }
  std::string text;
};

std::string introduction() {
  return fmt::format(
      "# The recipe\n\n"
      "This page is printed by `vitrail check --reference`, from the same lines of "
      "`vitrail/config/recipe.h` that read, "
      "check and print recipes; a test keeps it equal.\n\n"
      "A recipe is one YAML document: a map of sections, each a map of keys. Every key is optional "
      "unless a rule below says "
      "otherwise. An unknown key is an error.\n\n"
      "- Values on the command line: `vitrail train recipe.yaml train.optimizer.lr=3e-4 "
      "model.image_size=[32,32] "
      "data.sources[0].root=/data`. A value is YAML in flow form; a list or map replaces what was "
      "there; an index one past the "
      "end of a list appends.\n"
      "- `train.steps=5` on the command line replaces the file's `train.epochs`, and the other way "
      "round.\n"
      "- Anchors and aliases work; merge keys (`<<`) and tags do not.\n"
      "- A number in quotes is text. Truth is `true` or `false`.\n"
      "- Limits: {} MiB, {} values after aliases, {} levels.\n"
      "- `vitrail check recipe.yaml` prints every value with where it came from.\n"
      "- Short forms of a source: `split: {{start: 0, end: 0.8}}` for `[0, 0.8]`, `split: {{list: FILE}}` and `split: {{hash: N, part: train}}` for `split_list`, `split_hash` and `split_part`; `normalize: "
      "{{mean: [...], std: [...]}}` for "
      "`mean` and `std`, `normalize: {{percentile: [1, 99]}}` for `normalize: percentile` and "
      "`percentile: [1, 99]`.\n"
      "- `null` is a section, list or word that is left at its default, where that is nothing: "
      "`random_crop: null`, `tile: null`, `rope: null`.\n"
      "- To train, a recipe needs `data.sources` and one of `train.epochs` and `train.steps`. A "
      "recipe with none of these may "
      "describe a model alone.\n",
      kMaxFileBytes >> 20, kMaxNodes, kMaxDepth);
}

std::string preset_tables() {
  std::string text =
      "\n## Presets\nValues of `model.preset`; each holds where the recipe does not give the "
      "key. One with a kind goes with no other kind.\n\n"
      "| preset | values |\n|---|---|\n";
  for (const Preset& preset : presets()) {
    std::vector<std::string> values;
    for (const auto& [key, value] : preset.values) values.push_back(key + ": " + value);
    text += fmt::format("| `{}` | {} |\n", preset.name, fmt::join(values, ", "));
  }
  text += "\n## Defaults that depend on other keys\n\n| key | default | when |\n|---|---|---|\n";
  for (const DependentDefault& rule : dependent_defaults())
    text += fmt::format("| `model.{}` | `{}` | {} |\n", rule.key, rule.value,
                        condition_text(rule.on, fmt::format("{}", fmt::join(rule.words, ", "))));
  text += "| `model.in_channels` | the number of `model.variables` | with variables |\n";
  return text;
}

std::string not_yet_text() {
  std::string words = "\n## Not in this version\nRefused by name.\n\n| key | words |\n|---|---|\n";
  std::string keys =
      "\nA key whose value asks for nothing is allowed.\n\n| key | allowed value |\n|---|---|\n";
  for (const NotYet& entry : not_yet_table())
    if (entry.words.empty())
      keys += fmt::format(
          "| `{}` | {} |\n", entry.key,
          entry.neutral.empty() ? "-" : fmt::format("{}", fmt::join(entry.neutral, ", ")));
    else
      words += fmt::format("| `{}` | {} |\n", entry.key, fmt::join(entry.words, ", "));
  return words + keys;
}

}  // namespace

std::string recipe_reference_markdown() {
  SectionTables tables;
  const Recipe recipe;
  Recipe::fields(recipe, tables);
  return introduction() + tables.text + preset_tables() + not_yet_text();
}

}  // namespace vitrail::config
