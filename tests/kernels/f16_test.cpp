#include "vitrail/kernels/f16.h"

#include <cmath>
#include <vector>

#include <c10/util/Half.h>
#include <gtest/gtest.h>

#include "vitrail/core/philox.h"

namespace vitrail::kernels {
namespace {

bool is_nan(uint16_t bits) { return (bits & 0x7FFFu) > 0x7C00u; }

TEST(F16, RoundsEveryFloatAsTheLibraryDoes) {
  // Every exponent and sign, the mantissas next to each tie and at random.
  int64_t compared = 0;
  for (uint32_t upper = 0; upper < (1u << 16); ++upper)
    for (uint32_t i = 0; i < 24; ++i) {
      const uint32_t lower = i < 8 ? (i % 4) * 0x2000u + (i < 4 ? 0xFFFu : 0x1000u) + (i % 2)
                                   : core::draw({3, core::Stream::test, 0, 0}, upper, i) & 0xFFFFu;
      const float value = __builtin_bit_cast(float, (upper << 16) | (lower & 0xFFFFu));
      const uint16_t found = to_f16(value), expected = c10::Half(value).x;
      ++compared;
      if (is_nan(expected))
        ASSERT_TRUE(is_nan(found)) << value;
      else
        ASSERT_EQ(found, expected) << value << " " << std::hexfloat << value;
    }
  EXPECT_EQ(compared, int64_t{24} << 16);
}

TEST(F16, TheLoopIsTheFunction) {
  std::vector<float> in(1001);
  for (size_t i = 0; i < in.size(); ++i)
    in[i] = std::ldexp(core::uniform({3, core::Stream::test, 0, 1}, 0, static_cast<uint32_t>(i)),
                       static_cast<int>(i % 60) - 40);
  std::vector<uint16_t> out(in.size(), 0xAAAA);
  cast_f16_cpu(out.data(), in.data(), 3, 1000);
  for (size_t i = 0; i < in.size(); ++i)
    EXPECT_EQ(out[i], i < 3 || i == 1000 ? 0xAAAA : to_f16(in[i])) << i;
}

}  // namespace
}  // namespace vitrail::kernels
