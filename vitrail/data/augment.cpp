#include "vitrail/data/augment.h"

#include <algorithm>
#include <cmath>

#include "vitrail/core/error.h"
#include "vitrail/data/augment_draws.h"

namespace vitrail::data {
namespace {

core::Stream stream_of(AugmentKind kind) {
  switch (kind) {
    case AugmentKind::flip:
    case AugmentKind::flips:
      return core::Stream::flip;
    case AugmentKind::crop:
    case AugmentKind::resized_crop:
      return core::Stream::crop;
    default:
      return core::Stream::augment;
  }
}

/// The k-th of the 24 rotations of a cube: an order of the axes and which of them are mirrored, an
/// even number of times together.
void rotate(std::vector<AxisMap>& axes, int64_t k) {
  static constexpr size_t kOrders[6][3] = {{0, 1, 2}, {1, 2, 0}, {2, 0, 1},
                                           {0, 2, 1}, {2, 1, 0}, {1, 0, 2}};
  const int64_t order = k / 4;
  const bool is_odd = order >= 3, first = k & 1, second = k & 2;
  const bool mirrors[3] = {first, second, (first != second) != is_odd};
  const std::vector<AxisMap> before = axes;
  for (size_t axis = 0; axis < 3; ++axis) {
    axes[axis] = before[kOrders[order][axis]];
    if (mirrors[axis]) axes[axis] = axes[axis].mirrored();
  }
}

/// A window of `share` of the image; its sides may be larger than the image's. 2 sides: `ratio` is
/// width to height in pixels.
std::vector<int64_t> sides_of_share(const std::vector<int64_t>& sides, double share,
                                    double ratio_low, double ratio_high, PlanDraws& draws) {
  const auto log_ratio = [&] { return draws.uniform(std::log(ratio_low), std::log(ratio_high)); };
  std::vector<int64_t> result;
  if (sides.size() == 2) {
    const double area = static_cast<double>(sides[0]) * static_cast<double>(sides[1]) * share;
    const double ratio = std::exp(log_ratio());
    return {std::llround(std::sqrt(area / ratio)), std::llround(std::sqrt(area * ratio))};
  }
  std::vector<double> logs;
  double mean = 0;
  for (size_t axis = 0; axis < sides.size(); ++axis) {
    logs.push_back(log_ratio());
    mean += logs.back() / static_cast<double>(sides.size());
  }
  const double scale = std::pow(share, 1.0 / static_cast<double>(sides.size()));
  for (size_t axis = 0; axis < sides.size(); ++axis)
    result.push_back(
        std::llround(static_cast<double>(sides[axis]) * scale * std::exp(logs[axis] - mean)));
  return result;
}

/// torchvision's fall-back: the largest window in the middle whose ratio is permitted.
CropBox central_window(const AugmentStep& step, const std::vector<int64_t>& sides) {
  CropBox box{std::vector<int64_t>(sides.size(), 0), sides};
  if (sides.size() != 2) return box;
  const double ratio = static_cast<double>(sides[1]) / static_cast<double>(sides[0]);
  if (ratio < step.numbers[2])
    box.sides[0] = std::llround(static_cast<double>(sides[1]) / step.numbers[2]);
  else if (ratio > step.numbers[3])
    box.sides[1] = std::llround(static_cast<double>(sides[0]) * step.numbers[3]);
  for (size_t axis = 0; axis < 2; ++axis) {
    box.sides[axis] = std::clamp<int64_t>(box.sides[axis], 1, sides[axis]);
    box.origin[axis] = (sides[axis] - box.sides[axis]) / 2;
  }
  return box;
}

}  // namespace

StepList parse_augment(const std::vector<std::string>& steps, const std::string& source) {
  StepList list;
  for (const std::string& text : steps) {
    config::ParsedAugmentStep parsed = config::parse_augment_step(text);
    VT_REQUIRE(ConfigError, parsed.problem.empty(), "[data] source '{}': augment step '{}' {}",
               source, text, parsed.problem);
    list.steps.push_back(std::move(parsed.step));
  }
  const bool has_window = !list.steps.empty() && list.steps[0].kind == AugmentKind::resized_crop;
  list.first_exact = has_window ? 1 : 0;
  list.first_device = list.first_exact;
  while (list.needs_device() && is_exact(list.steps[list.first_device].kind)) ++list.first_device;
  return list;
}

void check_augment(const StepList& list, const config::AugmentUse& use,
                   const std::vector<std::string>& texts, const std::string& source) {
  const std::vector<config::AugmentProblem> problems = config::check_augment_list(list.steps, use);
  VT_REQUIRE(ConfigError, problems.empty(), "[data] source '{}': augment step '{}' {}", source,
             texts[problems[0].step], problems[0].text);
}

AxisMap AxisMap::mirrored() const {
  return {size, start + step * (size - 1), -step, size - high, size - low, axis};
}

AxisMap AxisMap::window(int64_t offset, int64_t window_size) const {
  const int64_t inside_low = std::clamp<int64_t>(low - offset, 0, window_size);
  const int64_t inside_high = std::clamp<int64_t>(high - offset, inside_low, window_size);
  return {window_size, start + step * offset, step, inside_low, inside_high, axis};
}

std::vector<int64_t> draw_step(const AugmentStep& step, uint16_t layer, const AugmentPlace& place,
                               const std::vector<int64_t>& sides,
                               const std::vector<int64_t>& target) {
  PlanDraws draws(stream_of(step.kind), layer, place);
  if (step.kind == AugmentKind::flip || step.kind == AugmentKind::rot90) return {draws.below(2)};
  if (step.kind == AugmentKind::rot90_3d) return {draws.below(24)};
  std::vector<int64_t> drawn;
  for (size_t axis = 0; axis < sides.size(); ++axis) {
    const int64_t room = step.kind == AugmentKind::crop ? sides[axis] - target[axis] : 0;
    drawn.push_back(step.kind == AugmentKind::flips
                        ? draws.below(2)
                        : draws.below(room + 2 * step.amount() + 1) - step.amount());
  }
  return drawn;
}

void apply_step(std::vector<AxisMap>& axes, const AugmentStep& step,
                const std::vector<int64_t>& drawn, const std::vector<int64_t>& target) {
  switch (step.kind) {
    case AugmentKind::flip:
      if (drawn[0] == 1) axes.back() = axes.back().mirrored();
      break;
    case AugmentKind::flips:
      for (size_t axis = 0; axis < axes.size(); ++axis)
        if (drawn[axis] == 1) axes[axis] = axes[axis].mirrored();
      break;
    case AugmentKind::rot90:
      if (drawn[0] == 1) std::swap(axes[axes.size() - 2], axes[axes.size() - 1]);
      break;
    case AugmentKind::rot90_3d:
      rotate(axes, drawn[0]);
      break;
    default:  // crop and shift
      for (size_t axis = 0; axis < axes.size(); ++axis)
        axes[axis] = axes[axis].window(
            drawn[axis], step.kind == AugmentKind::crop ? target[axis] : axes[axis].size);
  }
}

void augment(std::vector<AxisMap>& axes, const StepList& list, const AugmentPlace& place,
             const std::vector<int64_t>& target) {
  for (size_t layer = list.first_exact; layer < list.first_device; ++layer) {
    std::vector<int64_t> sides;
    for (const AxisMap& axis : axes) sides.push_back(axis.size);
    const AugmentStep& step = list.steps[layer];
    apply_step(axes, step, draw_step(step, static_cast<uint16_t>(layer), place, sides, target),
               target);
  }
}

void center_crop(std::vector<AxisMap>& axes, const std::vector<int64_t>& target) {
  for (size_t axis = 0; axis < axes.size(); ++axis)
    axes[axis] = axes[axis].window((axes[axis].size - target[axis]) / 2, target[axis]);
}

CropBox draw_resized_crop(const AugmentStep& step, uint16_t layer, const AugmentPlace& place,
                          const std::vector<int64_t>& sides) {
  PlanDraws draws(core::Stream::crop, layer, place);
  constexpr int kTries = 10;
  for (int t = 0; t < kTries; ++t) {
    const double share = draws.uniform(step.numbers[0], step.numbers[1]);
    CropBox box{{}, sides_of_share(sides, share, step.numbers[2], step.numbers[3], draws)};
    bool fits = true;
    for (size_t axis = 0; axis < sides.size(); ++axis)
      fits = fits && box.sides[axis] >= 1 && box.sides[axis] <= sides[axis];
    if (!fits) continue;
    for (size_t axis = 0; axis < sides.size(); ++axis)
      box.origin.push_back(draws.below(sides[axis] - box.sides[axis] + 1));
    return box;
  }
  return central_window(step, sides);
}

bool draw_erased(PlanDraws& draws, const std::vector<int64_t>& sides, CropBox& box) {
  constexpr int kTries = 10;
  for (int t = 0; t < kTries; ++t) {
    const double share = draws.uniform(0.02, 0.33);
    // torchvision's ratio is height to width; its logarithm is symmetric but for the bounds.
    box = {{}, sides_of_share(sides, share, 1 / 3.3, 1 / 0.3, draws)};
    bool fits = true;
    for (size_t axis = 0; axis < sides.size(); ++axis)
      fits = fits && box.sides[axis] >= 1 && box.sides[axis] < sides[axis];
    if (!fits) continue;
    for (size_t axis = 0; axis < sides.size(); ++axis)
      box.origin.push_back(draws.below(sides[axis] - box.sides[axis] + 1));
    return true;
  }
  return false;
}

}  // namespace vitrail::data
