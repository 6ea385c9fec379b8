#pragma once
/// Maps and scores that trees are tried on, CPU and GPU alike.

#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include <ATen/ops/empty.h>

#include "vitrail/core/philox.h"

namespace vitrail::patching::test {

inline constexpr core::DrawKey kTreeKey{5, core::Stream::test, 0, 71};

/// uint8 [B, sides...]: sample 0 flat, 1 one bright pixel, then sparse spots, denser with each sample.
inline at::Tensor random_maps(int64_t batch, const std::vector<int64_t>& sides, uint64_t seed) {
  std::vector<int64_t> shape = sides;
  shape.insert(shape.begin(), batch);
  at::Tensor maps = at::empty(shape, at::kByte);
  auto* bytes = maps.mutable_data_ptr<uint8_t>();
  const int64_t pixels = maps.numel() / batch;
  for (int64_t b = 0; b < batch; ++b)
    for (int64_t i = 0; i < pixels; ++i) {
      const uint32_t draw =
          core::draw(kTreeKey, seed * 1000 + static_cast<uint64_t>(b), static_cast<uint32_t>(i));
      const bool is_set = b == 0   ? false
                          : b == 1 ? i == pixels * 2 / 3
                                   : draw % 256 < static_cast<uint32_t>(1 << (b % 9));
      bytes[b * pixels + i] =
          is_set ? static_cast<uint8_t>(1 + (draw >> 8) % (b % 2 ? 1 : 255)) : 0;
    }
  return maps;
}

/// float [B, cells...] a level, finest first: few different values, so that there are ties, some of them
/// -0, infinite or NaN.
inline std::vector<at::Tensor> random_scores(int64_t batch, const std::vector<int64_t>& coarsest,
                                             int64_t levels, uint64_t seed) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const float odd[] = {0.0f, -0.0f, kInfinity, -kInfinity, std::nanf(""), 1e-40f};
  std::vector<at::Tensor> scores;
  for (int64_t level = 0; level < levels; ++level) {
    std::vector<int64_t> shape{batch};
    for (const int64_t cells : coarsest) shape.push_back(cells << (levels - 1 - level));
    at::Tensor values = at::empty(shape, at::kFloat);
    auto* out = values.mutable_data_ptr<float>();
    for (int64_t i = 0; i < values.numel(); ++i) {
      const uint32_t draw = core::draw(kTreeKey, seed * 100 + static_cast<uint64_t>(level) + 50'000,
                                       static_cast<uint32_t>(i));
      const bool has_ties = seed % 2 == 0;
      out[i] = seed % 5 == 4 && draw % 11 == 0 ? odd[(draw >> 8) % 6]
               : has_ties ? static_cast<float>(static_cast<int32_t>(draw >> 8) % 7 - 3)
                          : core::to_uniform(draw) - 0.5f;
    }
    scores.push_back(values);
  }
  return scores;
}

}  // namespace vitrail::patching::test
