#include "vitrail/data/value_range.h"

#include <algorithm>
#include <cmath>

#include "vitrail/core/error.h"
#include "vitrail/data/reader.h"

namespace vitrail::data {
namespace {

std::vector<float> channel(const Pixels& pixels, size_t c) {
  return with_values(pixels, [&](const auto& values) {
    std::vector<float> result;
    result.reserve(values.size() / static_cast<size_t>(pixels.channels));
    for (size_t i = c; i < values.size(); i += static_cast<size_t>(pixels.channels))
      result.push_back(static_cast<float>(values[i]));
    return result;
  });
}

/// numpy.percentile(values, percent), method "linear". Reorders the values.
float percentile(std::vector<float>& values, double percent) {
  const double place = static_cast<double>(values.size() - 1) * percent / 100.0;
  const auto below = static_cast<int64_t>(place);
  std::nth_element(values.begin(), values.begin() + below, values.end());
  const double low = values[static_cast<size_t>(below)];
  if (below + 1 == static_cast<int64_t>(values.size())) return static_cast<float>(low);
  const double high = *std::min_element(values.begin() + below + 1, values.end());
  return static_cast<float>(low + (high - low) * (place - static_cast<double>(below)));
}

}  // namespace

RangeRule::RangeRule(const config::Source& source)
    : kind_(source.normalize.value), percentile_(source.percentile) {
  const bool is_range = percentile_.size() == 2 && percentile_[0] >= 0 &&
                        percentile_[0] < percentile_[1] && percentile_[1] <= 100;
  VT_REQUIRE(
      ConfigError, kind_ != "percentile" || is_range,
      "[data] source '{}': normalize percentile needs percentile: [low, high] with 0 <= low < "
      "high <= 100",
      source_name(source));
}

ValueRange RangeRule::of(const Pixels& pixels) const {
  const auto channels = static_cast<size_t>(pixels.channels);
  ValueRange range;
  range.low.assign(channels, 0.0f);
  range.span.assign(channels, kind_ == "unit" ? pixels.full_scale : 1.0f);
  range.clips = kind_ == "percentile";
  if (kind_ == "unit" || kind_ == "none") return range;
  for (size_t c = 0; c < channels; ++c) {
    std::vector<float> values = channel(pixels, c);
    float high = 0;
    if (kind_ == "minmax") {
      const auto [least, largest] = std::minmax_element(values.begin(), values.end());
      range.low[c] = *least;
      high = *largest;
    } else {
      range.low[c] = percentile(values, percentile_[0]);
      high = percentile(values, percentile_[1]);
    }
    if (high > range.low[c]) range.span[c] = high - range.low[c];
  }
  return range;
}

}  // namespace vitrail::data
