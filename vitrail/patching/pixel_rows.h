#pragma once
/// Loops over pixels that the compiler turns into vector instructions.

#include <cmath>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

namespace vitrail::patching {

/// value * factor + offset.
struct Scale {
  float factor = 1.0f, offset = 0.0f;

  /// The same, then low ... high onto 0 ... 255 (all onto 0 when they are equal).
  Scale onto_bytes(float low, float high) const {
    const float stretch = high > low ? 255.0f / (high - low) : 0.0f;
    return {factor * stretch, (offset - low) * stretch};
  }
};

/// Least and largest value after the scale; NaN is passed over.
std::pair<float, float> limits(std::span<const float> values, Scale scale);

/// Rounded to nearest and clamped to 0 ... 255; false when a value is NaN or infinite.
bool round_to_bytes(std::span<const float> values, Scale scale, uint8_t* bytes);

/// v = (v + half) >> shift.
void round_shift(std::vector<int32_t>& values, int shift);

/// out = |a| + |b|.
void sum_magnitudes(const std::vector<int32_t>& a, const std::vector<int32_t>& b,
                    std::vector<int32_t>& out);
/// out = a * a + b * b + c * c.
void sum_squares(const std::vector<int32_t>& a, const std::vector<int32_t>& b,
                 const std::vector<int32_t>& c, std::vector<int32_t>& out);

/// Bytes as numbers.
void widen(const uint8_t* bytes, int32_t* values, int64_t count);

/// b = keep[i] < key[i] ? a : b, for each i.
void take_where_larger(const std::vector<int32_t>& key, const std::vector<int32_t>& keep,
                       const std::vector<int32_t>& a, std::vector<int32_t>& b);

/// marks = bytes == byte.
void mark_equal(const uint8_t* bytes, uint8_t byte, uint8_t* marks, int64_t count);

/// sums += bytes.
void add_bytes(const uint8_t* bytes, uint32_t* sums, int64_t count);

/// out = weight * values, or out += weight * values.
void set_weighted(const float* values, double weight, double* out, int64_t count);
void set_weighted(const double* values, double weight, double* out, int64_t count);
void add_weighted(const float* values, double weight, double* out, int64_t count);
void add_weighted(const double* values, double weight, double* out, int64_t count);

}  // namespace vitrail::patching
