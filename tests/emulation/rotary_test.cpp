// The rotary kernel against the formula.

#include "vitrail/kernels/rotary.h"

#include <cmath>
#include <cstdio>
#include <vector>

#include <gtest/gtest.h>

#include "emulator.h"
#include "vitrail/core/philox.h"
#include "vitrail/kernels/bf16.h"

namespace vitrail::kernels {
namespace {

std::vector<float> random(int64_t count, uint16_t layer) {
  std::vector<float> values(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i)
    values[i] =
        core::uniform({5, core::Stream::test, 0, layer}, 0, static_cast<uint32_t>(i)) - 0.5f;
  return values;
}

TEST(EmulatedRotary, EqualsTheFormula) {
  for (const int64_t pairs : {16, 3}) {  // whole packs, and one pair at a time
    const RotaryShape shape{2, 7, 3, pairs, 7 * 9 * pairs * 2, 9 * pairs * 2, 2 * pairs, 0, false};
    const std::vector<float> x = random(2 * 7 * 9 * pairs * 2, 0), c = random(7 * pairs, 1),
                             s = random(7 * pairs, 2);
    std::vector<float> out(static_cast<size_t>(2 * 7 * 3 * pairs * 2), NAN);
    rotate_f32(x.data(), c.data(), s.data(), shape, out.data(), nullptr);
    float worst = 0;
    for (int64_t b = 0; b < 2; ++b)
      for (int64_t t = 0; t < 7; ++t)
        for (int64_t h = 0; h < 3; ++h)
          for (int64_t p = 0; p < pairs; ++p) {
            const float* from =
                &x[b * shape.stride_batch + t * shape.stride_token + h * shape.stride_head + 2 * p];
            const float* to = &out[((b * 7 + t) * 3 + h) * 2 * pairs + 2 * p];
            const float co = c[t * pairs + p], si = s[t * pairs + p];
            worst = std::fmax(worst, std::fabs(to[0] - (from[0] * co - from[1] * si)));
            worst = std::fmax(worst, std::fabs(to[1] - (from[0] * si + from[1] * co)));
          }
    std::printf("%ld pairs: worst difference %g (allowed 0: the same operations)\n",
                static_cast<long>(pairs), static_cast<double>(worst));
    EXPECT_EQ(worst, 0.0f);
    EXPECT_FALSE(std::isnan(out.back()));
  }
}

}  // namespace
}  // namespace vitrail::kernels
