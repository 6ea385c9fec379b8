#include "vitrail/config/augment_steps.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <set>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "vitrail/config/limits.h"

namespace vitrail::config {
namespace {

struct Number {
  double low, high;
  bool is_whole = false;
};

/// How a step is written. `allowed` lists how many numbers it may have; `defaults` fills what is
/// left out.
struct Form {
  AugmentKind kind;
  const char* name;
  const char* form;
  std::vector<Number> numbers = {};
  std::set<size_t> allowed = {0};
  std::vector<double> defaults = {};
  std::vector<std::string> words = {};
  bool needs_word = false;
};

constexpr double kPixels = static_cast<double>(kMaxPixels);
// Above five pixels the kernel of a blur would not fit into a slot of the plan.
constexpr double kMostSigma = 5;

const std::vector<Form>& forms() {
  using enum AugmentKind;
  static const std::vector<Form> table = {
      {flip, "flip", "flip"},
      {flips, "flips", "flips"},
      {rot90, "rot90", "rot90"},
      {rot90_3d, "rot90_3d", "rot90_3d"},
      {crop, "crop", "crop:PAD", {{0, kPixels, true}}, {1}},
      {shift, "shift", "shift:PIXELS", {{0, kPixels, true}}, {1}},
      {resized_crop,
       "resized_crop",
       "resized_crop[:MIN:MAX[:RATIO_LOW:RATIO_HIGH]]",
       {{1e-4, 1}, {1e-4, 1}, {0.01, 100}, {0.01, 100}},
       {0, 2, 4},
       {0.08, 1.0, 3.0 / 4.0, 4.0 / 3.0}},
      {affine,
       "affine",
       "affine:DEGREES:TRANSLATE:SCALE_LOW:SCALE_HIGH[:SHEAR]",
       {{0, 180}, {0, 1}, {0.01, 100}, {0.01, 100}, {0, 80}},
       {4, 5},
       {0, 0, 1, 1, 0}},
      {color_jitter,
       "color_jitter",
       "color_jitter:BRIGHTNESS:CONTRAST:SATURATION:HUE",
       {{0, 10}, {0, 10}, {0, 10}, {0, 0.5}},
       {4}},
      {gray, "gray", "gray:P", {{0, 1}}, {1}},
      {solarize, "solarize", "solarize:P[:THRESHOLD]", {{0, 1}, {0, 1}}, {1, 2}, {0, 0.5}},
      {blur, "blur", "blur:SIGMA_MAX[:P]", {{0.1, kMostSigma}, {0, 1}}, {1, 2}, {0, 1}},
      {randaugment, "randaugment", "randaugment:N:M", {{1, 8, true}, {0, 30, true}}, {2}},
      {trivialaugment, "trivialaugment", "trivialaugment"},
      {autoaugment,
       "autoaugment",
       "autoaugment:cifar10 or autoaugment:imagenet",
       {},
       {0},
       {},
       {"cifar10", "imagenet"},
       true},
      {intensity, "intensity", "intensity:SHIFT:SCALE", {{0, 1e6}, {0, 1}}, {2}},
      {gamma, "gamma", "gamma:LOW:HIGH", {{0.01, 100}, {0.01, 100}}, {2}},
      {noise, "noise", "noise:STD", {{0, 1e6}}, {1}},
      {erasing, "erasing", "erasing:P or erasing:P:noise", {{0, 1}}, {1}, {}, {"noise"}},
      {mixup, "mixup", "mixup:ALPHA", {{0.01, 100}}, {1}},
      {cutmix, "cutmix", "cutmix:ALPHA", {{0.01, 100}}, {1}},
  };
  return table;
}

const Form& form_of(AugmentKind kind) {
  return *std::find_if(forms().begin(), forms().end(),
                       [&](const Form& form) { return form.kind == kind; });
}

std::vector<std::string_view> parts_of(std::string_view text) {
  std::vector<std::string_view> parts;
  for (;;) {
    const size_t colon = text.find(':');
    parts.push_back(text.substr(0, colon));
    if (colon == std::string_view::npos) return parts;
    text.remove_prefix(colon + 1);
  }
}

bool parse_number(std::string_view text, double& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size() && std::isfinite(value);
}

std::string known_steps() {
  std::vector<std::string> names;
  for (const Form& form : forms()) names.emplace_back(form.form);
  return fmt::format("is not known; the known steps are {}", fmt::join(names, ", "));
}

std::string numbers_problem(const Form& form, const std::vector<double>& numbers) {
  if (!form.allowed.count(numbers.size()))
    return fmt::format("needs {} number(s) but has {}; it is written {}",
                       fmt::join(form.allowed, " or "), numbers.size(), form.form);
  for (size_t i = 0; i < numbers.size(); ++i) {
    const Number& range = form.numbers[i];
    const bool is_in = numbers[i] >= range.low && numbers[i] <= range.high &&
                       (!range.is_whole || numbers[i] == std::floor(numbers[i]));
    if (!is_in)
      return fmt::format("needs a {}number from {} to {} as number {} but got {}; it is written {}",
                         range.is_whole ? "whole " : "", range.low, range.high, i + 1, numbers[i],
                         form.form);
  }
  return {};
}

/// Pairs of a least and a largest value, by their places in the numbers.
std::string order_problem(const AugmentStep& step) {
  const auto check = [&](size_t low) -> std::string {
    if (step.numbers[low] <= step.numbers[low + 1]) return {};
    return fmt::format(
        "needs number {} to be at most number {} but got {} and {}; it is written {}", low + 1,
        low + 2, step.numbers[low], step.numbers[low + 1], form_of(step.kind).form);
  };
  switch (step.kind) {
    case AugmentKind::resized_crop: {
      const std::string first = check(0);
      return first.empty() ? check(2) : first;
    }
    case AugmentKind::affine:
      return check(2);
    case AugmentKind::gamma:
      return check(0);
    default:
      return {};
  }
}

std::string sides_problem(const AugmentStep& step, const std::vector<int64_t>& sides) {
  const size_t n = sides.size();
  switch (step.kind) {
    case AugmentKind::rot90:
      if (sides[n - 1] != sides[n - 2])
        return fmt::format(
            "needs the last two sides to be equal but got {} and {}; make model.image_size (and "
            "resize) "
            "square",
            sides[n - 2], sides[n - 1]);
      return {};
    case AugmentKind::rot90_3d:
      if (n != 3 || sides[0] != sides[1] || sides[1] != sides[2])
        return fmt::format("needs a cube but the sides are {}", fmt::join(sides, " x "));
      return {};
    case AugmentKind::randaugment:
    case AugmentKind::trivialaugment:
    case AugmentKind::autoaugment:
      if (n != 2) return fmt::format("is for images of 2 sides but model.image_size has {}", n);
      return {};
    default:
      return {};
  }
}

bool changes_colours(const AugmentStep& step) {
  switch (step.kind) {
    case AugmentKind::color_jitter:
    case AugmentKind::gray:
    case AugmentKind::solarize:
    case AugmentKind::randaugment:
    case AugmentKind::trivialaugment:
    case AugmentKind::autoaugment:
    case AugmentKind::gamma:
      return true;
    default:
      return false;
  }
}

std::string use_problem(const AugmentStep& step, const AugmentUse& use) {
  const bool needs_rgb =
      step.kind == AugmentKind::gray ||
      (step.kind == AugmentKind::color_jitter && (step.numbers[2] > 0 || step.numbers[3] > 0));
  if (needs_rgb && use.channels != 3)
    return fmt::format("needs 3 channels (red, green, blue) but there are {}{}", use.channels,
                       step.kind == AugmentKind::gray ? "" : "; set SATURATION and HUE to 0");
  if (changes_colours(step) && !use.has_unit_range)
    return "needs values in [0, 1] but source.normalize is none; use unit, minmax or percentile";
  if (step.kind == AugmentKind::mixup && use.has_masks)
    return "cannot blend masks, whose pixels are classes; cutmix can";
  if ((step.kind == AugmentKind::mixup || step.kind == AugmentKind::cutmix) && use.has_boxes)
    return "puts another sample's pixels into an image but not its boxes; leave it out where boxes "
           "are learnt";
  return {};
}

std::string place_problem(const std::vector<AugmentStep>& steps, size_t i) {
  if (!is_final(steps[i].kind)) {
    for (size_t before = 0; before < i; ++before)
      if (is_final(steps[before].kind))
        return fmt::format("must come before {}, which is done to the finished image",
                           name_of(steps[before].kind));
    return {};
  }
  for (size_t before = 0; before < i; ++before)
    if (steps[before].kind == steps[i].kind) return "is there twice";
  return {};
}

}  // namespace

ParsedAugmentStep parse_augment_step(std::string_view text) {
  const std::vector<std::string_view> parts = parts_of(text);
  const auto found = std::find_if(forms().begin(), forms().end(),
                                  [&](const Form& form) { return parts[0] == form.name; });
  if (found == forms().end()) return {{}, known_steps()};
  const Form& form = *found;
  AugmentStep step{form.kind, {}, {}};
  for (size_t i = 1; i < parts.size(); ++i) {
    double value = 0;
    const bool is_word =
        std::find(form.words.begin(), form.words.end(), parts[i]) != form.words.end();
    if (is_word && i + 1 == parts.size())
      step.word = parts[i];
    else if (parse_number(parts[i], value))
      step.numbers.push_back(value);
    else
      return {step, fmt::format("is not written {}", form.form)};
  }
  if (form.needs_word && step.word.empty())
    return {step, fmt::format("needs a word; it is written {}", form.form)};
  if (std::string problem = numbers_problem(form, step.numbers); !problem.empty())
    return {step, problem};
  for (size_t i = step.numbers.size(); i < form.defaults.size(); ++i)
    step.numbers.push_back(form.defaults[i]);
  return {step, order_problem(step)};
}

std::vector<AugmentProblem> check_augment_list(const std::vector<AugmentStep>& steps,
                                               const AugmentUse& use) {
  std::vector<AugmentProblem> problems;
  std::vector<int64_t> sides = use.start_sides;
  for (size_t i = 0; i < steps.size(); ++i) {
    std::string text = place_problem(steps, i);
    if (text.empty()) text = sides_problem(steps[i], sides);
    if (text.empty()) text = use_problem(steps[i], use);
    if (!text.empty()) problems.push_back({i, text});
    if (steps[i].kind == AugmentKind::crop || steps[i].kind == AugmentKind::resized_crop)
      sides = use.target_sides;
  }
  return problems;
}

bool is_exact(AugmentKind kind) {
  switch (kind) {
    case AugmentKind::flip:
    case AugmentKind::flips:
    case AugmentKind::rot90:
    case AugmentKind::rot90_3d:
    case AugmentKind::crop:
    case AugmentKind::shift:
      return true;
    default:
      return false;
  }
}

bool is_final(AugmentKind kind) {
  return kind == AugmentKind::erasing || kind == AugmentKind::mixup || kind == AugmentKind::cutmix;
}

const char* name_of(AugmentKind kind) { return form_of(kind).name; }

bool mixes_pairs(const std::vector<std::string>& steps) {
  return std::any_of(steps.begin(), steps.end(), [](const std::string& text) {
    const ParsedAugmentStep parsed = parse_augment_step(text);
    return parsed.problem.empty() &&
           (parsed.step.kind == AugmentKind::mixup || parsed.step.kind == AugmentKind::cutmix);
  });
}

}  // namespace vitrail::config
