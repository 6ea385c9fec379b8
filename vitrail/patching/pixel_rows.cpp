#pragma GCC optimize("O3,no-trapping-math,fp-contract=off,vect-cost-model=dynamic")
#include "vitrail/patching/pixel_rows.h"

#include <algorithm>
#include <array>

#include "vitrail/kernels/vectorize.h"

namespace vitrail::patching {
namespace {

constexpr int kLanes = 8;  // results side by side, so that their order does not bind the compiler

VT_VECTORIZED void limits_row(const float* __restrict values, float factor, float offset,
                              float* __restrict low, float* __restrict high, int64_t count) {
  for (int64_t i = 0; i < count; i += kLanes)
    for (int64_t j = 0; j < std::min<int64_t>(kLanes, count - i); ++j) {
      const float value = values[i + j] * factor + offset;
      low[j] = value < low[j] ? value : low[j];
      high[j] = value > high[j] ? value : high[j];
    }
}

VT_VECTORIZED int32_t round_row(const float* __restrict values, float factor, float offset,
                                uint8_t* __restrict bytes, int64_t count) {
  int32_t broken = 0;
  for (int64_t i = 0; i < count; ++i) {
    const float value = values[i] * factor + offset;
    broken |= values[i] - values[i] == 0.0f ? 0 : 1;  // NaN for NaN and infinity
    // The comparisons are false for NaN, which so becomes 0.
    const float limited = value > 0.0f ? (value < 255.0f ? value : 255.0f) : 0.0f;
    bytes[i] = static_cast<uint8_t>(static_cast<int32_t>(limited + 0.5f));
  }
  return broken;
}

VT_VECTORIZED void shift_row(int32_t* values, int shift, int64_t count) {
  const int32_t half = 1 << (shift - 1);
  for (int64_t i = 0; i < count; ++i) values[i] = (values[i] + half) >> shift;
}

VT_VECTORIZED void magnitudes_row(const int32_t* a, const int32_t* b, int32_t* __restrict out,
                                  int64_t count) {
  for (int64_t i = 0; i < count; ++i)
    out[i] = (a[i] < 0 ? -a[i] : a[i]) + (b[i] < 0 ? -b[i] : b[i]);
}

VT_VECTORIZED void squares_row(const int32_t* a, const int32_t* b, const int32_t* c,
                               int32_t* __restrict out, int64_t count) {
  for (int64_t i = 0; i < count; ++i) out[i] = a[i] * a[i] + b[i] * b[i] + c[i] * c[i];
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

VT_VECTORIZED void widen_row(const uint8_t* __restrict bytes, int32_t* __restrict values,
                             int64_t count) {
  for (int64_t i = 0; i < count; ++i) values[i] = bytes[i];
}

VT_VECTORIZED void larger_row(const int32_t* key, const int32_t* keep, const int32_t* a, int32_t* b,
                              int64_t count) {
  for (int64_t i = 0; i < count; ++i) b[i] = key[i] > keep[i] ? a[i] : b[i];
}

VT_VECTORIZED void equal_row(const uint8_t* __restrict bytes, uint8_t byte,
                             uint8_t* __restrict marks, int64_t count) {
  for (int64_t i = 0; i < count; ++i) marks[i] = bytes[i] == byte;
}

int64_t size_of(const std::vector<int32_t>& values) { return std::ssize(values); }

}  // namespace

std::pair<float, float> limits(std::span<const float> values, Scale scale) {
  std::array<float, kLanes> low, high;
  low.fill(INFINITY);
  high.fill(-INFINITY);
  limits_row(values.data(), scale.factor, scale.offset, low.data(), high.data(),
             std::ssize(values));
  return {*std::min_element(low.begin(), low.end()), *std::max_element(high.begin(), high.end())};
}

bool round_to_bytes(std::span<const float> values, Scale scale, uint8_t* bytes) {
  return round_row(values.data(), scale.factor, scale.offset, bytes, std::ssize(values)) == 0;
}

void round_shift(std::vector<int32_t>& values, int shift) {
  shift_row(values.data(), shift, size_of(values));
}

void sum_magnitudes(const std::vector<int32_t>& a, const std::vector<int32_t>& b,
                    std::vector<int32_t>& out) {
  magnitudes_row(a.data(), b.data(), out.data(), size_of(out));
}

void sum_squares(const std::vector<int32_t>& a, const std::vector<int32_t>& b,
                 const std::vector<int32_t>& c, std::vector<int32_t>& out) {
  squares_row(a.data(), b.data(), c.data(), out.data(), size_of(out));
}

void widen(const uint8_t* bytes, int32_t* values, int64_t count) {
  widen_row(bytes, values, count);
}

void take_where_larger(const std::vector<int32_t>& key, const std::vector<int32_t>& keep,
                       const std::vector<int32_t>& a, std::vector<int32_t>& b) {
  larger_row(key.data(), keep.data(), a.data(), b.data(), size_of(b));
}

void mark_equal(const uint8_t* bytes, uint8_t byte, uint8_t* marks, int64_t count) {
  equal_row(bytes, byte, marks, count);
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
