#include "vitrail/config/defaults.h"

#include <fmt/format.h>

namespace vitrail::config {

namespace {

/// True when model.`key` is the plain word `word`.
bool says(const Node& model, const char* key, std::string_view word) {
  const Node* value = model.find(key);
  return value && value->is_scalar() && value->text == word;
}

/// {start, end} -> [start, end]; a missing end of the range is the end of the list.
Node split_as_list(const Node& split) {
  const Node* start = split.find("start");
  const Node* end = split.find("end");
  return make_list(
      {start ? *start : make_scalar("0", split.place), end ? *end : make_scalar("1", split.place)},
      split.place);
}

void expand_split(Node& source, const std::string& path, Problems& problems) {
  Node* split = source.find("split");
  if (!split || !split->is_map()) return;
  for (const Entry& entry : split->entries) {
    if (entry.key == "start" || entry.key == "end") continue;
    const bool later = entry.key == "list" || entry.key == "hash" || entry.key == "part";
    problems.add_about(fmt::format("{}.split.{}", path, printable(entry.key)), entry.key_place,
                       later ? "is not in this version; use split: [start, end]"
                             : "is not a known key; known are 'start' and 'end'");
  }
  *split = split_as_list(*split);
}

void expand_normalize(Node& source) {
  const Node* normalize = source.find("normalize");
  if (!normalize || !normalize->is_map() || !normalize->find("mean") || !normalize->find("std") ||
      normalize->entries.size() != 2 || source.find("mean") || source.find("std"))
    return;
  const Node mean = *normalize->find("mean"), std = *normalize->find("std");
  std::erase_if(source.entries, [](const Entry& entry) { return entry.key == "normalize"; });
  source.set("mean", mean);
  source.set("std", std);
}

}  // namespace

void expand_shorthands(Node& root, Problems& problems) {
  for (const char* section : {"data", "eval"}) {
    Node* node = root.find(section);
    Node* sources = node ? node->find("sources") : nullptr;
    if (!sources || !sources->is_list()) continue;
    for (size_t i = 0; i < sources->items.size(); ++i) {
      expand_split(sources->items[i], fmt::format("{}.sources[{}]", section, i), problems);
      expand_normalize(sources->items[i]);
    }
  }
}

void replace_length(Node& root) {
  Node* train = root.find("train");
  Node* epochs = train ? train->find("epochs") : nullptr;
  Node* steps = train ? train->find("steps") : nullptr;
  if (!epochs || !steps || epochs->is_null() || steps->is_null()) return;
  const bool epochs_in_file = epochs->place.line > 0, steps_in_file = steps->place.line > 0;
  if (epochs_in_file == steps_in_file) return;
  Node& replaced = epochs_in_file ? *epochs : *steps;
  const Node& winner = epochs_in_file ? *steps : *epochs;
  replaced = Node{};
  replaced.place = Place{"replaced by " + winner.place.text(), 0, 0, false};
}

const std::vector<DependentDefault>& dependent_defaults() {
  static const std::vector<DependentDefault> table{
      {"class_token", "true", "for mae"},      // He et al. 2022, arXiv:2111.06377
      {"pos_embed", "sincos", "for mae"},      // the same
      {"pool", "avg", "without class_token"},  // there is nothing else to read
  };
  return table;
}

void apply_dependent_defaults(Node& root) {
  Node* model = root.find("model");
  if (!model || !model->is_map()) return;
  for (const DependentDefault& rule : dependent_defaults()) {
    const bool holds =
        rule.when == "for mae" ? says(*model, "kind", "mae") : says(*model, "class_token", "false");
    if (holds && !model->find(rule.key))
      model->set(rule.key, make_scalar(rule.value, Place{"default " + rule.when, 0, 0, false}));
  }
}

}  // namespace vitrail::config
