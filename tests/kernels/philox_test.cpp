#include "vitrail/kernels/philox.h"

#include <algorithm>
#include <vector>

#include <gtest/gtest.h>

namespace vitrail::kernels {
namespace {

TEST(PhiloxUniform, EqualsTheDrawOfEveryPlace) {
  const core::DrawKey key{.seed = 7, .stream = core::Stream::dropout, .step = 3, .layer = 5};
  const std::vector<int64_t> ids{0, 1, 77, (int64_t{1} << 40) + 3};
  for (const int64_t per_sample : {1, 3, 4, 5, 31, 64}) {
    std::vector<float> out(ids.size() * per_sample, -1.0f);
    philox_uniform_cpu(out.data(), ids.data(), static_cast<int64_t>(ids.size()), per_sample, key);
    for (size_t b = 0; b < ids.size(); ++b)
      for (int64_t e = 0; e < per_sample; ++e)
        ASSERT_EQ(out[b * per_sample + e], core::uniform(key, ids[b], static_cast<uint32_t>(e)));
  }
}

TEST(PhiloxUniform, DoesNotDependOnTheOrderOfSamples) {
  const core::DrawKey key{.seed = 1, .stream = core::Stream::drop_path, .step = 9, .layer = 2};
  const std::vector<int64_t> ids{5, 9}, swapped{9, 5};
  std::vector<float> a(2 * 6), b(2 * 6);
  philox_uniform_cpu(a.data(), ids.data(), 2, 6, key);
  philox_uniform_cpu(b.data(), swapped.data(), 2, 6, key);
  EXPECT_TRUE(std::equal(a.begin(), a.begin() + 6, b.begin() + 6));
  EXPECT_FALSE(std::equal(a.begin(), a.begin() + 6, b.begin()));
}

TEST(PhiloxUniform, IsFlatOnTheUnitInterval) {
  const int64_t count = 1 << 16;
  const std::vector<int64_t> ids{1};
  std::vector<float> out(count);
  philox_uniform_cpu(out.data(), ids.data(), 1, count, {.seed = 3});
  double mean = 0;
  for (const float value : out) {
    ASSERT_GE(value, 0.0f);
    ASSERT_LT(value, 1.0f);
    mean += value / count;
  }
  // Standard error of the mean is 0.29 / 256 = 1.1e-3; five of them.
  EXPECT_NEAR(mean, 0.5, 5.6e-3);
}

}  // namespace
}  // namespace vitrail::kernels
