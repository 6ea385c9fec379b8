#pragma once
/// ((value - low) / span, kept in [0, 1] if asked for, - mean) / std, many values at once.

#include <cstdint>

namespace vitrail::data {

struct Normalisation {
  float low = 0, span = 1, mean = 0, std = 1;
  bool clips = false;

  float operator()(float value) const {
    float scaled = (value - low) / span;
    if (clips) scaled = scaled < 0.0f ? 0.0f : 1.0f < scaled ? 1.0f : scaled;
    return (scaled - mean) / std;
  }
};

/// out[i] = rule(in[i * step]) for i < count, to the same bits.
void normalise_row(const float* in, int64_t step, int64_t count, const Normalisation& rule,
                   float* out);

}  // namespace vitrail::data
