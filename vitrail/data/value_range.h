#pragma once
/// The values of a file that become 0 and 1 (source.normalize).

#include <string>
#include <utility>
#include <vector>

#include "vitrail/config/recipe.h"
#include "vitrail/data/pixels.h"

namespace vitrail::data {

/// A value v of channel c becomes (v - low[c]) / span[c].
struct ValueRange {
  std::vector<float> low, span;
  bool clips = false;  // results are cut to [0, 1]

  float apply(float value, size_t c) const {
    const float scaled = (value - low[c]) / span[c];
    return !clips ? scaled : scaled < 0 ? 0.0f : scaled > 1 ? 1.0f : scaled;
  }
};

/// How a source finds the range of a file.
///
/// unit        [0, full scale of the type]; floats as they are.
/// minmax      from the least to the largest value of each channel: of the whole file, or with
///             source.statistics of the data as a whole (a value beyond it leaves [0, 1]).
/// percentile  between two percentiles of each channel (linear between neighbours, as
///             numpy.percentile), of the whole file or by source.statistics of the data as a whole;
///             what lies outside is cut.
/// none        values as they are, bytes from 0 to 255.
/// A channel of one value becomes 0.
class RangeRule {
 public:
  /// throws   ConfigError: percentile without 0 <= low < high <= 100. DataError as read_statistics.
  explicit RangeRule(const config::Source& source);

  /// `pixels` are the whole file if needs_whole_file(), else any part of it.
  /// throws   DataError naming source.statistics when that has other channels.
  ValueRange of(const Pixels& pixels) const;
  /// True for none: mean and std default to 0 and 1, so that values stay as they are.
  bool keeps_values() const { return kind_ == "none"; }
  /// True for minmax and percentile without source.statistics: the range is that of the file.
  bool needs_whole_file() const {
    return fixed_.empty() && (kind_ == "minmax" || kind_ == "percentile");
  }

 private:
  std::pair<float, float> range_of_file(const Pixels& pixels, size_t c) const;

  std::string kind_, statistics_;
  std::pair<double, double> percentile_;
  std::vector<std::pair<float, float>> fixed_;  // low and high of each channel; empty = the file's
};

}  // namespace vitrail::data
