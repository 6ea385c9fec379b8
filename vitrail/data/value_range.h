#pragma once
/// The values of a file that become 0 and 1 (source.normalize).

#include <string>
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
/// minmax      from the least to the largest value of each channel of the whole file.
/// percentile  between two percentiles of each channel of the whole file (linear between neighbours,
///             as numpy.percentile); what lies outside is cut.
/// none        values as they are, bytes from 0 to 255.
/// A channel of one value becomes 0.
class RangeRule {
 public:
  /// throws   ConfigError: percentile without 0 <= low < high <= 100.
  explicit RangeRule(const config::Source& source);

  ValueRange of(const Pixels& pixels) const;
  /// True for none: mean and std default to 0 and 1, so that values stay as they are.
  bool keeps_values() const { return kind_ == "none"; }

 private:
  std::string kind_;
  std::vector<double> percentile_;
};

}  // namespace vitrail::data
