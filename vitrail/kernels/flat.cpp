#pragma GCC optimize("O3,no-trapping-math,fp-contract=off,vect-cost-model=dynamic")
#include "vitrail/kernels/flat.h"

#include <algorithm>
#include <cmath>

#include "vitrail/kernels/bf16.h"
#include "vitrail/kernels/clip.h"
#include "vitrail/kernels/vectorize.h"

namespace vitrail::kernels {

// Eight sums side by side: the order of additions is then fixed and still fits vector registers.
constexpr int kLanes = 8;

namespace {

VT_VECTORIZED double sum_all(const float* x, int64_t count) {
  double lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes)
    for (int j = 0; j < kLanes; ++j)
      lanes[j] += static_cast<double>(x[i + j]) * static_cast<double>(x[i + j]);
  for (; i < count; ++i) lanes[0] += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  double sum = 0;
  for (const double lane : lanes) sum += lane;
  return sum;
}

/// A factor instead of a branch, so that an element that does not count may still make the sum NaN: then some rank
/// counts it.
VT_VECTORIZED double sum_counted(const float* x, const uint8_t* counted, int64_t count) {
  static_assert(kFlagGroup % kLanes == 0);
  double lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    const double counts = counted[i / kFlagGroup];
    for (int j = 0; j < kLanes; ++j)
      lanes[j] += counts * (static_cast<double>(x[i + j]) * static_cast<double>(x[i + j]));
  }
  for (; i < count; ++i)
    lanes[0] += static_cast<double>(counted[i / kFlagGroup]) *
                (static_cast<double>(x[i]) * static_cast<double>(x[i]));
  double sum = 0;
  for (const double lane : lanes) sum += lane;
  return sum;
}

}  // namespace

double sum_squares_cpu(const float* x, int64_t count, const uint8_t* counted) {
  return counted ? sum_counted(x, counted, count) : sum_all(x, count);
}

void clip_scale_cpu(const double* sum, float max_norm, float* norm, float* scale) {
  *norm = static_cast<float>(std::sqrt(*sum));
  *scale = clip_factor(*norm, max_norm);
}

VT_VECTORIZED void add_bf16_cpu(float* __restrict sum, const uint16_t* __restrict part,
                                int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) sum[i] += from_bf16(part[i]);
}

VT_VECTORIZED void add_f32_cpu(float* __restrict sum, const float* __restrict part, int64_t begin,
                               int64_t end) {
  for (int64_t i = begin; i < end; ++i) sum[i] += part[i];
}

VT_VECTORIZED void expand_bf16_cpu(float* __restrict out, const uint16_t* __restrict in,
                                   int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) out[i] = from_bf16(in[i]);
}

VT_VECTORIZED void cast_bf16_cpu(uint16_t* __restrict out, const float* __restrict in,
                                 int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) out[i] = to_bf16(in[i]);
}

}  // namespace vitrail::kernels
