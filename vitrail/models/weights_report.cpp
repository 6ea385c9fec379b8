#include "vitrail/models/weights_report.h"

#include <algorithm>
#include <map>

#include <fmt/ranges.h>

#include "vitrail/core/error.h"

namespace vitrail::models {
namespace {

/// 0, 1, 2, 5 -> "0-2, 5"
std::string ranges_of(std::vector<int64_t> numbers) {
  std::ranges::sort(numbers);
  std::vector<std::string> parts;
  for (size_t i = 0; i < numbers.size();) {
    size_t last = i;
    while (last + 1 < numbers.size() && numbers[last + 1] <= numbers[last] + 1) ++last;
    parts.push_back(last == i ? fmt::format("{}", numbers[i])
                              : fmt::format("{}-{}", numbers[i], numbers[last]));
    i = last + 1;
  }
  return fmt::format("{}", fmt::join(parts, ", "));
}

/// "blocks.", 3, ".norm1.bias"; none without a number between dots.
struct Numbered {
  std::string before, after;
  int64_t number = -1;
};

Numbered take_apart(const std::string& name) {
  for (size_t dot = name.find('.'); dot != std::string::npos; dot = name.find('.', dot + 1)) {
    const size_t end = name.find_first_not_of("0123456789", dot + 1);
    const size_t digits = std::min(end, name.size()) - dot - 1;
    if (digits == 0 || digits > 9 || (end != std::string::npos && name[end] != '.')) continue;
    return {name.substr(0, dot + 1), name.substr(dot + 1 + digits),
            std::stoll(name.substr(dot + 1, digits))};
  }
  return {name, "", -1};
}

/// "; 3 missing: a, b, c", or nothing.
std::string clause(const char* what, const std::vector<std::string>& names) {
  return names.empty()
             ? ""
             : fmt::format("; {} {}: {}", names.size(), what, fmt::join(compact(names), ", "));
}

std::vector<std::string> names_of(const std::vector<std::pair<std::string, std::string>>& changed) {
  std::vector<std::string> names;
  for (const auto& [name, what] : changed)
    if (std::ranges::find(names, name) == names.end()) names.push_back(name);
  return names;
}

std::string first_few(const std::vector<std::string>& texts) {
  constexpr size_t kShown = 4;
  const size_t shown = std::min(texts.size(), kShown);
  std::string text = fmt::format("{}", fmt::join(texts.begin(), texts.begin() + shown, ", "));
  if (texts.size() > shown) text += fmt::format(" and {} more", texts.size() - shown);
  return text;
}

bool any_starts_with(const std::vector<std::string>& names, const std::string& prefix) {
  return std::ranges::any_of(names,
                             [&](const std::string& name) { return name.starts_with(prefix); });
}

}  // namespace

std::vector<std::string> compact(const std::vector<std::string>& names) {
  std::vector<std::pair<std::string, std::string>> order;
  std::map<std::pair<std::string, std::string>, std::vector<int64_t>> numbers;
  for (const std::string& name : names) {
    const Numbered part = take_apart(name);
    const std::pair key(part.before, part.after);
    if (!numbers.contains(key)) order.push_back(key);
    numbers[key].push_back(part.number);
  }
  std::vector<std::string> result;
  for (const auto& key : order) {
    const std::vector<int64_t>& found = numbers[key];
    if (found.size() == 1)
      result.push_back(key.first + (found[0] < 0 ? "" : fmt::format("{}", found[0])) + key.second);
    else
      result.push_back(fmt::format("{}[{}]{}", key.first, ranges_of(found), key.second));
  }
  return result;
}

std::string LoadReport::describe() const {
  return fmt::format(
      "{}: {} tensors loaded{}{}{}{}{}", source, loaded, clause("adapted", names_of(changed)),
      clause("unused", unused), clause("missing", missing), clause("unexpected", unexpected),
      mismatched.empty() ? ""
                         : fmt::format("; {} of another shape: {}", mismatched.size(),
                                       fmt::join(mismatched, ", ")));
}

std::vector<std::string> LoadReport::lines() const {
  std::vector<std::string> lines{fmt::format(
      "{}: {} tensors loaded, {} missing, {} unexpected, {} of another shape, {} unused", source,
      loaded, missing.size(), unexpected.size(), mismatched.size(), unused.size())};
  for (const auto& [name, what] : changed) lines.push_back(fmt::format("  {}: {}", name, what));
  const auto add = [&](const char* what, const std::vector<std::string>& names) {
    for (const std::string& name : names) lines.push_back(fmt::format("  {} {}", what, name));
  };
  add("missing", missing);
  add("unexpected", unexpected);
  add("of another shape:", mismatched);
  add("unused", unused);
  return lines;
}

void check_complete(const LoadReport& report, bool adapted) {
  const std::string adapt = adapted
                                ? ""
                                : "model.weights.adapt=true fits positions, patches, channels and "
                                  "a head of other classes; ";
  VT_REQUIRE(CheckpointError, report.mismatched.empty(),
             "[weights] {}: {}; model.image_size, patch_size, num_classes and sizes must be those "
             "of the file, or: {}model.weights.strict=false skips such tensors",
             report.source, first_few(report.mismatched), adapt);
  const bool decoder = any_starts_with(report.unexpected, "decoder_");
  VT_REQUIRE(CheckpointError, report.complete(),
             "[weights] {} must hold exactly the model's tensors{}{}; {}model.weights.strict=false "
             "loads what matches{}",
             report.source, clause("missing", report.missing),
             clause("unexpected", report.unexpected), decoder ? "" : adapt,
             decoder ? ", as for a masked autoencoder that starts another model" : "");
}

}  // namespace vitrail::models
