#include "vitrail/data/array_axes.h"

#include "vitrail/core/error.h"
#include "vitrail/core/text.h"
#include "vitrail/data/pixels.h"

namespace vitrail::data {
namespace {

constexpr const char* kSides = "zyx";

void check_letters(const std::string& letters) {
  for (size_t i = 0; i < letters.size(); ++i)
    VT_REQUIRE(ConfigError,
               std::string("nczyxt").find(letters[i]) != std::string::npos &&
                   letters.find(letters[i], i + 1) == std::string::npos,
               "[data] axes must be letters out of n (samples), c (channels), z, y, x and t, each "
               "once, but are '{}'",
               core::printable(letters));
  VT_REQUIRE(ConfigError,
             letters.find('y') != std::string::npos && letters.find('x') != std::string::npos,
             "[data] axes must hold y and x but are '{}'", core::printable(letters));
}

/// Letters by the number of axes.
std::string default_letters(size_t axes, const AxesRule& rule, const std::string& path,
                            const std::vector<int64_t>& shape) {
  const std::string sides = std::string(kSides).substr(3 - rule.sides);
  if (axes == rule.sides) return sides;
  if (axes == rule.sides + 1) return (rule.has_samples ? "n" : "c") + sides;
  if (axes == rule.sides + 2) return "nc" + sides;
  core::fail<core::DataError>(
      "[data] {}: an array for images of {} sides must have {} to {} axes ([n] [c] sides) but has "
      "{}; set axes",
      path, rule.sides, rule.sides, rule.sides + 2, describe(shape));
}

std::string letters_of(const io::ArrayFile& file, const AxesRule& rule, const std::string& path) {
  const std::vector<int64_t>& shape = file.shape();
  if (rule.letters.empty()) {
    std::string own = file.axes();
    return own.empty() ? default_letters(shape.size(), rule, path, shape) : own;
  }
  check_letters(rule.letters);
  VT_REQUIRE(DataError, rule.letters.size() == shape.size(),
             "[data] {}: axes '{}' must name every axis but the array has {}", path, rule.letters,
             describe(shape));
  return rule.letters;
}

}  // namespace

ArrayAxes find_axes(const io::ArrayFile& file, const AxesRule& rule, const std::string& path) {
  const std::string letters = letters_of(file, rule, path);
  const std::vector<int64_t>& shape = file.shape();
  ArrayAxes axes;
  axes.sides.assign(rule.sides, -1);
  for (size_t axis = 0; axis < letters.size(); ++axis) {
    const auto place = static_cast<int64_t>(axis);
    const size_t side = std::string(kSides).find(letters[axis]);
    if (letters[axis] == 'n') {
      axes.samples = place;
    } else if (letters[axis] == 'c') {
      axes.channels = place;
    } else if (side != std::string::npos && side + rule.sides >= 3) {
      axes.sides[side + rule.sides - 3] = place;
    } else {
      VT_REQUIRE(DataError, shape[axis] == 1,
                 "[data] {}: axis {} ('{}') of {} must be one long for images of {} sides; name it "
                 "n (samples) or c (channels) in axes{}",
                 path, axis, letters[axis], describe(shape), rule.sides,
                 letters[axis] == 'z' ? ", or set slices" : "");
    }
  }
  for (size_t side = rule.sides - 2; side < rule.sides; ++side)
    VT_REQUIRE(DataError, axes.sides[side] >= 0, "[data] {}: axes '{}' must hold y and x; set axes",
               path, core::printable(letters));
  for (const int64_t size : shape)
    VT_REQUIRE(DataError, size > 0, "[data] {}: an array must hold values but is {}", path,
               describe(shape));
  return axes;
}

}  // namespace vitrail::data
