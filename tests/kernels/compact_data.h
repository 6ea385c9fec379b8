#pragma once
/// Memory of an arena with compact moments, filled with numbers of all sizes.

#include <cmath>
#include <cstdint>
#include <vector>

#include "vitrail/core/philox.h"
#include "vitrail/kernels/compact_adamw.h"

namespace vitrail::testing {

struct CompactData {
  CompactData(int64_t count, kernels::StateType type_)
      : type(type_),
        master(count),
        gradient(count),
        ema(count),
        weights(count),
        decay(count / kernels::kCompactBlock),
        first(count * (type_ == kernels::StateType::bf16 ? 2 : 1)),
        second(first.size()),
        first_exponent(decay.size()),
        second_exponent(decay.size()) {
    for (int64_t i = 0; i < count; ++i) {
      const auto draw = [&](uint16_t layer) {
        return core::normal({3, core::Stream::test, 0, layer}, 0, static_cast<uint32_t>(i));
      };
      master[i] = draw(0);
      gradient[i] = draw(1) * std::exp2(4 * draw(2));
      ema[i] = draw(3);
    }
    for (size_t b = 0; b < decay.size(); ++b) decay[b] = b % 3 == 1;
  }

  kernels::CompactArena arena(bool has_ema, bool has_weights) {
    kernels::CompactArena arena;
    arena.type = type;
    arena.master = master.data();
    arena.gradient = gradient.data();
    arena.decay = decay.data();
    arena.first = first.data();
    arena.second_root = second.data();
    arena.first_exponent = first_exponent.data();
    arena.second_exponent = second_exponent.data();
    if (has_ema) arena.ema = ema.data();
    if (has_weights) arena.weights_bf16 = weights.data();
    arena.count = static_cast<int64_t>(master.size());
    return arena;
  }
  bool operator==(const CompactData&) const = default;

  kernels::StateType type;
  std::vector<float> master, gradient, ema;
  std::vector<uint16_t> weights;
  std::vector<uint8_t> decay;
  std::vector<uint8_t> first, second;
  std::vector<int8_t> first_exponent, second_exponent;
};

}  // namespace vitrail::testing
