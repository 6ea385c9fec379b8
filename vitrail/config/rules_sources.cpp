// Rules of the entries of data.sources and eval.sources.

#include <algorithm>
#include <charconv>
#include <map>
#include <set>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "vitrail/config/augment_steps.h"
#include "vitrail/config/limits.h"
#include "vitrail/config/node.h"
#include "vitrail/config/rules.h"

namespace vitrail::config {

namespace {

/// A whole number >= 0 that fills `text`; -1 when it is none.
int64_t parse_count(std::string_view text) {
  int64_t value = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size() && !text.empty() ? value : -1;
}

template <class T>
std::string listed(const std::vector<T>& values) {
  return fmt::format("[{}]", fmt::join(values, ", "));
}

void check_resize(const std::vector<int64_t>& resize, const Model& model, const std::string& key,
                  RuleBook& rules) {
  if (resize.empty()) return;
  if (resize.size() != model.image_size.size()) {
    rules.add({key, "model.image_size"},
              fmt::format("{} must have as many sides as model.image_size but got {} and {}", key,
                          resize.size(), model.image_size.size()));
    return;
  }
  for (size_t axis = 0; axis < resize.size(); ++axis) {
    const std::string side = fmt::format("{}[{}]", key, axis);
    if (rules.within(side, resize[axis], 1, kMaxSide) && resize[axis] < model.image_size[axis])
      rules.add({side, fmt::format("model.image_size[{}]", axis)},
                fmt::format("{} must be at least model.image_size[{}] but got {} and {}", side,
                            axis, resize[axis], model.image_size[axis]));
  }
}

/// One number for all channels, or one for each of the source's channels.
void check_channels(const std::vector<double>& values, const Source& source, const Model& model,
                    const std::string& path, const std::string& name, RuleBook& rules) {
  const auto count = static_cast<int64_t>(values.size());
  const bool chooses = !source.variables.empty();
  const auto channels = chooses ? static_cast<int64_t>(source.variables.size()) : model.in_channels;
  if (count <= 1 || count == channels) return;
  const std::string key = path + "." + name;
  if (chooses)
    rules.add({key, path + ".variables"},
              fmt::format("{} must hold 1 number or one for each of {}.variables, {}, but holds {}",
                          key, path, channels, count));
  else
    rules.add({key, "model.in_channels"},
              fmt::format("{} must hold 1 or model.in_channels = {} numbers but holds {}", key,
                          channels, count));
}

void check_root(const Source& source, const std::string& key, RuleBook& rules) {
  if (source.reader == "random") {
    if (!source.root.empty() && parse_count(source.root) < 1)
      rules.add(
          {key},
          fmt::format("{} of the reader random must be a number of samples or empty but got '{}'",
                      key, printable(source.root)));
  } else if (source.root.empty()) {
    rules.add({key}, fmt::format("{} must name the data of the reader {} but is empty", key,
                                 source.reader.value));
  }
}

void check_label_values(const Source& source, const std::string& path, const Model& model,
                        RuleBook& rules) {
  const std::vector<int64_t>& values = source.label_values;
  const std::string key = path + ".label_values";
  const auto count = static_cast<int64_t>(values.size());
  const bool has_masks =
      !source.labels.empty() || !source.label_array.empty() || holds_own_masks(source);
  if (count > 0 && !has_masks)
    rules.add(
        {key, path + ".labels"},
        fmt::format("{} needs {}.labels, whose values it names, but that is empty", key, path));
  if (static_cast<int64_t>(std::set<int64_t>(values.begin(), values.end()).size()) != count)
    rules.add({key}, fmt::format("{} must differ from each other but got {}", key, listed(values)));
  else if (count > 0 && segments(model) && !regresses(model) && count != model.num_classes)
    rules.add({key, "model.num_classes"},
              fmt::format("{} must hold model.num_classes = {} values but holds {}", key,
                          model.num_classes, count),
              {"model.kind"});
  const auto maps = static_cast<int64_t>(source.label_maps.size());
  if (maps > 0 && segments(model) && maps + 1 != model.num_classes)
    rules.add(
        {path + ".label_maps", "model.num_classes"},
        fmt::format("{}.label_maps must hold one map per class from 1 on, model.num_classes - "
                    "1 = {}, but holds {}",
                    path, model.num_classes - 1, maps),
        {"model.kind"});
}

void check_variables(const Source& source, const std::string& path, const Model& model,
                     RuleBook& rules) {
  std::set<std::string> seen;
  for (size_t i = 0; i < source.variables.size(); ++i) {
    const std::string key = fmt::format("{}.variables[{}]", path, i);
    const std::string& name = source.variables[i];
    if (std::find(model.variables.begin(), model.variables.end(), name) == model.variables.end())
      rules.add({key, "model.variables"},
                fmt::format("{} must be one of model.variables [{}] but got '{}'", key,
                            fmt::join(model.variables, ", "), printable(name)));
    else if (!seen.insert(name).second)
      rules.add({key}, fmt::format("{} repeats '{}'; name each variable once", key, name));
  }
}

void check_percentile(const Source& source, const std::string& path, RuleBook& rules) {
  const std::vector<double>& range = source.percentile;
  const std::string key = path + ".percentile";
  if (source.normalize == "percentile") {
    if (range.size() != 2 || range[0] < 0 || range[0] >= range[1] || range[1] > 100)
      rules.add({key},
                fmt::format("{} must be [low, high] with 0 <= low < high <= 100 for normalize "
                            "percentile but got {}",
                            key, listed(range)),
                {path + ".normalize"});
  } else if (!range.empty()) {
    rules.add({key, path + ".normalize"},
              fmt::format("{} needs {}.normalize percentile but it is {}", key, path,
                          source.normalize.value));
  }
}

/// Every step by itself, then, once all can be read, what they are as a list.
void check_augment(const Source& source, const std::string& path, const Model& model,
                   RuleBook& rules) {
  std::vector<AugmentStep> steps;
  const auto add = [&](size_t step, const std::string& problem,
                       const std::vector<std::string>& context) {
    const std::string key = fmt::format("{}.augment[{}]", path, step);
    rules.add({key}, fmt::format("{} '{}' {}", key, printable(source.augment[step]), problem),
              context);
  };
  for (size_t i = 0; i < source.augment.size(); ++i) {
    const ParsedAugmentStep parsed = parse_augment_step(source.augment[i]);
    if (parsed.problem.empty())
      steps.push_back(parsed.step);
    else
      add(i, parsed.problem, {});
  }
  if (steps.size() != source.augment.size()) return;
  AugmentUse use;
  use.start_sides = source.resize.size() == model.image_size.size() ? source.resize
                                                                    : model.image_size;
  use.target_sides = model.image_size;
  use.channels = source.variables.empty() ? model.in_channels
                                          : static_cast<int64_t>(source.variables.size());
  use.has_masks = segments(model) && !regresses(model);
  use.has_boxes = detects(model);
  use.has_unit_range = !(source.normalize == "none");
  for (const AugmentProblem& problem : check_augment_list(steps, use))
    add(problem.step, problem.text,
        {"model.image_size", "model.in_channels", "model.kind", path + ".normalize"});
}

void check_source(const Source& source, const std::string& path, const Model& model,
                  RuleBook& rules) {
  check_root(source, path + ".root", rules);
  check_format(source, path, model, rules);
  check_label_values(source, path, model, rules);
  check_variables(source, path, model, rules);
  rules.above(path + ".weight", source.weight, 0);
  check_windows(source, path, model, rules);
  check_percentile(source, path, rules);
  check_resize(source.resize, model, path + ".resize", rules);
  check_channels(source.mean, source, model, path, "mean", rules);
  check_channels(source.std, source, model, path, "std", rules);
  for (size_t c = 0; c < source.std.size(); ++c)
    rules.above(fmt::format("{}.std[{}]", path, c), source.std[c], 0);
  check_augment(source, path, model, rules);
}

/// A batch may take its samples from any of the sources.
void check_same_variables(const std::vector<Source>& sources, RuleBook& rules) {
  for (size_t i = 1; i < sources.size(); ++i)
    if (sources[i].variables != sources[0].variables)
      rules.add(
          {fmt::format("data.sources[{}].variables", i), "data.sources[0].variables"},
          fmt::format("data.sources[{}].variables must be those of data.sources[0] but got {} "
                      "and {}",
                      i, listed(sources[i].variables), listed(sources[0].variables)));
}

/// Metrics are reported by name, so two splits cannot share one.
void check_names(const std::vector<Source>& sources, RuleBook& rules) {
  std::map<std::string, size_t> first;
  for (size_t i = 0; i < sources.size(); ++i) {
    const std::string& name = sources[i].name.empty() ? sources[i].reader.value : sources[i].name;
    const auto [at, is_new] = first.emplace(name, i);
    if (!is_new)
      rules.add(
          {fmt::format("eval.sources[{}].name", i)},
          fmt::format(
              "eval.sources[{}].name must differ from that of eval.sources[{}] but both are '{}'",
              i, at->second, printable(name)));
  }
}

}  // namespace

void check_objective_data(const std::vector<Source>& sources, const std::string& section,
                          const Model& model, RuleBook& rules) {
  const bool can =
      model.kind == "vit" || (model.kind == "rat" && model.rat.head == "classification");
  const bool classifies = can && model.num_classes > 0 && !regresses(model);
  for (size_t i = 0; i < sources.size(); ++i) {
    const Source& source = sources[i];
    const std::string path = fmt::format("{}.sources[{}]", section, i);
    if (source.reader == "random") continue;  // it has labels for every kind of model
    if (segments(model) && source.labels.empty() && source.label_maps.empty() &&
        source.label_array.empty() && !holds_own_masks(source))
      rules.add({path + ".labels"},
                fmt::format("{}.labels must name the {} to train or evaluate {} but is empty", path,
                            regresses(model) ? "values" : "masks", model.kind.value),
                {"model.kind", path + ".reader", path + ".label_maps"});
    if (detects(model) && !(source.reader == "coco" || source.reader == "voc"))
      rules.add({path + ".reader"},
                fmt::format("{}.reader must be a format with boxes (coco, voc, random) to train or "
                            "evaluate a model that finds boxes but {} holds none",
                            path, source.reader.value),
                {"model.kind"});
    if (classifies && holds_no_classes(source))
      rules.add({path + ".reader"},
                fmt::format("{}.reader must be a format with classes (image_folder, image_list, "
                            "cifar, idx, nifti, npy, zarr, n5, tar, digits, random) to train or "
                            "evaluate a classifier but {} holds none",
                            path, source.reader.value),
                {"model.kind", "model.num_classes"});
  }
}

void check_sources(const std::vector<Source>& sources, const std::string& section, bool mixes,
                   const Model& model, RuleBook& rules) {
  for (size_t i = 0; i < sources.size(); ++i)
    check_source(sources[i], fmt::format("{}.sources[{}]", section, i), model, rules);
  if (mixes) check_same_variables(sources, rules);
  if (section == "eval") check_names(sources, rules);
}

}  // namespace vitrail::config
