#pragma once
/// The arithmetic of edges and importance for one pixel, the same on CPU and GPU.
///
/// Numbers  whole numbers, but for the scale of floats to bytes: there products and sums round one by
///          one, so that both devices round alike.

#include <cstdint>

#include "vitrail/core/philox.h"  // VT_HOST_DEVICE

namespace vitrail::patching {

#if defined(__CUDA_ARCH__)
__device__ inline float rounded_product(float a, float b) { return __fmul_rn(a, b); }
__device__ inline float rounded_sum(float a, float b) { return __fadd_rn(a, b); }
#else
VT_HOST_DEVICE inline float rounded_product(float a, float b) { return a * b; }
VT_HOST_DEVICE inline float rounded_sum(float a, float b) { return a + b; }
#endif

/// value * factor + offset.
struct Scale {
  float factor = 1.0f, offset = 0.0f;

  VT_HOST_DEVICE float of(float value) const {
    return rounded_sum(rounded_product(value, factor), offset);
  }
  /// The same, then low ... high onto 0 ... 255 (all onto 0 when they are equal).
  VT_HOST_DEVICE Scale onto_bytes(float low, float high) const {
    const float stretch = high > low ? 255.0f / (high - low) : 0.0f;
    return {rounded_product(factor, stretch), rounded_product(offset - low, stretch)};
  }
  /// black becomes 0, white 1.
  VT_HOST_DEVICE static Scale between(float black, float white) {
    const float factor = 1.0f / (white - black);
    return {factor, -rounded_product(black, factor)};
  }
};

VT_HOST_DEVICE inline bool is_finite(float value) { return value - value == 0.0f; }

/// Rounded to nearest and clamped to 0 ... 255; NaN and infinity become 0.
VT_HOST_DEVICE inline uint8_t byte_of(float value, Scale scale) {
  const float scaled = scale.of(value);
  // The comparisons are false for NaN, which so becomes 0.
  const float limited = scaled > 0.0f ? (scaled < 255.0f ? scaled : 255.0f) : 0.0f;
  return static_cast<uint8_t>(
      static_cast<int32_t>(is_finite(value) ? rounded_sum(limited, 0.5f) : 0.0f));
}

/// Floats as whole numbers of the same order; 0 stands for none.
VT_HOST_DEVICE inline uint32_t order_key(float value) {
  union {
    float number;
    uint32_t bits;
  } both{value};
  return both.bits >> 31 != 0 ? ~both.bits : both.bits | 0x80000000u;
}
VT_HOST_DEVICE inline float from_order_key(uint32_t key) {
  union {
    uint32_t bits;
    float number;
  } both{key >> 31 != 0 ? key & 0x7FFFFFFFu : ~key};
  return both.number;
}

/// Whether the sample goes from its least to its largest value: no range, or one of no extent.
VT_HOST_DEVICE inline bool stretches(const float* range, int64_t channels) {
  if (range == nullptr) return true;
  for (int64_t c = 0; c < channels; ++c)
    if (!(range[2 * c] < range[2 * c + 1] || range[2 * c] > range[2 * c + 1])) return true;
  return false;
}

/// scales [channels] of a sample; limits [channels, 2]: order_key of the largest, ~order_key of the
/// least finite value. Products and sums round monotonously: the scaled limits are the limits of the
/// scaled values.
VT_HOST_DEVICE inline void sample_scales(const uint32_t* limits, const float* range,
                                         int64_t channels, Scale* scales) {
  const bool stretch = stretches(range, channels);
  float low = 0.0f, high = 1.0f;
  bool is_first = stretch;
  for (int64_t c = 0; c < channels; ++c) {
    scales[c] = stretch ? Scale{} : Scale::between(range[2 * c], range[2 * c + 1]);
    if (limits[2 * c] == 0) continue;
    const float a = scales[c].of(from_order_key(~limits[2 * c + 1]));
    const float z = scales[c].of(from_order_key(limits[2 * c]));
    const float least = a < z ? a : z, largest = a < z ? z : a;
    low = is_first || least < low ? least : low;
    high = is_first || largest > high ? largest : high;
    is_first = false;
  }
  for (int64_t c = 0; c < channels; ++c) scales[c] = scales[c].onto_bytes(low, high);
}

/// Index i of an axis of n that may lie outside: the mirror image without the last pixel (c b|a b c).
template <class Index>
VT_HOST_DEVICE inline Index reflected(Index i, Index n) {
  if (n == 1) return 0;
  while (i < 0 || i >= n) i = i < 0 ? -i : 2 * (n - 1) - i;
  return i;
}
/// The same with the last pixel going on (a a|a b c).
template <class Index>
VT_HOST_DEVICE inline Index replicated(Index i, Index n) {
  return i < 0 ? 0 : i >= n ? n - 1 : i;
}

VT_HOST_DEVICE constexpr int32_t absolute(int32_t v) { return v < 0 ? -v : v; }

/// floor(length * tan(22.5 degrees)), in 15-bit fixed point as OpenCV rounds it. Below 32768 no length
/// but 0 gives a whole number, so that floor loses no comparison.
constexpr int32_t kTangent = 13573;
VT_HOST_DEVICE inline int32_t tangent_of(int32_t length) { return (length * kTangent) >> 15; }

/// Directions are numbered 9 dz + 3 dy + dx, of a step and its opposite the one above 0; 0 = none.
struct Step {
  int32_t z, y, x;
};
VT_HOST_DEVICE inline Step step_of(int32_t direction) {
  const int32_t x = (direction + 1) % 3 - 1, rest = (direction - x) / 3, y = (rest + 1) % 3 - 1;
  return {(rest - y) / 3, y, x};
}

/// OpenCV's choice for an image's pixel.
VT_HOST_DEVICE inline int32_t image_direction(int32_t gy, int32_t gx) {
  const int32_t x = absolute(gx), y = absolute(gy), tangent = tangent_of(x);
  if (y <= tangent) return 1;
  if (y > tangent + 2 * x) return 3;
  return (gx < 0) != (gy < 0) ? 2 : 4;
}

/// Has each component that is above tan(22.5 degrees) of the largest.
VT_HOST_DEVICE inline int32_t volume_direction(int32_t gz, int32_t gy, int32_t gx) {
  const int32_t z = absolute(gz), y = absolute(gy), x = absolute(gx);
  const int32_t largest = z > y ? (z > x ? z : x) : (y > x ? y : x);
  const int32_t tangent = tangent_of(largest);
  const int32_t signed_step = (z > tangent ? (gz < 0 ? -9 : 9) : 0) +
                              (y > tangent ? (gy < 0 ? -3 : 3) : 0) +
                              (x > tangent ? (gx < 0 ? -1 : 1) : 0);
  return absolute(signed_step);
}

/// Of equal neighbours the later one gives way; on an image's diagonals (directions 2 and 4) both do,
/// as in OpenCV.
VT_HOST_DEVICE inline bool is_ridge(int32_t norm, int32_t before, int32_t after, bool is_strict) {
  return norm > before && norm > after - (is_strict ? 0 : 1);
}

/// A threshold in the units of the norm: of an image |gx| + |gy|, of a volume the square of 4 times the
/// length.
VT_HOST_DEVICE inline int32_t norm_threshold(int64_t threshold, bool is_volume) {
  constexpr int64_t kLargest = 8192;  // above any gradient of bytes
  const int64_t limited = threshold < kLargest ? threshold : kLargest;
  return static_cast<int32_t>(is_volume ? 16 * limited * limited : limited);
}

enum EdgeState : uint8_t { nothing, weak, edge };

/// Importance of a Sobel gradient with the given sum of squares: floor of a quarter of its length, at
/// most 255. A volume's gradient is 4 times as long.
VT_HOST_DEVICE inline int32_t gradient_importance(int32_t squares, bool is_volume) {
  const int32_t reduced = squares >> (is_volume ? 8 : 4);
  const int32_t limited = reduced < 255 * 255 ? reduced : 255 * 255;
#if defined(__CUDA_ARCH__)
  return static_cast<int32_t>(__fsqrt_rn(static_cast<float>(limited)));
#else
  return static_cast<int32_t>(__builtin_sqrtf(static_cast<float>(limited)));
#endif
}

/// Importance of a pixel whose neighbourhood of kCount pixels (itself included) has the given sum:
/// floor of a 16th of the squared difference from its mean, at most 255.
template <int32_t kCount>
VT_HOST_DEVICE inline int32_t variance_importance(int32_t value, int32_t sum) {
  const int32_t difference = kCount * value - sum;  // at most 255 * 125, its square below 2^31
  const uint32_t squared = static_cast<uint32_t>(difference * difference);
  const uint32_t importance = squared / (16u * kCount * kCount);
  return static_cast<int32_t>(importance < 255 ? importance : 255);
}

/// What edges are looked for with, drawn for one sample of training: blur 1, 3 or 5, low in 50 ... 99;
/// high is low + 50.
struct DrawnEdges {
  int32_t blur, low, high;
};
VT_HOST_DEVICE inline DrawnEdges draw_edges(uint64_t seed, int64_t epoch, int64_t index) {
  constexpr uint16_t kEdgeLayer = 0xFFF0;  // augmentation steps count up from 0
  const core::DrawKey key{seed, core::Stream::augment, static_cast<uint32_t>(epoch), kEdgeLayer};
  const auto sample = static_cast<uint64_t>(index);
  const auto blur = static_cast<int32_t>(rounded_product(core::uniform(key, sample, 0), 3.0f));
  const auto low = static_cast<int32_t>(rounded_product(core::uniform(key, sample, 1), 50.0f));
  return {1 + 2 * blur, 50 + low, 100 + low};
}

}  // namespace vitrail::patching
