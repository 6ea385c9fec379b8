#include "vitrail/train/kernel_profile.h"

#include <gtest/gtest.h>

namespace vitrail::train {
namespace {

TEST(KernelProfile, NamesLoseTemplateArgumentsAndParameters) {
  EXPECT_EQ(short_kernel_name("void vitrail::kernels::gelu<__nv_bfloat16, 4>(float const*, int)"),
            "vitrail::kernels::gelu");
  EXPECT_EQ(short_kernel_name("void (anonymous namespace)::copy<Pair<int, 4>>(int)"),
            "(anonymous namespace)::copy");
  EXPECT_EQ(short_kernel_name("void at::native::vectorized_elementwise_kernel<4, F>(int, F)"),
            "vectorized_elementwise_kernel");
  EXPECT_EQ(short_kernel_name("Memcpy DtoH (Device -> Pinned)"), "Memcpy DtoH");
  EXPECT_EQ(short_kernel_name("nvjet_tst_128x256_64x4_2x1_v_bz_TNT"),
            "nvjet_tst_128x256_64x4_2x1_v_bz_TNT");
}

TEST(KernelProfile, TableNamesTheLongestAndSumsTheRest) {
  KernelProfile profile{.steps = 3, .span_ms = 10, .busy_ms = 8};
  profile.kernels = {{"a", 2, 5}, {"b", 1, 2}, {"c", 1, 1}};
  const std::string text = describe(profile, 1);
  EXPECT_NE(text.find("62.5"), std::string::npos) << text;  // a: 5 of 8 ms
  EXPECT_NE(text.find("3.000"), std::string::npos) << text;  // b and c
  EXPECT_NE(text.find("no call of the host"), std::string::npos) << text;
  profile.waits = {{"cudaMalloc", 0.5, 0.25}};
  EXPECT_NE(describe(profile).find("cudaMalloc"), std::string::npos);
}

}  // namespace
}  // namespace vitrail::train
