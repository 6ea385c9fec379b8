#include "vitrail/config/defaults.h"

#include <algorithm>

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

/// {start, end}, {list} and {hash, part} -> split, split_list, split_hash, split_part.
void expand_split(Node& source, const std::string& path, Problems& problems) {
  const Node* found = source.find("split");
  if (!found || !found->is_map()) return;
  const Node split = *found;
  std::erase_if(source.entries, [](const Entry& entry) { return entry.key == "split"; });
  if (split.find("start") || split.find("end")) source.set("split", split_as_list(split));
  for (const Entry& entry : split.entries) {
    if (entry.key == "start" || entry.key == "end") continue;
    if (entry.key == "list" || entry.key == "hash" || entry.key == "part")
      source.set("split_" + entry.key, entry.value);
    else
      problems.add_about(fmt::format("{}.split.{}", path, printable(entry.key)), entry.key_place,
                         "is not a known key; known are start, end, list, hash and part");
  }
}

/// True for a map of exactly these keys.
bool has_keys(const Node& map, const std::vector<std::string>& keys) {
  return map.entries.size() == keys.size() &&
         std::all_of(keys.begin(), keys.end(),
                     [&](const std::string& key) { return map.find(key); });
}

/// {mean, std} -> mean, std; {percentile: range} -> normalize percentile, percentile range.
void expand_normalize(Node& source, const std::string& path, Problems& problems) {
  const Node* found = source.find("normalize");
  if (!found || !found->is_map()) return;
  const Node normalize = *found;
  std::erase_if(source.entries, [](const Entry& entry) { return entry.key == "normalize"; });
  const std::vector<std::string> scale{"mean", "std"}, range{"percentile"};
  if (!has_keys(normalize, scale) && !has_keys(normalize, range)) {
    problems.add_about(path + ".normalize", normalize.place,
                       "must be a word, {mean: [...], std: [...]} or {percentile: [low, high]} but "
                       "got another map");
    return;
  }
  if (has_keys(normalize, range))
    source.set("normalize", make_scalar("percentile", normalize.place));
  for (const Entry& entry : normalize.entries)
    if (source.find(entry.key))
      problems.add_about(path + "." + entry.key, entry.key_place, "is also given inside normalize");
    else
      source.set(entry.key, entry.value);
}

}  // namespace

void expand_shorthands(Node& root, Problems& problems) {
  for (const char* section : {"data", "eval"}) {
    Node* node = root.find(section);
    Node* sources = node ? node->find("sources") : nullptr;
    if (!sources || !sources->is_list()) continue;
    for (size_t i = 0; i < sources->items.size(); ++i) {
      expand_split(sources->items[i], fmt::format("{}.sources[{}]", section, i), problems);
      expand_normalize(sources->items[i], fmt::format("{}.sources[{}]", section, i), problems);
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
      {"class_token", "true", "kind", {"mae"}},  // He et al. 2022, arXiv:2111.06377
      {"pos_embed", "sincos", "kind", {"mae"}},  // the same
      {"loss", "masked_mse", "kind", {"mae"}},   // the same
      {"class_token", "false", "kind", {"unetr", "sap", "diffusion", "rat", "vit_detection"}},
      {"patch_size", "1", "kind", {"rat"}},  // a token for every pixel
      {"pos_embed", "learned", "kind", {"unetr", "sap"}},
      {"pos_embed", "sincos", "kind", {"diffusion"}},
      {"pos_embed", "none", "kind", {"rat"}},  // model.rat.position says where tokens lie
      {"num_classes", "2", "kind", {"unetr", "sap", "rat"}},  // background and one more
      {"num_classes", "0", "kind", {"diffusion"}},
      {"loss", "dice_ce", "kind", {"unetr", "sap"}},
      {"loss", "bce_dice", "kind", {"rat"}},
      {"loss", "mse", "kind", {"diffusion"}},
      {"loss", "boxes", "kind", {"vit_detection"}},
      {"num_classes", "80", "kind", {"vit_detection"}},  // COCO's
      {"decoder", "conv", "kind", {"unetr"}},
      {"decoder_embed_dim", "256", "kind", {"sap"}},
      {"pool", "avg", "class_token", {"false"}},  // there is nothing else to read
  };
  return table;
}

std::string condition_text(const std::string& on, const std::string& words) {
  return on == "kind" ? "for " + words : "without " + on;
}

namespace {

/// One channel for each variable.
void count_variables(Node& model) {
  const Node* variables = model.find("variables");
  if (!variables || !variables->is_list() || variables->items.empty() || model.find("in_channels"))
    return;
  model.set("in_channels", make_scalar(std::to_string(variables->items.size()),
                                       Place{"default with variables", 0, 0, false}));
}

}  // namespace

void apply_dependent_defaults(Node& root) {
  Node* model = root.find("model");
  if (!model || !model->is_map()) return;
  for (const DependentDefault& rule : dependent_defaults())
    for (const std::string& word : rule.words)
      if (says(*model, rule.on.c_str(), word) && !model->find(rule.key))
        model->set(rule.key,
                   make_scalar(rule.value,
                               Place{"default " + condition_text(rule.on, word), 0, 0, false}));
  count_variables(*model);
}

}  // namespace vitrail::config
