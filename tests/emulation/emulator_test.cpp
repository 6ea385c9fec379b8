// What the emulator computes and what it finds, on kernels that are right and wrong.

#include "emulator.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <functional>
#include <numeric>
#include <set>
#include <string>
#include <vector>

#include <cuda_fp16.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "faulty_kernels.h"
#include "vitrail/core/error.h"
#include "vitrail/kernels/bf16.h"

namespace emulation {
namespace {

using ::testing::HasSubstr;

std::vector<float> counting(size_t count) {
  std::vector<float> values(count);
  std::iota(values.begin(), values.end(), 1.0f);
  return values;
}

std::string error_of(const std::function<void()>& work) {
  try {
    work();
  } catch (const vitrail::core::Error& error) {
    return error.what();
  }
  return "nothing was found";
}

std::vector<float> reversed(const std::function<void(const float*, float*)>& kernel, size_t count) {
  const std::vector<float> in = counting(count);
  std::vector<float> out(count);
  kernel(in.data(), out.data());
  return out;
}

TEST(Emulator, RunsABlockThroughSharedMemory) {
  std::vector<float> expected = counting(100);
  std::reverse(expected.begin(), expected.end());
  in_every_order(3, [&] {
    EXPECT_EQ(reversed([](auto in, auto out) { reverse(in, out, 100, true); }, 100), expected);
    EXPECT_EQ(reversed([](auto in, auto out) { reverse_dynamic(in, out, 100, 400); }, 100),
              expected);
  });
}

TEST(Emulator, AMissingBarrierReadsPoison) {
  in_every_order(3, [] {
    const auto result = reversed([](auto in, auto out) { reverse(in, out, 100, false); }, 100);
    EXPECT_TRUE(std::any_of(result.begin(), result.end(), [](float x) { return std::isnan(x); }));
  });
}

TEST(Emulator, ARaceGivesResultsThatDependOnTheOrder) {
  std::set<std::vector<float>> with, without;
  in_every_order(4, [&] {
    for (const bool has_second : {true, false}) {
      std::vector<float> values = counting(64);
      pass_on(values.data(), 64, 3, has_second);
      (has_second ? with : without).insert(values);
    }
  });
  EXPECT_EQ(with.size(), 1u);
  EXPECT_EQ((*with.begin())[0], 7.0f);  // 4 from three to the right, plus 3
  EXPECT_GT(without.size(), 1u);
}

TEST(Emulator, ABarrierThatNotAllThreadsReachIsAnError) {
  std::vector<float> out(64);
  const std::string error = error_of([&] { leave_early(out.data(), 64, 3); });
  EXPECT_THAT(error, HasSubstr("block (0,0,0): thread (3,0,0) is at the barrier"));
  EXPECT_THAT(error, HasSubstr("thread (0,0,0) has ended"));
  EXPECT_THAT(error, HasSubstr("faulty_kernels.cpp:"));
  EXPECT_NO_THROW(leave_early(out.data(), 64, 0));  // and the next launch is a fresh start
}

TEST(Emulator, TwoBarriersInTwoBranchesAreAnError) {
  std::vector<float> out(64);
  EXPECT_THAT(error_of([&] { divergent(out.data(), 64); }), HasSubstr("divergent barrier"));
}

TEST(Emulator, AWarpOperationWithLanesMissingIsAnError) {
  std::vector<float> out(32);
  EXPECT_THAT(error_of([&] { partial_warp_sum(out.data(), 20); }),
              HasSubstr("__shfl_xor_sync of faulty_kernels.cpp"));
  partial_warp_sum(out.data(), 32);
  EXPECT_EQ(out, std::vector<float>(32, 32.0f));
}

TEST(Emulator, AnAsynchronousCopyIsThereOnlyAfterTheWaitAndTheBarrier) {
  const std::vector<float> in = counting(128);
  const auto copied = [&](bool waits, bool has_barrier) {
    std::vector<float> out(128);
    copy_async(in.data(), out.data(), waits, has_barrier);
    return out;
  };
  in_every_order(2, [&] {
    EXPECT_EQ(copied(true, true)[0], 125.0f);
    for (const auto& out : {copied(false, true), copied(true, false)})
      EXPECT_TRUE(std::any_of(out.begin(), out.end(), [](float x) { return std::isnan(x); }));
  });
}

TEST(Emulator, ABulkCopyIsThereOnlyAfterTheWaitForItsPhase) {
  const std::vector<float> in = counting(128);
  std::vector<float> out(128);
  in_every_order(2, [&] {
    copy_bulk(in.data(), out.data(), true, 1);
    EXPECT_EQ(out[0], 128.0f);
    EXPECT_EQ(out[127], 1.0f);
    copy_bulk(in.data(), out.data(), false, 1);
    EXPECT_TRUE(std::isnan(out[0]));
  });
  EXPECT_THAT(error_of([&] { copy_bulk(in.data(), out.data(), true, 2); }),
              HasSubstr("the phase does not end"));
}

TEST(Emulator, AProductOfAWarpgroupIsThatOfTheManualAndThereAfterTheWait) {
  // Whole numbers up to 8 as f16: sums are exact.
  const auto f16 = [](int x) {
    const int power = x < 2 ? 0 : x < 4 ? 1 : x < 8 ? 2 : 3;
    return static_cast<uint16_t>(x == 0 ? 0 : (15 + power) << 10 | (x << (10 - power) & 0x3FF));
  };
  const auto a_of = [](int row, int k) { return (row * 5 + k * 3) % 9; };
  const auto b_of = [](int k, int column) { return (k * 7 + column * 2) % 8; };
  std::vector<uint16_t> a(64 * 16), b(256);
  for (int i = 0; i < 64 * 16; ++i) a[static_cast<size_t>(i)] = f16(a_of(i / 16, i % 16));
  for (int i = 0; i < 256; ++i)  // groups of 8 columns, halves of k, columns, k
    b[static_cast<size_t>(i)] = f16(b_of(i / 64 % 2 * 8 + i % 8, i / 128 * 8 + i / 8 % 8));
  std::vector<float> c(64 * 16);
  multiply_panel(a.data(), b.data(), c.data(), true);
  for (int row = 0; row < 64; ++row)
    for (int column = 0; column < 16; ++column) {
      int sum = 1;
      for (int k = 0; k < 16; ++k) sum += a_of(row, k) * b_of(k, column);
      EXPECT_EQ(c[static_cast<size_t>(row * 16 + column)], static_cast<float>(sum))
          << row << ' ' << column;
    }
  multiply_panel(a.data(), b.data(), c.data(), false);
  for (const float x : c) EXPECT_TRUE(std::isnan(x));
}

TEST(Emulator, WritingPastDynamicSharedMemoryIsAnError) {
  EXPECT_THAT(error_of([] {
                reversed([](auto in, auto out) { reverse_dynamic(in, out, 100, 396); }, 100);
              }),
              HasSubstr("wrote outside its 396 bytes"));
}

TEST(Emulator, BlocksDoNotSeeEachOthersSharedMemory) {
  std::vector<float> out(64, 0.0f);
  read_unwritten(out.data(), 64);
  for (const float value : out) EXPECT_TRUE(std::isnan(value));
}

TEST(Emulator, NamedBarriersHoldPartsOfABlock) {
  const auto result = reversed([](auto in, auto out) { reverse_halves(in, out); }, 128);
  EXPECT_EQ(result[0], 64.0f);
  EXPECT_EQ(result[64], 128.0f);
}

TEST(Emulator, MatrixFragmentsAreThoseOfTheInstruction) {
  std::vector<uint16_t> a(256), b(128);
  for (size_t i = 0; i < a.size(); ++i)
    a[i] = vitrail::kernels::to_bf16(static_cast<float>(i % 17) - 8);
  for (size_t i = 0; i < b.size(); ++i)
    b[i] = vitrail::kernels::to_bf16(static_cast<float>(i % 11) - 5);
  std::vector<float> c(128);
  multiply_tile(a.data(), b.data(), c.data());
  for (size_t row = 0; row < 16; ++row)
    for (size_t column = 0; column < 8; ++column) {
      float sum = 0;
      for (size_t k = 0; k < 16; ++k)
        sum += vitrail::kernels::from_bf16(a[row * 16 + k]) *
               vitrail::kernels::from_bf16(b[k * 8 + column]);
      EXPECT_EQ(c[row * 8 + column], sum) << row << ' ' << column;
    }
}

TEST(Emulator, HalfPrecisionConvertsAsTheCompilerDoes) {
  const auto expect_rounded = [](double value) {
    const auto expected = std::bit_cast<unsigned short>(static_cast<_Float16>(value));
    EXPECT_EQ(emulated_half(value).bits, expected) << value;
  };
  float last = 0;
  for (unsigned bits = 0; bits < 65536; ++bits) {
    const auto narrow = static_cast<unsigned short>(bits);
    const auto expected = static_cast<float>(std::bit_cast<_Float16>(narrow));
    const float got = __half2float({narrow});
    if (std::isnan(expected)) {
      EXPECT_TRUE(std::isnan(got)) << bits;
      continue;
    }
    EXPECT_EQ(std::bit_cast<uint32_t>(got), std::bit_cast<uint32_t>(expected)) << bits;
    // The value, the middle between it and the one before, and what lies a little beside the middle.
    const double middle = (static_cast<double>(got) + static_cast<double>(last)) / 2;
    for (const double value :
         {static_cast<double>(got), middle, middle * (1 + 1e-12), middle * (1 - 1e-12)})
      expect_rounded(value);
    last = got;
  }
  for (const double value : {65519.9, 65520.0, 1e9, -1e300, 1e-300, 0x1p-25, 0x1.000001p-25})
    expect_rounded(value);
}

}  // namespace
}  // namespace emulation
