// Rules of the entries of data.sources and eval.sources.

#include <charconv>
#include <map>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "vitrail/config/node.h"
#include "vitrail/config/rules.h"

namespace vitrail::config {

namespace {

constexpr int64_t kMaxPixels = 4096;  // of crop:PAD and shift:PIXELS
constexpr int64_t kMaxSide = 65536;

/// A whole number >= 0 that fills `text`; -1 when it is none.
int64_t parse_count(std::string_view text) {
  int64_t value = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size() && !text.empty() ? value : -1;
}

std::string join(const std::vector<double>& values) {
  return fmt::format("[{}]", fmt::join(values, ", "));
}

void check_split(const std::vector<double>& split, const std::string& key, RuleBook& rules) {
  if (split.empty()) return;
  if (split.size() != 2 || split[0] < 0 || split[1] > 1 || split[0] >= split[1])
    rules.add({key}, fmt::format("{} must be [start, end] with 0 <= start < end <= 1 but got {}",
                                 key, join(split)));
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

void check_channels(const std::vector<double>& values, const Model& model, const std::string& key,
                    RuleBook& rules) {
  const auto count = static_cast<int64_t>(values.size());
  if (count > 1 && count != model.in_channels)
    rules.add({key, "model.in_channels"},
              fmt::format("{} must hold 1 or model.in_channels = {} numbers but holds {}", key,
                          model.in_channels, count));
}

void check_augment(const std::string& step, const std::string& key, RuleBook& rules) {
  if (step == "flip") return;
  const size_t colon = step.find(':');
  const std::string name = step.substr(0, colon);
  const bool known = name == "crop" || name == "shift";
  const int64_t pixels = known && colon != std::string::npos
                             ? parse_count(std::string_view(step).substr(colon + 1))
                             : -1;
  if (!known)
    rules.add({key}, fmt::format("{} must be flip, crop:PAD or shift:PIXELS but got '{}'", key,
                                 printable(step)));
  else if (pixels < 0 || pixels > kMaxPixels)
    rules.add({key}, fmt::format("{} must be {}:N with a whole number N from 0 to {} but got '{}'",
                                 key, name, kMaxPixels, printable(step)));
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

void check_source(const Source& source, const std::string& path, const Model& model,
                  RuleBook& rules) {
  check_root(source, path + ".root", rules);
  rules.above(path + ".weight", source.weight, 0);
  check_split(source.split, path + ".split", rules);
  check_resize(source.resize, model, path + ".resize", rules);
  check_channels(source.mean, model, path + ".mean", rules);
  check_channels(source.std, model, path + ".std", rules);
  for (size_t c = 0; c < source.std.size(); ++c)
    rules.above(fmt::format("{}.std[{}]", path, c), source.std[c], 0);
  for (size_t i = 0; i < source.augment.size(); ++i)
    check_augment(source.augment[i], fmt::format("{}.augment[{}]", path, i), rules);
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

void check_sources(const std::vector<Source>& sources, const std::string& section,
                   const Model& model, RuleBook& rules) {
  for (size_t i = 0; i < sources.size(); ++i)
    check_source(sources[i], fmt::format("{}.sources[{}]", section, i), model, rules);
  if (section == "eval") check_names(sources, rules);
}

}  // namespace vitrail::config
