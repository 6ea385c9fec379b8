#include "vitrail/data/value_range.h"

#include <algorithm>
#include <cmath>

#include "vitrail/core/error.h"
#include "vitrail/data/statistics.h"

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
    : kind_(source.normalize.value), statistics_(source.statistics) {
  if (kind_ == "percentile") percentile_ = percentile_range(source);
  if (statistics_.empty() || !needs_whole_file()) return;
  for (const ChannelStatistics& channel : read_statistics(source).raw) {
    const bool by_percentile = kind_ == "percentile";
    fixed_.emplace_back(
        static_cast<float>(by_percentile ? channel.percentile(percentile_.first) : channel.min),
        static_cast<float>(by_percentile ? channel.percentile(percentile_.second) : channel.max));
  }
}

ValueRange RangeRule::of(const Pixels& pixels) const {
  const auto channels = static_cast<size_t>(pixels.channels);
  VT_REQUIRE(DataError, fixed_.empty() || fixed_.size() == channels,
             "[data] {}: has statistics of {} channel(s) but the image has {}", statistics_,
             fixed_.size(), channels);
  ValueRange range;
  range.low.assign(channels, 0.0f);
  range.span.assign(channels, kind_ == "unit" ? pixels.full_scale : 1.0f);
  range.clips = kind_ == "percentile";
  if (kind_ == "unit" || kind_ == "none") return range;
  for (size_t c = 0; c < channels; ++c) {
    const auto [low, high] = fixed_.empty() ? range_of_file(pixels, c) : fixed_[c];
    range.low[c] = low;
    if (high > low) range.span[c] = high - low;
  }
  return range;
}

std::pair<float, float> RangeRule::range_of_file(const Pixels& pixels, size_t c) const {
  std::vector<float> values = channel(pixels, c);
  if (kind_ == "minmax") {
    const auto [least, largest] = std::minmax_element(values.begin(), values.end());
    return {*least, *largest};
  }
  const float low = percentile(values, percentile_.first);
  return {low, percentile(values, percentile_.second)};
}

}  // namespace vitrail::data
