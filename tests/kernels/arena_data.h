#pragma once
/// Random arenas for tests of the updates.

#include <cstdint>
#include <vector>

#include "vitrail/core/philox.h"
#include "vitrail/kernels/optimizer.h"

namespace vitrail::testing {

struct ArenaData {
  std::vector<float> master, gradient, first, second, ema;
  std::vector<uint8_t> decay;
  std::vector<uint16_t> weights;

  explicit ArenaData(int64_t count, uint64_t seed = 1)
      : master(count),
        gradient(count),
        first(count),
        second(count),
        ema(count),
        decay((count + kernels::kFlagGroup - 1) / kernels::kFlagGroup),
        weights(count) {
    const auto value = [&](uint16_t layer, int64_t i) {
      return 2.0f *
                 core::uniform({seed, core::Stream::test, 0, layer}, 0, static_cast<uint32_t>(i)) -
             1.0f;
    };
    for (int64_t i = 0; i < count; ++i) {
      master[i] = value(0, i);
      gradient[i] = 0.1f * value(1, i);
      first[i] = 0.1f * value(2, i);
      second[i] = 0.01f * (value(3, i) + 1.0f);
      ema[i] = value(4, i);
    }
    for (size_t i = 0; i < decay.size(); ++i) decay[i] = value(5, static_cast<int64_t>(i)) > 0.0f;
  }

  kernels::Arena arena(bool with_ema, bool with_bf16) {
    return {master.data(),
            gradient.data(),
            decay.data(),
            first.data(),
            second.data(),
            with_ema ? ema.data() : nullptr,
            with_bf16 ? weights.data() : nullptr,
            static_cast<int64_t>(master.size())};
  }
};

}  // namespace vitrail::testing
