// The short attention's CUDA kernels, run on the CPU, against the formula in fp64.

#include "vitrail/kernels/cuda/short_attention.cuh"

#include <algorithm>
#include <array>

#include <gtest/gtest.h>

#include "emulator.h"
#include "tests/emulation/short_attention_cases.h"

namespace vitrail::kernels::short_test {
namespace {

void check_all(const std::vector<Case>& cases) {
  for (const Case& c : cases) {
    const Heads x = random_heads(c);
    expect_right(c, run(c, x, at::kCPU), x);
  }
}

TEST(ShortAttention, EveryShapeGivesTheFormulaUpToBf16Rounding) { check_all(shape_cases()); }

TEST(ShortAttention, LargeAndShiftedLogitsStayRight) { check_all(hard_cases()); }

TEST(ShortAttention, TokensFromTheLengthOnAreNotAttendedTo) { check_all(length_cases()); }

TEST(ShortAttention, SharedHeadsSumTheirGradients) { check_all(group_cases()); }

TEST(ShortAttention, TheOrderOfThreadsDoesNotMatter) {
  for (const Case& c : {Case{70, 80, 1, 2, 1}, Case{50, 64, 2, 1, 1, {50, 20}}, Case{257, 48}}) {
    const Heads x = random_heads(c);
    const Results first = run(c, x, at::kCPU);
    emulation::in_every_order(3, [&] { EXPECT_TRUE(same_bits(first, run(c, x, at::kCPU))); });
  }
}

/// Conflicts of one matrix load: the most of its 8 rows that lie in one group of 4 banks.
template <int kWidth>
int most_rows_in_a_bank_group() {
  using R = short_form::Rows<kWidth>;
  int most = 0;
  for (int first = 0; first < 64; first += 8)
    for (int chunk = 0; chunk < R::kChunks; ++chunk) {
      std::array<int, 8> groups = {};
      for (int row = first; row < first + 8; ++row) {
        const int direct = R::place(row, chunk), even = chunk / 2 * 2;
        EXPECT_EQ(R::move(R::place(row, chunk % 2), even), direct) << "row " << row;
        EXPECT_EQ(direct / R::kPitch, row);
        most = std::max(most, ++groups[direct / 16 % 8]);
      }
    }
  return most;
}

TEST(ShortAttention, MatrixLoadsMeetNoBankTwice) {
  for (const int width : short_form::kWidths)
    short_form::with_width(width, [&]<int kWidth>() {
      EXPECT_EQ(most_rows_in_a_bank_group<kWidth>(), 1) << "width " << width;
    });
}

TEST(ShortAttention, OtherShapesAreLeftToOthers) {
  const AttentionShape taken{2, 257, 16, 4, 80, false};
  EXPECT_NE(short_attention(taken, 0), nullptr);
  for (const auto& [tokens, heads, kv_heads, width] : {std::array<int64_t, 4>{321, 16, 16, 80},
                                                       {257, 16, 16, 24},
                                                       {257, 16, 16, 84},
                                                       {257, 16, 16, 136},
                                                       {257, 16, 5, 80},
                                                       {0, 16, 16, 80}})
    EXPECT_EQ(short_attention({2, tokens, heads, kv_heads, width, false}, 0), nullptr)
        << tokens << " tokens, " << heads << "/" << kv_heads << " heads of " << width;
}

}  // namespace
}  // namespace vitrail::kernels::short_test
