// Numbers of 8 bits against torch's conversions, and what quantisation promises.

#include "vitrail/kernels/fp8.h"

#include <cmath>
#include <cstdio>

#include <c10/util/Float8_e4m3fn.h>
#include <c10/util/Float8_e5m2.h>
#include <gtest/gtest.h>

#include "tests/kernels/quantize_cases.h"
#include "vitrail/kernels/gemm_table.h"

namespace vitrail::testing {
namespace {

using kernels::from_fp8;
using kernels::to_fp8;

uint8_t torch_code(Fp8 format, float value) {
  return format == Fp8::e4m3 ? c10::Float8_e4m3fn(value).x : c10::Float8_e5m2(value).x;
}
float torch_value(Fp8 format, uint8_t code) {
  return format == Fp8::e4m3
             ? static_cast<float>(c10::Float8_e4m3fn(code, c10::Float8_e4m3fn::from_bits()))
             : static_cast<float>(c10::Float8_e5m2(code, c10::Float8_e5m2::from_bits()));
}

TEST(Fp8, EveryCodeHasTheValueThatTorchGivesIt) {
  for (const Fp8 format : {Fp8::e4m3, Fp8::e5m2})
    for (int code = 0; code < 256; ++code) {
      const float ours = from_fp8(format, static_cast<uint8_t>(code)),
                  theirs = torch_value(format, static_cast<uint8_t>(code));
      EXPECT_TRUE(ours == theirs || (std::isnan(ours) && std::isnan(theirs))) << code;
    }
}

// Every float whose lower 12 bits are zeros, ones, or one step about a tie: all that can decide a rounding.
TEST(Fp8, RoundsToTheBitsOfTorchAndSaturates) {
  int64_t compared = 0, saturated = 0;
  for (const Fp8 format : {Fp8::e4m3, Fp8::e5m2})
    for (uint64_t upper = 0; upper < 0x100000; ++upper)
      for (const uint32_t lower : {0x000u, 0x001u, 0x7FFu, 0x800u, 0xFFFu}) {
        const float value = std::bit_cast<float>(static_cast<uint32_t>(upper << 12) | lower);
        const uint8_t code = to_fp8(format, value);
        if (std::isnan(value)) {
          ASSERT_EQ(code, 0x7F);
        } else if (std::fabs(value) > kernels::most_of(format)) {
          ASSERT_EQ(from_fp8(format, code), std::copysign(kernels::most_of(format), value));
          ++saturated;
        } else {
          ASSERT_EQ(code, torch_code(format, value)) << value;
          ++compared;
        }
      }
  std::printf("%lld conversions equal torch's, %lld saturate\n", static_cast<long long>(compared),
              static_cast<long long>(saturated));
}

TEST(Fp8, ScalesAreTheSmallestPowersOfTwoThatHoldARow) {
  for (const Fp8 format : {Fp8::e4m3, Fp8::e5m2})
    for (const float largest :
         {1e-30f, 0.001f, 1.0f, 447.9f, 448.0f, 448.1f, 57344.0f, 57400.0f, 1e30f}) {
      const float scale = kernels::exponent_value(kernels::scale_exponent(format, largest));
      EXPECT_LE(largest, kernels::most_of(format) * scale) << largest;
      EXPECT_GT(largest, kernels::most_of(format) * scale / 2) << largest;
    }
}

// e4m3 keeps 3 bits of mantissa: half a step is 2^-4 of a value. Only values 2^-15 below a row's largest lose more.
TEST(Quantize, ErrorsAreHalfAStepOfEachValue) {
  const QuantizeCase c{Fp8::e4m3, 64, 512};
  HostMemory memory;
  const Bits x = bell_bits(c.rows * c.width, 51);
  std::vector<uint8_t> values(x.size());
  Floats scales(64), largest(1);
  kernels::quantize_rows_plain(
      {c.format, c.rows, c.width, x.data(), values.data(), scales.data(), largest.data()});
  double worst = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    const double exact = kernels::from_bf16(x[i]);
    if (std::fabs(exact) < 0.01) continue;
    const double found = from_fp8(c.format, values[i]) * scales[i / 512];
    worst = std::max(worst, std::fabs(found - exact) / std::fabs(exact));
  }
  std::printf("e4m3: worst relative error %.4f (allowed 0.0625)\n", worst);
  EXPECT_LE(worst, 0.0625);
  EXPECT_GT(worst, 0.05);
}

TEST(GemmTable, KeepsTypesAndScalesOf8Bits) {
  using enum kernels::GemmType;
  kernels::GemmTable table{"a device", "a library", {}};
  for (const auto& [a, b] : {std::pair{bf16, bf16}, {e4m3, e4m3}, {e5m2, e4m3}, {e4m3, e5m2}})
    for (const bool rows : {false, true})
      for (const bool fast : {false, true}) {
        kernels::GemmRow row;
        row.choice.shape = {.m = 64, .n = 32, .k = 48, .b_transposed = true, .is_f32 = !rows};
        row.choice.shape.a_type = a, row.choice.shape.b_type = b;
        row.choice.shape.row_scales = rows && a != bf16;
        row.choice.shape.fast_sums = fast && a != bf16;
        table.rows.push_back(row);
      }
  const kernels::GemmTable again = kernels::parse_gemm_table(kernels::to_text(table), "memory");
  ASSERT_EQ(again.rows.size(), table.rows.size());
  for (size_t i = 0; i < table.rows.size(); ++i)
    EXPECT_EQ(again.rows[i].choice.shape, table.rows[i].choice.shape)
        << kernels::to_words(table.rows[i].choice.shape);
}

// Sums of products of codes with scales of rows, by hand.
TEST(GemmPlain, MultipliesCodesByTheirScales) {
  const std::vector<uint8_t> a{0x38, 0x40, 0x30, 0xB8},
      b{0x38, 0x38, 0x40, 0x00};  // 1 2 .5 -1; 1 1 2 0
  const Floats a_scales{2.0f, 4.0f}, b_scales{1.0f, 0.5f};
  kernels::GemmShape shape{.m = 2, .n = 2, .k = 2, .b_transposed = true, .is_f32 = true};
  shape.a_type = shape.b_type = kernels::GemmType::e4m3;
  Floats d(4);
  kernels::GemmOperands operands{.d = d.data(), .a8 = a.data(), .b8 = b.data()};
  operands.a_scales = a_scales.data(), operands.b_scales = b_scales.data();
  kernels::gemm_plain(shape, operands);
  EXPECT_EQ(d, (Floats{6, 4, -1, 2}));  // one scale each: 2 and 1
  shape.row_scales = true;
  kernels::gemm_plain(shape, operands);
  EXPECT_EQ(d, (Floats{6, 2, -2, 2}));
}

}  // namespace
}  // namespace vitrail::testing
