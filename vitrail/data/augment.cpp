#include "vitrail/data/augment.h"

#include <algorithm>
#include <charconv>

#include "vitrail/core/error.h"
#include "vitrail/core/philox.h"

namespace vitrail::data {
namespace {

// Far beyond any image; keeps sums of offsets within int64.
constexpr int64_t kMaxAmount = 1 << 20;

constexpr const char* kForm = "the known steps are flip, flips, rot90, crop:PAD, shift:PIXELS";

int64_t parse_amount(const std::string& step, size_t colon, const std::string& source) {
  int64_t amount = -1;
  if (colon != std::string::npos) {
    const char* first = step.data() + colon + 1;
    const char* last = step.data() + step.size();
    const auto [end, error] = std::from_chars(first, last, amount);
    if (error != std::errc() || end != last) amount = -1;
  }
  VT_REQUIRE(ConfigError, amount >= 0 && amount <= kMaxAmount,
             "[data] source '{}': augment step '{}' needs a number of pixels from 0 to {}; {}",
             source, step, kMaxAmount, kForm);
  return amount;
}

core::Stream stream_of(AugmentKind kind) {
  switch (kind) {
    case AugmentKind::flip:
    case AugmentKind::flips:
      return core::Stream::flip;
    case AugmentKind::crop:
      return core::Stream::crop;
    case AugmentKind::shift:
    case AugmentKind::rot90:
      return core::Stream::augment;
  }
  return core::Stream::augment;
}

/// Uniform integer in [0, n), n < 2^32, by multiplication: the bias is below n / 2^32.
int64_t below(uint32_t bits, int64_t n) {
  return static_cast<int64_t>((static_cast<uint64_t>(bits) * static_cast<uint64_t>(n)) >> 32);
}

}  // namespace

std::vector<AugmentStep> parse_augment(const std::vector<std::string>& steps,
                                       const std::string& source) {
  std::vector<AugmentStep> parsed;
  for (const std::string& step : steps) {
    const size_t colon = step.find(':');
    const std::string name = step.substr(0, colon);
    if (step == "flip")
      parsed.push_back({AugmentKind::flip, 0});
    else if (step == "flips")
      parsed.push_back({AugmentKind::flips, 0});
    else if (step == "rot90")
      parsed.push_back({AugmentKind::rot90, 0});
    else if (name == "crop")
      parsed.push_back({AugmentKind::crop, parse_amount(step, colon, source)});
    else if (name == "shift")
      parsed.push_back({AugmentKind::shift, parse_amount(step, colon, source)});
    else
      core::fail<core::ConfigError>("[data] source '{}': augment step '{}' is not known; {}",
                                    source, step, kForm);
  }
  return parsed;
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
  const core::DrawKey key{place.seed, stream_of(step.kind), static_cast<uint32_t>(place.epoch),
                          layer};
  const auto bits = [&](size_t axis) {
    return core::draw(key, static_cast<uint64_t>(place.index), static_cast<uint32_t>(axis));
  };
  if (step.kind == AugmentKind::flip || step.kind == AugmentKind::rot90) return {below(bits(0), 2)};
  std::vector<int64_t> offsets;
  if (step.kind == AugmentKind::flips) {
    for (size_t axis = 0; axis < sides.size(); ++axis) offsets.push_back(below(bits(axis), 2));
    return offsets;
  }
  for (size_t axis = 0; axis < sides.size(); ++axis) {
    const int64_t room = step.kind == AugmentKind::crop ? sides[axis] - target[axis] : 0;
    offsets.push_back(below(bits(axis), room + 2 * step.amount + 1) - step.amount);
  }
  return offsets;
}

void check_augment(const std::vector<AugmentStep>& steps, std::vector<int64_t> sides,
                   const std::vector<int64_t>& target, const std::string& source) {
  for (const AugmentStep& step : steps) {
    if (step.kind == AugmentKind::crop) sides = target;
    const size_t n = sides.size();
    VT_REQUIRE(ConfigError,
               step.kind != AugmentKind::rot90 || (n >= 2 && sides[n - 1] == sides[n - 2]),
               "[data] source '{}': augment step 'rot90' needs the last two sides to be equal but "
               "got {} and {}; make model.image_size (and resize) square",
               source, sides[n - 2], sides[n - 1]);
  }
}

void augment(std::vector<AxisMap>& axes, const std::vector<AugmentStep>& steps,
             const AugmentPlace& place, const std::vector<int64_t>& target) {
  for (size_t layer = 0; layer < steps.size(); ++layer) {
    std::vector<int64_t> sides;
    for (const AxisMap& axis : axes) sides.push_back(axis.size);
    const AugmentStep& step = steps[layer];
    const std::vector<int64_t> drawn =
        draw_step(step, static_cast<uint16_t>(layer), place, sides, target);
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
      case AugmentKind::crop:
      case AugmentKind::shift:
        for (size_t axis = 0; axis < axes.size(); ++axis)
          axes[axis] = axes[axis].window(
              drawn[axis], step.kind == AugmentKind::crop ? target[axis] : sides[axis]);
        break;
    }
  }
}

void center_crop(std::vector<AxisMap>& axes, const std::vector<int64_t>& target) {
  for (size_t axis = 0; axis < axes.size(); ++axis)
    axes[axis] = axes[axis].window((axes[axis].size - target[axis]) / 2, target[axis]);
}

}  // namespace vitrail::data
