// Rules of the entries of data.sources and eval.sources.

#include <algorithm>
#include <charconv>
#include <map>
#include <set>

#include <fmt/format.h>
#include <fmt/ranges.h>

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

void check_split(const std::vector<double>& split, const std::string& key, RuleBook& rules) {
  if (split.empty()) return;
  if (split.size() != 2 || split[0] < 0 || split[1] > 1 || split[0] >= split[1])
    rules.add({key}, fmt::format("{} must be [start, end] with 0 <= start < end <= 1 but got {}",
                                 key, listed(split)));
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

/// Images have two sides and stacks of them three.
void check_sides(const Source& source, const std::string& path, const Model& model,
                 RuleBook& rules) {
  const size_t sides = model.image_size.size();
  const std::string key = path + ".reader";
  const bool flat =
      source.reader == "image_folder" || source.reader == "images" || source.reader == "digits";
  if (flat && sides == 3)
    rules.add(
        {key, "model.image_size"},
        fmt::format(
            "{} {} reads images of 2 sides but model.image_size has 3{}", key, source.reader.value,
            source.reader == "images" ? "; the reader image_stack makes volumes of them" : ""));
  if (source.reader == "image_stack" && sides == 2 && !source.slices)
    rules.add({key, "model.image_size"},
              fmt::format("{} image_stack reads volumes of 3 sides but model.image_size has 2; set "
                          "{}.slices or use the reader images",
                          key, path),
              {path + ".slices"});
}

void check_label_files(const Source& source, const std::string& path, RuleBook& rules) {
  const std::string& reader = source.reader.value;
  const bool reads_masks = reader == "images" || reader == "image_stack" || reader == "nifti";
  if (!source.labels.empty() && !reads_masks)
    rules.add({path + ".labels", path + ".reader"},
              fmt::format("{0}.labels needs the reader images, image_stack or nifti but it is {1}",
                          path, reader));
  if (!source.label_maps.empty() && reader != "nifti")
    rules.add({path + ".label_maps", path + ".reader"},
              fmt::format("{}.label_maps needs the reader nifti but it is {}", path, reader));
  if (!source.label_maps.empty() && !source.labels.empty())
    rules.add(
        {path + ".label_maps", path + ".labels"},
        fmt::format("{0}.label_maps and {0}.labels exclude each other but both are given", path));
}

void check_label_values(const Source& source, const std::string& path, const Model& model,
                        RuleBook& rules) {
  const std::vector<int64_t>& values = source.label_values;
  const std::string key = path + ".label_values";
  const auto count = static_cast<int64_t>(values.size());
  if (count > 0 && source.labels.empty())
    rules.add(
        {key, path + ".labels"},
        fmt::format("{} needs {}.labels, whose values it names, but that is empty", key, path));
  if (static_cast<int64_t>(std::set<int64_t>(values.begin(), values.end()).size()) != count)
    rules.add({key}, fmt::format("{} must differ from each other but got {}", key, listed(values)));
  else if (count > 0 && segments(model) && count != model.num_classes)
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

void check_source(const Source& source, const std::string& path, const Model& model,
                  RuleBook& rules) {
  check_root(source, path + ".root", rules);
  check_sides(source, path, model, rules);
  check_label_files(source, path, rules);
  check_label_values(source, path, model, rules);
  check_variables(source, path, model, rules);
  rules.above(path + ".weight", source.weight, 0);
  check_split(source.split, path + ".split", rules);
  check_windows(source, path, model, rules);
  check_percentile(source, path, rules);
  check_resize(source.resize, model, path + ".resize", rules);
  check_channels(source.mean, source, model, path, "mean", rules);
  check_channels(source.std, source, model, path, "std", rules);
  for (size_t c = 0; c < source.std.size(); ++c)
    rules.above(fmt::format("{}.std[{}]", path, c), source.std[c], 0);
  for (size_t i = 0; i < source.augment.size(); ++i)
    check_augment(source.augment[i], model, fmt::format("{}.augment[{}]", path, i), rules);
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

void check_augment(const std::string& step, const Model& model, const std::string& key,
                   RuleBook& rules) {
  if (step == "flip" || step == "flips") return;
  if (step == "rot90") {
    const std::vector<int64_t>& sides = model.image_size;
    if (sides.size() >= 2 && sides[sides.size() - 1] != sides[sides.size() - 2])
      rules.add({key, "model.image_size"},
                fmt::format("{} rot90 needs the last two sides of model.image_size to be equal but "
                            "they are {} and {}",
                            key, sides[sides.size() - 2], sides[sides.size() - 1]));
    return;
  }
  const size_t colon = step.find(':');
  const std::string name = step.substr(0, colon);
  const bool known = name == "crop" || name == "shift";
  const int64_t pixels = known && colon != std::string::npos
                             ? parse_count(std::string_view(step).substr(colon + 1))
                             : -1;
  if (!known)
    rules.add({key},
              fmt::format("{} must be flip, flips, rot90, crop:PAD or shift:PIXELS but got '{}'",
                          key, printable(step)));
  else if (pixels < 0 || pixels > kMaxPixels)
    rules.add({key}, fmt::format("{} must be {}:N with a whole number N from 0 to {} but got '{}'",
                                 key, name, kMaxPixels, printable(step)));
}

void check_objective_data(const std::vector<Source>& sources, const std::string& section,
                          const Model& model, RuleBook& rules) {
  const bool classifies = model.kind == "vit" && model.num_classes > 0;
  for (size_t i = 0; i < sources.size(); ++i) {
    const Source& source = sources[i];
    const std::string path = fmt::format("{}.sources[{}]", section, i);
    if (source.reader == "random") continue;  // it has labels for every kind of model
    if (segments(model) && source.labels.empty() && source.label_maps.empty())
      rules.add({path + ".labels"},
                fmt::format("{}.labels must name the masks to train or evaluate {} but is empty",
                            path, model.kind.value),
                {"model.kind", path + ".reader", path + ".label_maps"});
    if (classifies && (source.reader == "images" || source.reader == "image_stack"))
      rules.add({path + ".reader"},
                fmt::format("{}.reader must be image_folder, nifti, digits or random to train or "
                            "evaluate a classifier but {} holds no classes",
                            path, source.reader.value),
                {"model.kind", "model.num_classes"});
  }
}

void check_sources(const std::vector<Source>& sources, const std::string& section,
                   const Model& model, RuleBook& rules) {
  for (size_t i = 0; i < sources.size(); ++i)
    check_source(sources[i], fmt::format("{}.sources[{}]", section, i), model, rules);
  // Training deals its batches from all sources together, evaluation takes them one by one.
  if (section == "data") check_same_variables(sources, rules);
  if (section == "eval") check_names(sources, rules);
}

}  // namespace vitrail::config
