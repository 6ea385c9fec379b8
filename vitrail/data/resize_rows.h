#pragma once
/// The two loops of resize(): many neighbours at once, each summed in the order of its taps.

#include <cstddef>
#include <cstdint>
#include <vector>

namespace vitrail::data {

/// Result i of an axis is the sum of weights[i * stride + j] * input[first[i] + j] over j < taps[i].
struct AxisFilter {
  int64_t stride = 0;
  std::vector<int64_t> first, taps;
  std::vector<float> weights;
};

/// out[x] = sum over t < taps of weights[t] * in[t * step + x], for x < count.
void filter_column(const uint8_t* in, int64_t step, const float* weights, int64_t taps, float* out,
                   int64_t count);
void filter_column(const float* in, int64_t step, const float* weights, int64_t taps, float* out,
                   int64_t count);

constexpr int64_t kRowLanes = 8;

/// The filter along up to kRowLanes rows at once, `channels` values a pixel: row r is read at in[r] and
/// written at out[r]. `scratch` holds kRowLanes * channels * (pixels of a row) floats.
void filter_rows(const uint8_t* const* in, int64_t rows, int64_t pixels, int64_t channels,
                 const AxisFilter& filter, float* const* out, float* scratch);
void filter_rows(const float* const* in, int64_t rows, int64_t pixels, int64_t channels,
                 const AxisFilter& filter, float* const* out, float* scratch);

}  // namespace vitrail::data
