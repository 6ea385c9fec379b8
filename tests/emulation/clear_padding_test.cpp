// Zeros past each sample's length, and nothing else touched.

#include "vitrail/kernels/cuda/clear_padding.h"

#include <vector>

#include <gtest/gtest.h>

namespace vitrail::kernels {
namespace {

TEST(EmulatedClearPadding, WritesZerosPastTheLengthAndNothingElse) {
  // Two tensors of different layout: rows of 24 values side by side in rows of 80, and 24 alone.
  constexpr int64_t samples = 4, tokens = 37, width = 24, wide = 80;
  constexpr uint16_t kBefore = 0x7FC1;  // NaN
  std::vector<uint16_t> first(samples * tokens * wide, kBefore);
  std::vector<uint16_t> second(samples * tokens * width, kBefore);
  const std::vector<int32_t> lengths{1, 16, 36, 37};
  clear_padding({first.data() + 32, tokens * wide, wide}, {second.data(), tokens * width, width},
                lengths.data(), samples, tokens, width, nullptr);
  for (int64_t sample = 0; sample < samples; ++sample)
    for (int64_t token = 0; token < tokens; ++token) {
      const bool is_padding = token >= lengths[static_cast<size_t>(sample)];
      for (int64_t i = 0; i < wide; ++i) {
        const bool is_ours = i >= 32 && i < 32 + width;
        EXPECT_EQ(first[(sample * tokens + token) * wide + i], is_padding && is_ours ? 0 : kBefore)
            << sample << " " << token << " " << i;
      }
      for (int64_t i = 0; i < width; ++i)
        EXPECT_EQ(second[(sample * tokens + token) * width + i], is_padding ? 0 : kBefore);
    }
}

}  // namespace
}  // namespace vitrail::kernels
