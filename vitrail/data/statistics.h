#pragma once
/// Statistics of a source's values, as `vitrail data inspect --statistics` stores them, and what
/// the recipe makes of them.

#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "vitrail/config/recipe.h"

namespace vitrail::data {

/// The percents whose values are stored, rising from 0 (the least value) to 100 (the largest):
/// every half percent, and towards both ends down to 0.001.
std::span<const double> stored_percents();

/// Of the finite values of one channel.
struct ChannelStatistics {
  double mean = 0, std = 0, min = 0, max = 0;
  std::vector<double> percentiles;  // one for each of stored_percents(); empty = no values

  /// numpy.percentile(values, percent) for a stored percent, between two of them by linear
  /// interpolation. 0 <= percent <= 100.
  double percentile(double percent) const;
};

struct SourceStatistics {
  int64_t files = 0;       // that were read
  int64_t pixels = 0;      // of all files; each holds one value a channel
  int64_t not_finite = 0;  // values that are NaN or infinite; they count nowhere
  double full_scale = 0;   // value that stands for 1 with normalize unit; 0 = it differs by file
  double percentile_error = 0;                // of a percentile's value, relative; 0 = exact
  std::vector<std::string> variables;         // names of the channels; empty = none
  std::string normalize;                      // behind `normalized`, as in the recipe
  std::vector<ChannelStatistics> raw;         // in units of the file, in the model's channels
  std::vector<ChannelStatistics> normalized;  // after source.normalize, before mean and std
};

/// By name of the source.
using StatisticsFile = std::vector<std::pair<std::string, SourceStatistics>>;

/// Format   docs/data.md.
/// throws   ConfigError: two sources of one name.
std::string statistics_json(const StatisticsFile& file);
/// Written atomically. throws as statistics_json; Error naming the path.
void write_statistics(const StatisticsFile& file, const std::string& path);
/// throws   DataError naming `name`: not such a file, numbers that cannot be.
StatisticsFile parse_statistics(const std::string& text, const std::string& name);

/// The entry of source.statistics with this source's name, or the only one there is; channels as
/// source.variables names them.
/// throws   DataError naming the file: unreadable, no such entry, no such variable.
SourceStatistics read_statistics(const config::Source& source);

/// What is subtracted and divided by after source.normalize, one number a channel.
struct NormalizeValues {
  std::vector<double> mean, std;
};

/// source.mean and source.std; where one is empty, those of the values after normalize by
/// source.statistics (1 for a channel of one value); without such a file 0.5 and 0.5, with normalize
/// none 0 and 1.
/// throws   ConfigError: neither 1 nor `channels` numbers, std not above zero. DataError as
///          read_statistics, or when the file has other channels.
NormalizeValues normalize_values(const config::Source& source, int64_t channels);

/// source.percentile. throws ConfigError unless it is two numbers with 0 <= low < high <= 100.
std::pair<double, double> percentile_range(const config::Source& source);

}  // namespace vitrail::data
