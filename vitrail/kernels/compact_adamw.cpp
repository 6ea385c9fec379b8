#include "vitrail/kernels/compact_adamw.h"

#include <algorithm>
#include <cmath>

#include "vitrail/kernels/compact_element.h"
#include "vitrail/kernels/update_element.h"

namespace vitrail::kernels {
namespace {

struct Moments {
  float m[kCompactBlock], root[kCompactBlock];
};

Moments read(const CompactArena& arena, int64_t block) {
  Moments moments;
  const int64_t first = block * kCompactBlock;
  if (arena.type == StateType::bf16) {
    for (int64_t i = 0; i < kCompactBlock; ++i) {
      moments.m[i] = from_bf16(static_cast<const uint16_t*>(arena.first)[first + i]);
      moments.root[i] = from_bf16(static_cast<const uint16_t*>(arena.second_root)[first + i]);
    }
    return moments;
  }
  const float m_scale = power_of_two(arena.first_exponent[block]);
  const float root_scale = power_of_two(arena.second_exponent[block]);
  for (int64_t i = 0; i < kCompactBlock; ++i) {
    moments.m[i] = from_fp8(static_cast<const uint8_t*>(arena.first)[first + i]) * m_scale;
    moments.root[i] =
        from_fp8(static_cast<const uint8_t*>(arena.second_root)[first + i]) * root_scale;
  }
  return moments;
}

/// `words(i)`: the random word of element i of the block.
template <class Words>
void write(const CompactArena& arena, int64_t block, const Moments& moments, const Words& words) {
  const int64_t first = block * kCompactBlock;
  if (arena.type == StateType::bf16) {
    for (int64_t i = 0; i < kCompactBlock; ++i) {
      const uint32_t word = words(i);
      static_cast<uint16_t*>(arena.first)[first + i] = to_bf16_stochastic(moments.m[i], word >> 16);
      static_cast<uint16_t*>(arena.second_root)[first + i] =
          to_bf16_stochastic(moments.root[i], word);
    }
    return;
  }
  float most_m = 0, most_root = 0;
  for (int64_t i = 0; i < kCompactBlock; ++i) {
    most_m = std::max(most_m, std::abs(moments.m[i]));
    most_root = std::max(most_root, moments.root[i]);
  }
  const int8_t m_exponent = block_exponent(most_m), root_exponent = block_exponent(most_root);
  arena.first_exponent[block] = m_exponent;
  arena.second_exponent[block] = root_exponent;
  const float m_scale = power_of_two(-m_exponent), root_scale = power_of_two(-root_exponent);
  for (int64_t i = 0; i < kCompactBlock; ++i) {
    const uint32_t word = words(i);
    static_cast<uint8_t*>(arena.first)[first + i] =
        to_fp8_stochastic(moments.m[i] * m_scale, word >> 16);
    static_cast<uint8_t*>(arena.second_root)[first + i] =
        to_fp8_stochastic(moments.root[i] * root_scale, word);
  }
}

}  // namespace

void compact_adamw_range(const CompactArena& arena, const AdamwStep& step, uint64_t seed,
                         const float* scale, int64_t begin, int64_t end) {
  compact_adamw_range(arena, factors(step), step.update_count, seed, scale, begin, end);
}

void compact_adamw_range(const CompactArena& arena, const AdamwFactors& f, int64_t update_count,
                         uint64_t seed, const float* scale, int64_t begin, int64_t end) {
  if (*scale == 0.0f) return;
  for (int64_t block = begin; block < end; ++block) {
    Moments moments = read(arena, block);
    const int64_t first = block * kCompactBlock;
    const bool decays = arena.decay[block] != 0;
    for (int64_t i = 0; i < kCompactBlock; ++i) {
      Element e{arena.master[first + i],
                arena.gradient[first + i],
                moments.m[i],
                times(moments.root[i], moments.root[i]),
                arena.ema ? arena.ema[first + i] : 0.0f,
                decays};
      update(e, f, *scale);
      arena.master[first + i] = e.p;
      if (arena.ema) arena.ema[first + i] = e.ema;
      if (arena.weights_bf16) arena.weights_bf16[first + i] = to_bf16(e.p);
      moments.m[i] = e.m;
      moments.root[i] = root(e.v);
    }
    const uint64_t place = arena.places ? arena.places[block] : static_cast<uint64_t>(block);
    core::Philox4 four{};
    write(arena, block, moments, [&](int64_t i) {
      if (i % 4 == 0)
        four = rounding_words(seed, static_cast<int64_t>(place * (kCompactBlock / 4)) + i / 4,
                              static_cast<uint32_t>(update_count));
      return four.x[i % 4];
    });
  }
}

void expand_moments(const CompactArena& arena, float* first, float* second) {
  for (int64_t block = 0; block < arena.count / kCompactBlock; ++block) {
    const Moments moments = read(arena, block);
    for (int64_t i = 0; i < kCompactBlock; ++i) {
      first[block * kCompactBlock + i] = moments.m[i];
      second[block * kCompactBlock + i] = moments.root[i] * moments.root[i];
    }
  }
}

/// Values that came out of expand_moments are representable, so no word rounds them up: the root of a square that was
/// rounded once is the number that was squared.
void compact_moments(const CompactArena& arena, const float* first, const float* second) {
  for (int64_t block = 0; block < arena.count / kCompactBlock; ++block) {
    Moments moments;
    for (int64_t i = 0; i < kCompactBlock; ++i) {
      moments.m[i] = first[block * kCompactBlock + i];
      moments.root[i] = std::sqrt(second[block * kCompactBlock + i]);
    }
    constexpr uint32_t kHalf = 0x80008000u;  // to the nearest
    write(arena, block, moments, [](int64_t) { return kHalf; });
  }
}

}  // namespace vitrail::kernels
