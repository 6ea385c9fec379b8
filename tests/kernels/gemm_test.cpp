// The plain matrix product, and the file of choices.

#include "vitrail/kernels/gemm.h"

#include <cstdio>
#include <fstream>
#include <sstream>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "vitrail/core/error.h"
#include "vitrail/kernels/bf16.h"
#include "vitrail/kernels/gemm_table.h"

namespace vitrail::kernels {
namespace {

using ::testing::HasSubstr;

uint16_t small(int64_t i) { return to_bf16(static_cast<float>(i % 7 - 3)); }

// Small whole numbers: every sum is exact in bf16, so the results must be equal, not close.
TEST(GemmPlain, EveryLayoutGivesTheSameSums) {
  constexpr int64_t m = 3, n = 4, k = 5;
  for (const bool a_transposed : {false, true})
    for (const bool b_transposed : {false, true})
      for (const bool is_f32 : {false, true}) {
        std::vector<uint16_t> a(m * k), b(k * n), bias(n);
        std::vector<float> c_f32(m * n), expected(m * n);
        std::vector<uint16_t> c_bf16(m * n);
        for (int64_t j = 0; j < n; ++j) bias[j] = small(j + 2);
        for (int64_t i = 0; i < m; ++i)
          for (int64_t j = 0; j < n; ++j) {
            c_f32[i * n + j] = static_cast<float>(i - j);
            c_bf16[i * n + j] = to_bf16(c_f32[i * n + j]);
            float sum = from_bf16(bias[j]) + c_f32[i * n + j];
            for (int64_t l = 0; l < k; ++l) {
              const uint16_t x = small(3 * i + l), y = small(l + 5 * j + 1);
              a[a_transposed ? l * m + i : i * k + l] = x;
              b[b_transposed ? j * k + l : l * n + j] = y;
              sum += from_bf16(x) * from_bf16(y);
            }
            expected[i * n + j] = sum;
          }
        void* d = is_f32 ? static_cast<void*>(c_f32.data()) : c_bf16.data();
        gemm_plain({m, n, k, a_transposed, b_transposed, true, true, is_f32},
                   {a.data(), b.data(), bias.data(), nullptr, d});
        for (int64_t i = 0; i < m * n; ++i)
          EXPECT_EQ(is_f32 ? c_f32[i] : from_bf16(c_bf16[i]), expected[i]) << i;
      }
}

TEST(GemmPlain, WithoutSumWhatStoodInDIsForgotten) {
  const std::vector<uint16_t> a{to_bf16(2)}, b{to_bf16(3)};
  float d = 100;
  gemm_plain({.m = 1, .n = 1, .k = 1, .is_f32 = true}, {a.data(), b.data(), nullptr, nullptr, &d});
  EXPECT_EQ(d, 6);
}

GemmTable sample() {
  GemmTable table{"NVIDIA H200", "cuBLASLt 130100", {}};
  for (int i = 0; i < 8; ++i) {
    GemmRow row;
    row.choice.shape = {100 + i,          200,   300, (i & 1) != 0, (i & 2) != 0, (i & 4) != 0,
                        i == 3 || i == 5, i == 6};
    row.choice.algorithm = "id 66 tile 20";
    row.choice.ms = 0.25 * i;
    row.choice.first_ms = 0.5 * i;
    for (size_t byte = 0; byte < row.algorithm.size(); ++byte)
      row.algorithm[byte] = static_cast<uint8_t>(31 * byte + static_cast<size_t>(i));
    table.rows.push_back(row);
  }
  return table;
}

void expect_equal(const GemmRow& a, const GemmRow& b) {
  EXPECT_EQ(a.choice.shape, b.choice.shape);
  EXPECT_EQ(a.choice.algorithm, b.choice.algorithm);
  EXPECT_EQ(a.choice.ms, b.choice.ms);
  EXPECT_EQ(a.choice.first_ms, b.choice.first_ms);
  EXPECT_EQ(a.algorithm, b.algorithm);
}

TEST(GemmTable, ComesBackAsItWasWritten) {
  const GemmTable table = sample();
  const std::string path = ::testing::TempDir() + "gemm_table.txt";
  save_gemm_table(table, path);
  const GemmTable read = load_gemm_table(path);
  EXPECT_EQ(read.device, table.device);
  EXPECT_EQ(read.library, table.library);
  ASSERT_EQ(read.rows.size(), table.rows.size());
  for (size_t i = 0; i < read.rows.size(); ++i) expect_equal(read.rows[i], table.rows[i]);
  std::remove(path.c_str());
}

TEST(GemmTable, ADamagedLineIsLeftOutAndTheOthersStay) {
  const GemmTable table = sample();
  const std::string text = to_text(table);
  const size_t rows_begin = text.find("nn ");
  ASSERT_NE(rows_begin, std::string::npos);
  int lost = 0;
  for (size_t at = rows_begin; at < text.size(); ++at) {
    if (text[at] == '\n' || text[at] == ' ') continue;
    std::string damaged = text;
    damaged[at] = damaged[at] == '1' ? '2' : '1';
    const GemmTable read = parse_gemm_table(damaged, "damaged");
    // The words behind the checksum are for people; damage there costs nothing.
    EXPECT_GE(read.rows.size() + 1, table.rows.size());
    EXPECT_LE(read.rows.size(), table.rows.size());
    lost += read.rows.size() < table.rows.size();
    for (const GemmRow& row : read.rows) {
      const auto& before = table.rows[static_cast<size_t>(row.choice.shape.m - 100)];
      EXPECT_EQ(row.algorithm, before.algorithm);
      EXPECT_EQ(row.choice.shape, before.choice.shape);
    }
  }
  // 8 lines of at least 150 characters before the words.
  EXPECT_GT(lost, 8 * 150);
}

TEST(GemmTable, AnotherFileIsRefusedByName) {
  try {
    parse_gemm_table("epoch,loss\n1,2\n", "runs/metrics.csv");
    FAIL() << "it was read";
  } catch (const core::DataError& error) {
    EXPECT_THAT(error.what(), HasSubstr("runs/metrics.csv"));
    EXPECT_THAT(error.what(), HasSubstr("epoch,loss"));
  }
  EXPECT_THROW(parse_gemm_table("vitrail gemm table 1\ndevice X\nrows\n", "x"), core::DataError);
  EXPECT_THROW(parse_gemm_table("", "x"), core::DataError);
  EXPECT_THROW(load_gemm_table("/nowhere/gemm.txt"), core::DataError);
}

}  // namespace
}  // namespace vitrail::kernels
