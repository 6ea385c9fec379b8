#include "vitrail/data/mask_classes.h"

#include <algorithm>
#include <cmath>
#include <set>

#include <fmt/ranges.h>

#include "vitrail/core/error.h"
#include "vitrail/data/reader.h"

namespace vitrail::data {

MaskClasses::MaskClasses(const config::Source& source, const config::Model& model)
    : values_(source.label_values), num_classes_(model.num_classes) {
  const auto n = static_cast<int64_t>(values_.size());
  VT_REQUIRE(ConfigError, n <= num_classes_,
             "[data] source '{}': label_values must have at most model.num_classes = {} values but "
             "has {}",
             source_name(source), num_classes_, n);
  VT_REQUIRE(ConfigError,
             std::set<int64_t>(values_.begin(), values_.end()).size() == values_.size(),
             "[data] source '{}': label_values must differ from each other but are [{}]",
             source_name(source), fmt::join(values_, ", "));
}

int32_t MaskClasses::class_of(int64_t value, const std::string& path) const {
  if (values_.empty()) {
    VT_REQUIRE(
        DataError, value >= 0 && value < num_classes_,
        "[data] {}: mask values must be classes from 0 to {} (model.num_classes - 1) but got "
        "{}; set label_values or model.num_classes",
        path, num_classes_ - 1, value);
    return static_cast<int32_t>(value);
  }
  const auto found = std::find(values_.begin(), values_.end(), value);
  VT_REQUIRE(DataError, found != values_.end(),
             "[data] {}: mask values must be among label_values [{}] but got {}", path,
             fmt::join(values_, ", "), value);
  return static_cast<int32_t>(found - values_.begin());
}

Mask MaskClasses::apply(Mask values, const std::string& path) const {
  int32_t last_value = 0, last_class = -1;  // neighbours are mostly equal
  for (int32_t& value : values.classes) {
    if (last_class < 0 || value != last_value) {
      last_value = value;
      last_class = class_of(value, path);
    }
    value = last_class;
  }
  return values;
}

Mask MaskClasses::apply(const std::vector<float>& values, std::vector<int64_t> sides,
                        const std::string& path) const {
  constexpr float kMaxValue = 1 << 24;  // floats are exact up to here
  Mask mask{std::move(sides), {}};
  mask.classes.reserve(values.size());
  for (const float value : values) {
    VT_REQUIRE(DataError, std::abs(value) <= kMaxValue && value == std::round(value),
               "[data] {}: mask values must be whole numbers but got {}", path, value);
    mask.classes.push_back(static_cast<int32_t>(value));
  }
  return apply(std::move(mask), path);
}

void check_mask_sides(const std::vector<int64_t>& mask, const std::string& mask_path,
                      const std::vector<int64_t>& image, const std::string& image_path) {
  VT_REQUIRE(DataError, mask == image,
             "[data] {}: the mask must have the sides of its image {} but got {} and {}", mask_path,
             image_path, describe(mask), describe(image));
}

void check_mask_count(size_t masks, const std::string& labels, size_t images,
                      const std::string& root) {
  VT_REQUIRE(DataError, masks == images,
             "[data] {}: expected one mask for each of the {} images of {} but found {}", labels,
             images, root, masks);
}

}  // namespace vitrail::data
