#pragma GCC optimize("O3,no-trapping-math,fp-contract=off,vect-cost-model=dynamic")
#include "vitrail/patching/pixel_rows.h"

#include <algorithm>
#include <array>

#include "vitrail/kernels/vectorize.h"

namespace vitrail::patching {
namespace {

constexpr int kLanes = 8;  // results side by side, so that their order does not bind the compiler

VT_VECTORIZED void limits_row(const float* __restrict values, float* __restrict low,
                              float* __restrict high, int64_t count) {
  for (int64_t i = 0; i < count; i += kLanes)
    for (int64_t j = 0; j < std::min<int64_t>(kLanes, count - i); ++j) {
      const float value = values[i + j];
      low[j] = value < low[j] ? value : low[j];
      high[j] = value > high[j] ? value : high[j];
    }
}

VT_VECTORIZED int32_t round_row(const float* __restrict values, float factor, float offset,
                                uint8_t* __restrict bytes, int64_t count) {
  int32_t broken = 0;
  for (int64_t i = 0; i < count; ++i) {
    broken |= is_finite(values[i]) ? 0 : 1;
    bytes[i] = byte_of(values[i], {factor, offset});
  }
  return broken;
}

VT_VECTORIZED void set_floats(const float* __restrict values, double weight, double* __restrict out,
                              int64_t count) {
  for (int64_t i = 0; i < count; ++i) out[i] = weight * static_cast<double>(values[i]);
}

VT_VECTORIZED void add_floats(const float* __restrict values, double weight, double* __restrict out,
                              int64_t count) {
  for (int64_t i = 0; i < count; ++i) out[i] += weight * static_cast<double>(values[i]);
}

VT_VECTORIZED void set_doubles(const double* __restrict values, double weight,
                               double* __restrict out, int64_t count) {
  for (int64_t i = 0; i < count; ++i) out[i] = weight * values[i];
}

VT_VECTORIZED void add_doubles(const double* __restrict values, double weight,
                               double* __restrict out, int64_t count) {
  for (int64_t i = 0; i < count; ++i) out[i] += weight * values[i];
}

VT_VECTORIZED void bytes_row(const uint8_t* __restrict bytes, uint32_t* __restrict sums,
                             int64_t count) {
  for (int64_t i = 0; i < count; ++i) sums[i] += bytes[i];
}

}  // namespace

std::pair<float, float> limits_of(std::span<const float> values) {
  std::array<float, kLanes> low, high;
  low.fill(INFINITY);
  high.fill(-INFINITY);
  limits_row(values.data(), low.data(), high.data(), std::ssize(values));
  return {*std::min_element(low.begin(), low.end()), *std::max_element(high.begin(), high.end())};
}

bool round_to_bytes(std::span<const float> values, Scale scale, uint8_t* bytes) {
  return round_row(values.data(), scale.factor, scale.offset, bytes, std::ssize(values)) == 0;
}

void add_bytes(const uint8_t* bytes, uint32_t* sums, int64_t count) {
  bytes_row(bytes, sums, count);
}

void set_weighted(const float* values, double weight, double* out, int64_t count) {
  set_floats(values, weight, out, count);
}
void set_weighted(const double* values, double weight, double* out, int64_t count) {
  set_doubles(values, weight, out, count);
}
void add_weighted(const float* values, double weight, double* out, int64_t count) {
  add_floats(values, weight, out, count);
}
void add_weighted(const double* values, double weight, double* out, int64_t count) {
  add_doubles(values, weight, out, count);
}

}  // namespace vitrail::patching
