#pragma once
/// Loops over pixels that the compiler turns into vector instructions.

#include <cmath>
#include <cstdint>
#include <span>
#include <utility>

#include "vitrail/patching/edges_math.h"

namespace vitrail::patching {

/// Least and largest value; NaN is passed over.
std::pair<float, float> limits_of(std::span<const float> values);

/// Rounded to nearest and clamped to 0 ... 255; false when a value is NaN or infinite.
bool round_to_bytes(std::span<const float> values, Scale scale, uint8_t* bytes);

/// sums += bytes.
void add_bytes(const uint8_t* bytes, uint32_t* sums, int64_t count);

/// out = weight * values, or out += weight * values.
void set_weighted(const float* values, double weight, double* out, int64_t count);
void set_weighted(const double* values, double weight, double* out, int64_t count);
void add_weighted(const float* values, double weight, double* out, int64_t count);
void add_weighted(const double* values, double weight, double* out, int64_t count);

}  // namespace vitrail::patching
