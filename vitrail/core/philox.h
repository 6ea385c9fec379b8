#pragma once
/// Randomness as a function: every draw is Philox4x32-10 of (run seed, stream, step, sample, layer, element).
///
/// Paper    Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"; constants of Random123.
/// Use      nothing keeps generator state, so any rank, device or restart draws the same number for the same place.
/// Devices  the functions are the same source on CPU and GPU and give the same bits.

#include <array>
#include <cmath>
#include <cstdint>

#if defined(__CUDACC__)
#define VT_HOST_DEVICE __host__ __device__
#else
#define VT_HOST_DEVICE
#endif

namespace vitrail::core {

/// What a draw is for; a stream never shares numbers with another.
enum class Stream : uint32_t {
  order = 1, crop, flip, augment, init, mask, drop_path, dropout, patch_drop, time, noise, test
};

/// The place of a family of draws. `step` is the optimizer step (or the epoch, for data), `layer` whatever tells
/// apart several draws of one stream for one sample (block index, augmentation index).
struct DrawKey {
  uint64_t seed = 0;
  Stream stream = Stream::test;
  uint32_t step = 0;
  uint16_t layer = 0;
  /// Where the step is read when it is drawn, in memory of the device that draws; null: `step`. So recorded work draws
  /// anew each time it is repeated.
  const uint32_t* step_place = nullptr;
};

struct Philox4 {
  uint32_t x[4];
};

/// Ten rounds of Philox4x32.
VT_HOST_DEVICE inline Philox4 philox4x32(Philox4 counter, uint32_t key0, uint32_t key1) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = 0xD2511F53ull * counter.x[0];
    const uint64_t product1 = 0xCD9E8D57ull * counter.x[2];
    counter = Philox4{{static_cast<uint32_t>(product1 >> 32) ^ counter.x[1] ^ key0, static_cast<uint32_t>(product1),
                       static_cast<uint32_t>(product0 >> 32) ^ counter.x[3] ^ key1, static_cast<uint32_t>(product0)}};
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return counter;
}

/// SplitMix64's finaliser: spreads every input bit over the result.
VT_HOST_DEVICE inline uint64_t mix64(uint64_t value) {
  value += 0x9E3779B97F4A7C15ull;
  value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9ull;
  value = (value ^ (value >> 27)) * 0x94D049BB133111EBull;
  return value ^ (value >> 31);
}

/// Four 32-bit words: elements 4*block .. 4*block+3 of `sample` (sample < 2^48).
VT_HOST_DEVICE inline Philox4 draw4(const DrawKey& key, uint64_t sample, uint32_t block) {
  const uint64_t mixed = mix64(key.seed ^ mix64(static_cast<uint64_t>(key.stream)));
  const uint32_t step = key.step_place ? *key.step_place : key.step;
  const Philox4 counter{{block, static_cast<uint32_t>(sample),
                         (static_cast<uint32_t>(key.layer) << 16) | static_cast<uint32_t>((sample >> 32) & 0xFFFFu),
                         step}};
  return philox4x32(counter, static_cast<uint32_t>(mixed), static_cast<uint32_t>(mixed >> 32));
}

VT_HOST_DEVICE inline uint32_t draw(const DrawKey& key, uint64_t sample, uint32_t element) {
  return draw4(key, sample, element / 4).x[element % 4];
}

/// Uniform in [0, 1): the upper 24 bits, exact in fp32.
VT_HOST_DEVICE inline float to_uniform(uint32_t bits) { return static_cast<float>(bits >> 8) * (1.0f / 16777216.0f); }

VT_HOST_DEVICE inline float uniform(const DrawKey& key, uint64_t sample, uint32_t element) {
  return to_uniform(draw(key, sample, element));
}

/// Standard normal by Box and Muller from draws 2*element and 2*element + 1, so element < 2^31 and a family of draws
/// is either uniform or normal; |value| < 6.7. The bits come from log and cos of the device's own library: equal for
/// one build on one device, within a few ulp between CPU and GPU.
VT_HOST_DEVICE inline float normal(const DrawKey& key, uint64_t sample, uint32_t element) {
  const Philox4 four = draw4(key, sample, element / 2);
  const int first = static_cast<int>(element % 2) * 2;
  const float radius_draw = (static_cast<float>(four.x[first]) + 1.0f) * (1.0f / 4294967296.0f);  // (0, 1]
  const float angle = to_uniform(four.x[first + 1]) * 6.283185307179586f;
  return ::sqrtf(-2.0f * ::logf(radius_draw)) * ::cosf(angle);
}

}  // namespace vitrail::core
