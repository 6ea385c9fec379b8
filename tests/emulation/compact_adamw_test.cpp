// The kernel with compact moments against the loop of the CPU, and its numbers against torch's.

#include "vitrail/kernels/compact_adamw.h"

#include <cmath>

#include <c10/util/Float8_e4m3fn.h>
#include <gtest/gtest.h>

#include "tests/kernels/compact_data.h"
#include "vitrail/kernels/compact_element.h"

namespace vitrail::kernels {
namespace {

TEST(EmulatedCompactAdamw, GivesTheBitsOfTheLoop) {
  for (const StateType type : {StateType::bf16, StateType::fp8})
    for (const bool optional : {false, true}) {
      // 19 blocks: the last CTA has warps without one.
      testing::CompactData kernel(19 * kCompactBlock, type), loop(19 * kCompactBlock, type);
      for (int64_t step = 1; step <= 3; ++step) {
        const AdamwStep options{
            .learning_rate = 1e-2, .weight_decay = 0.1, .ema_decay = 0.9, .update_count = step};
        const float scale = 0.7f;
        compact_adamw(kernel.arena(optional, optional), options, 11, &scale, nullptr);
        compact_adamw_range(loop.arena(optional, optional), options, 11, &scale, 0, 19);
      }
      EXPECT_TRUE(kernel == loop);
    }
}

TEST(EmulatedCompactAdamw, ReadsConstantsAndPlacesFromMemory) {
  for (const StateType type : {StateType::bf16, StateType::fp8}) {
    const AdamwStep options{.learning_rate = 1e-2, .weight_decay = 0.1, .update_count = 6};
    const AdamwFactors constants = factors(options);
    const Pace pace{.updates = 6};
    const float scale = 0.7f;
    std::vector<uint64_t> places;
    for (uint64_t block = 0; block < 9; ++block) places.push_back((block % 3 << 35) + 40 - block);
    testing::CompactData kernel(9 * kCompactBlock, type), loop(9 * kCompactBlock, type);
    CompactArena on_device = kernel.arena(true, true), on_host = loop.arena(true, true);
    on_device.places = on_host.places = places.data();
    compact_adamw(on_device, &constants, &pace, 11, &scale, nullptr);
    compact_adamw_range(on_host, options, 11, &scale, 0, 9);
    EXPECT_TRUE(kernel == loop);
    testing::CompactData in_order(9 * kCompactBlock, type);
    compact_adamw_range(in_order.arena(true, true), options, 11, &scale, 0, 9);
    EXPECT_NE(in_order.second, loop.second) << "places must matter";
  }
}

TEST(Fp8, CodesMeanWhatTorchSays) {
  for (int code = 0; code < 256; ++code) {
    const float expected = c10::detail::fp8e4m3fn_to_fp32_value(static_cast<uint8_t>(code));
    if (std::isnan(expected)) continue;
    EXPECT_EQ(from_fp8(static_cast<uint8_t>(code)), expected) << code;
  }
}

}  // namespace
}  // namespace vitrail::kernels
