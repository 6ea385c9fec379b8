#pragma GCC optimize("O3,no-trapping-math,fp-contract=off,vect-cost-model=dynamic")
#include "vitrail/data/resize_rows.h"

#include "vitrail/kernels/vectorize.h"

// Always inlined, so that each copy of a vectorized function has its own. The order of the sums is
// that of the taps whatever the width.
#define VT_INLINE inline __attribute__((always_inline))

namespace vitrail::data {
namespace {

/// As many results as stay in registers while the taps pass by.
constexpr int64_t kStrip = 32;

template <class T>
VT_INLINE void column(const T* __restrict in, int64_t step, const float* __restrict weights,
                      int64_t taps, float* __restrict out, int64_t count) {
  int64_t x = 0;
  for (; x + kStrip <= count; x += kStrip) {
    float sum[kStrip] = {};
    for (int64_t t = 0; t < taps; ++t)
      for (int64_t k = 0; k < kStrip; ++k)
        sum[k] += weights[t] * static_cast<float>(in[t * step + x + k]);
    for (int64_t k = 0; k < kStrip; ++k) out[x + k] = sum[k];
  }
  for (; x < count; ++x) {
    float sum = 0;
    for (int64_t t = 0; t < taps; ++t) sum += weights[t] * static_cast<float>(in[t * step + x]);
    out[x] = sum;
  }
}

/// Value v of row r goes to scratch[v * kRowLanes + r].
template <class T>
VT_INLINE void interleave(const T* const* in, int64_t rows, int64_t values,
                          float* __restrict scratch) {
  const T* row[kRowLanes];
  for (int64_t r = 0; r < kRowLanes; ++r) row[r] = in[r < rows ? r : 0];
  for (int64_t v = 0; v < values; ++v)
    for (int64_t r = 0; r < kRowLanes; ++r)
      scratch[v * kRowLanes + r] = static_cast<float>(row[r][v]);
}

template <class T>
VT_INLINE void lanes(const T* const* in, int64_t rows, int64_t pixels, int64_t channels,
                     const AxisFilter& filter, float* const* out, float* __restrict scratch) {
  interleave(in, rows, pixels * channels, scratch);
  const auto results = static_cast<int64_t>(filter.first.size());
  for (int64_t i = 0; i < results; ++i) {
    const float* weight = filter.weights.data() + i * filter.stride;
    const float* from = scratch + filter.first[static_cast<size_t>(i)] * channels * kRowLanes;
    const int64_t taps = filter.taps[static_cast<size_t>(i)];
    for (int64_t c = 0; c < channels; ++c) {
      float sum[kRowLanes] = {};
      for (int64_t t = 0; t < taps; ++t)
        for (int64_t r = 0; r < kRowLanes; ++r)
          sum[r] += weight[t] * from[(t * channels + c) * kRowLanes + r];
      for (int64_t r = 0; r < rows; ++r) out[r][i * channels + c] = sum[r];
    }
  }
}

}  // namespace

VT_VECTORIZED void filter_column(const uint8_t* in, int64_t step, const float* weights,
                                 int64_t taps, float* out, int64_t count) {
  column(in, step, weights, taps, out, count);
}
VT_VECTORIZED void filter_column(const float* in, int64_t step, const float* weights, int64_t taps,
                                 float* out, int64_t count) {
  column(in, step, weights, taps, out, count);
}

VT_VECTORIZED void filter_rows(const uint8_t* const* in, int64_t rows, int64_t pixels,
                               int64_t channels, const AxisFilter& filter, float* const* out,
                               float* scratch) {
  lanes(in, rows, pixels, channels, filter, out, scratch);
}
VT_VECTORIZED void filter_rows(const float* const* in, int64_t rows, int64_t pixels,
                               int64_t channels, const AxisFilter& filter, float* const* out,
                               float* scratch) {
  lanes(in, rows, pixels, channels, filter, out, scratch);
}

}  // namespace vitrail::data
