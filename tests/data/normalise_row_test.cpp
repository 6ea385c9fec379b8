#include "vitrail/data/normalise_row.h"

#include <bit>
#include <limits>
#include <vector>

#include <gtest/gtest.h>

#include "vitrail/core/philox.h"

namespace vitrail::data {
namespace {

TEST(NormaliseRow, EqualsTheRulePixelByPixelForAnyStep) {
  std::vector<float> values;
  for (uint32_t i = 0; i < 3000; ++i)
    values.push_back(static_cast<float>(core::draw({1, core::Stream::test, 0, 0}, 0, i) % 70000) *
                         0.01f -
                     200.0f);
  values[1500] = std::numeric_limits<float>::quiet_NaN();
  values[1501] = std::numeric_limits<float>::infinity();
  for (const bool clips : {false, true})
    for (const int64_t step : {1, -1, 2, 3, -3, 4, -7})
      for (const int64_t count : {0, 1, 7, 8, 33, 200}) {
        const Normalisation rule{-10.5f, 255.3f, 0.485f, 0.229f, clips};
        std::vector<float> out(static_cast<size_t>(count) + 1, 7.0f);
        normalise_row(values.data() + 1500, step, count, rule, out.data());
        for (int64_t i = 0; i < count; ++i)
          EXPECT_EQ(std::bit_cast<uint32_t>(out[static_cast<size_t>(i)]),
                    std::bit_cast<uint32_t>(rule(values[static_cast<size_t>(1500 + i * step)])))
              << "step " << step << ", pixel " << i;
        EXPECT_EQ(out.back(), 7.0f);
      }
}

}  // namespace
}  // namespace vitrail::data
