// The rounding kernel against its CPU form.

#include "vitrail/kernels/f16.h"

#include <cmath>
#include <vector>

#include <gtest/gtest.h>

#include "emulator.h"
#include "vitrail/core/philox.h"

namespace vitrail::kernels {
namespace {

TEST(EmulatedF16, RoundsAsTheCpuDoes) {
  for (const int64_t count : {0, 3, 1023, 70001}) {
    std::vector<float> in(static_cast<size_t>(count) + 4);
    for (size_t i = 0; i < in.size(); ++i)
      in[i] = std::ldexp(core::uniform({3, core::Stream::test, 0, 1}, 0, static_cast<uint32_t>(i)),
                         static_cast<int>(i % 60) - 40);
    std::vector<uint16_t> found(in.size(), 7), expected(in.size(), 7);
    cast_f16_cpu(expected.data(), in.data(), 0, count);
    cast_f16(found.data(), in.data(), count, nullptr);
    EXPECT_EQ(found, expected) << count;
  }
}

}  // namespace
}  // namespace vitrail::kernels
