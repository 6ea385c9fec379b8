// The uniforms of the kernels against those of the CPU loop, bit for bit.

#include "vitrail/kernels/philox.h"

#include <vector>

#include <gtest/gtest.h>

namespace vitrail::kernels {
namespace {

const core::DrawKey kKey{7, core::Stream::mask, 3, 2};
const std::vector<int64_t> kSamples = {5, 1, 1'000'000'007};

TEST(EmulatedPhilox, IsTheCpuLoop) {
  for (const int64_t per_sample : {1, 4, 1003}) {
    std::vector<float> expected(static_cast<size_t>(3 * per_sample), -2.0f), got = expected;
    philox_uniform_cpu(expected.data(), kSamples.data(), 3, per_sample, kKey);
    philox_uniform(got.data(), kSamples.data(), 3, per_sample, kKey, nullptr);
    EXPECT_EQ(expected, got);
  }
}

TEST(EmulatedPhilox, AWindowIsTheCpuLoop) {
  // Past the whole's end along both axes, and rows that begin off a multiple of 4.
  const PhiloxWindow window{2, {5, 7}, {3, 9}, {6, 13}};
  std::vector<float> expected(3 * 5 * 7, -2.0f), got = expected;
  philox_uniform_window_cpu(expected.data(), kSamples.data(), 3, window, kKey);
  philox_uniform_window(got.data(), kSamples.data(), 3, window, kKey, nullptr);
  EXPECT_EQ(expected, got);
}

}  // namespace
}  // namespace vitrail::kernels
