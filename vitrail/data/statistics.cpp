#include "vitrail/data/statistics.h"

#include <algorithm>
#include <cmath>

#include <fmt/ranges.h>

#include "vitrail/core/atomic_file.h"
#include "vitrail/core/error.h"
#include "vitrail/data/reader.h"

namespace vitrail::data {
namespace {

constexpr int64_t kMaxFileBytes = int64_t{1} << 28;

std::vector<double> make_percents() {
  const std::vector<double> tail{0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5};
  std::vector<double> percents = tail;
  for (int half = 2; half <= 198; ++half) percents.push_back(half / 2.0);
  for (auto percent = tail.rbegin(); percent != tail.rend(); ++percent)
    percents.push_back(100.0 - *percent);
  return percents;
}

/// `all`[channel of each variable that the source names], all of them when it names none.
std::vector<ChannelStatistics> chosen(const std::vector<ChannelStatistics>& all,
                                      const SourceStatistics& entry, const config::Source& source) {
  if (source.variables.empty() || entry.variables.empty()) return all;
  std::vector<ChannelStatistics> result;
  for (const std::string& name : source.variables) {
    const auto found = std::find(entry.variables.begin(), entry.variables.end(), name);
    VT_REQUIRE(DataError, found != entry.variables.end(),
               "[data] {}: has no statistics of the variable '{}'; it has those of {}",
               source.statistics, name, fmt::join(entry.variables, ", "));
    result.push_back(all[static_cast<size_t>(found - entry.variables.begin())]);
  }
  return result;
}

const SourceStatistics& entry_of(const StatisticsFile& file, const config::Source& source) {
  const std::string name = source_name(source);
  const auto found = std::find_if(file.begin(), file.end(),
                                  [&](const auto& entry) { return entry.first == name; });
  if (found != file.end()) return found->second;
  std::vector<std::string> names;
  for (const auto& entry : file) names.push_back(entry.first);
  VT_REQUIRE(DataError, file.size() == 1,
             "[data] {}: has no statistics of a source named '{}'; it has those of {}",
             source.statistics, name, fmt::join(names, ", "));
  return file[0].second;
}

/// Mean and std of clip((v - low) / (high - low), 0, 1), v as its percentiles say: a straight line
/// between neighbouring ones.
std::pair<double, double> clipped_moments(const ChannelStatistics& raw, double from, double to) {
  const double low = raw.percentile(from), span = raw.percentile(to) - low;
  if (!(span > 0)) return {0.0, 0.0};
  std::vector<double> percents(stored_percents().begin(), stored_percents().end());
  percents.insert(percents.end(), {from, to});  // the corners of the clipped line
  std::sort(percents.begin(), percents.end());
  const auto value = [&](double percent) {
    return std::clamp((raw.percentile(percent) - low) / span, 0.0, 1.0);
  };
  double mean = 0, square = 0;
  for (size_t i = 1; i < percents.size(); ++i) {
    const double share = (percents[i] - percents[i - 1]) / 100.0;
    const double a = value(percents[i - 1]), b = value(percents[i]);
    mean += share * (a + b) / 2;
    square += share * (a * a + a * b + b * b) / 3;
  }
  return {mean, std::sqrt(std::max(square - mean * mean, 0.0))};
}

/// Mean and std after source.normalize, its range that of the data as a whole.
std::pair<double, double> moments_after(const config::Source& source, const SourceStatistics& entry,
                                        const ChannelStatistics& raw) {
  if (source.normalize == "none") return {raw.mean, raw.std};
  if (source.normalize == "percentile") {
    const auto [low, high] = percentile_range(source);
    return clipped_moments(raw, low, high);
  }
  if (source.normalize == "unit") {
    VT_REQUIRE(DataError, entry.full_scale > 0,
               "[data] {}: the source '{}' mixes files of several types, so that its statistics do "
               "not fit normalize: unit; give mean and std in the recipe",
               source.statistics, source_name(source));
    return {raw.mean / entry.full_scale, raw.std / entry.full_scale};
  }
  const double span = raw.max > raw.min ? raw.max - raw.min : 1.0;
  return {(raw.mean - raw.min) / span, raw.std / span};
}

/// One value per channel from a recipe's list of none, one or C.
std::vector<double> per_channel(const std::vector<double>& values, const std::vector<double>& none,
                                const char* key, const std::string& source) {
  const size_t n = values.size(), channels = none.size();
  VT_REQUIRE(ConfigError, n == 0 || n == 1 || n == channels,
             "[data] source '{}': {} must have 1 or {} (model.in_channels, or the source's "
             "variables) numbers but has {}",
             source, key, channels, n);
  if (n == 0) return none;
  return n == channels ? values : std::vector<double>(channels, values[0]);
}

NormalizeValues defaults(const config::Source& source, int64_t channels) {
  const bool plain = source.normalize == "none";
  const auto n = static_cast<size_t>(channels);
  NormalizeValues values{std::vector<double>(n, plain ? 0.0 : 0.5),
                         std::vector<double>(n, plain ? 1.0 : 0.5)};
  const bool needs_file = source.mean.empty() || source.std.empty();
  if (source.statistics.empty() || !needs_file) return values;
  const SourceStatistics entry = read_statistics(source);
  VT_REQUIRE(DataError, entry.raw.size() == n,
             "[data] {}: has statistics of {} channel(s) but the source '{}' has {}",
             source.statistics, entry.raw.size(), source_name(source), channels);
  for (size_t c = 0; c < n; ++c) {
    const auto [mean, std] = moments_after(source, entry, entry.raw[c]);
    values.mean[c] = mean;
    values.std[c] = std > 0 ? std : 1.0;
  }
  return values;
}

}  // namespace

std::span<const double> stored_percents() {
  static const std::vector<double> percents = make_percents();
  return percents;
}

double ChannelStatistics::percentile(double percent) const {
  const std::span<const double> percents = stored_percents();
  const auto above = std::lower_bound(percents.begin(), percents.end(), percent);
  const auto i = static_cast<size_t>(above - percents.begin());
  if (i == percents.size()) return percentiles.back();
  if (percents[i] == percent || i == 0) return percentiles[i];
  const double share = (percent - percents[i - 1]) / (percents[i] - percents[i - 1]);
  return percentiles[i - 1] + share * (percentiles[i] - percentiles[i - 1]);
}

void write_statistics(const StatisticsFile& file, const std::string& path) {
  core::write_file_atomic(path, statistics_json(file));
}

SourceStatistics read_statistics(const config::Source& source) {
  const StatisticsFile file =
      parse_statistics(core::read_file(source.statistics, kMaxFileBytes), source.statistics);
  SourceStatistics entry = entry_of(file, source);
  entry.raw = chosen(entry.raw, entry, source);
  entry.normalized = chosen(entry.normalized, entry, source);
  if (!source.variables.empty() && !entry.variables.empty()) entry.variables = source.variables;
  return entry;
}

NormalizeValues normalize_values(const config::Source& source, int64_t channels) {
  const NormalizeValues none = defaults(source, channels);
  const std::string name = source_name(source);
  NormalizeValues values{per_channel(source.mean, none.mean, "mean", name),
                         per_channel(source.std, none.std, "std", name)};
  for (const double value : values.std)
    VT_REQUIRE(ConfigError, value > 0 && std::isfinite(value),
               "[data] source '{}': std must be above zero but is {}", name, value);
  return values;
}

std::pair<double, double> percentile_range(const config::Source& source) {
  const std::vector<double>& range = source.percentile;
  VT_REQUIRE(
      ConfigError, range.size() == 2 && range[0] >= 0 && range[0] < range[1] && range[1] <= 100,
      "[data] source '{}': normalize percentile needs percentile: [low, high] with 0 <= low < "
      "high <= 100",
      source_name(source));
  return {range[0], range[1]};
}

}  // namespace vitrail::data
