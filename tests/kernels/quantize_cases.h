#pragma once
/// Cases of kernels/quantize.h for any candidate: every bit must be that of the plain loop.

#include "tests/kernels/candidate.h"
#include "vitrail/kernels/quantize.h"

namespace vitrail::testing {

using kernels::Fp8;
using kernels::QuantizeRows;
using kernels::TransposeQuantized;

struct QuantizeCandidate {
  void (*rows)(const QuantizeRows&);
  void (*transpose)(const TransposeQuantized&);
};
inline QuantizeCandidate plain_quantize() {
  return {kernels::quantize_rows_plain, kernels::transpose_quantized_plain};
}

struct QuantizeCase {
  Fp8 format;
  int64_t rows, width;
  std::string name() const {
    return std::string(format == Fp8::e4m3 ? "e4m3 " : "e5m2 ") + std::to_string(rows) + " x " +
           std::to_string(width);
  }
};

/// Every team of threads, rows and widths that fill no tile.
inline std::vector<QuantizeCase> quantize_cases() {
  std::vector<QuantizeCase> cases;
  for (const Fp8 format : {Fp8::e4m3, Fp8::e5m2})
    for (const auto& [rows, width] : {std::pair<int64_t, int64_t>{1, 16},
                                      {5, 48},
                                      {130, 144},
                                      {33, 256},
                                      {7, 1280},
                                      {3, 2816},
                                      {2, 3840},
                                      {18, 5120}})
      cases.push_back({format, rows, width});
  return cases;
}

/// Rows of very different size; among them one of zeros, NaN, infinities and numbers beyond the range of the scales.
inline Bits quantize_input(const QuantizeCase& c) {
  Floats values = bell(c.rows * c.width, 51);
  for (int64_t r = 0; r < c.rows; ++r) {
    const float factor = std::ldexp(1.0f, static_cast<int>(r * 7 % 40) - 20);
    for (int64_t i = 0; i < c.width; ++i) values[static_cast<size_t>(r * c.width + i)] *= factor;
  }
  const auto row = [&](int64_t r) { return values.begin() + r * c.width; };
  if (c.rows > 4) {
    std::fill_n(row(1), c.width, 0.0f);
    row(2)[3] = NAN;
    row(2)[5] = -NAN;
    row(3)[1] = 1e-38f;
    row(4)[0] = -0.0f;
  }
  if (c.rows == 33) *row(20) = -INFINITY, *row(21) = 3e38f;
  return rounded(values);
}

struct QuantizeResult {
  std::vector<uint8_t> values, transposed;
  Floats scales, largest, column_scales;
};

inline QuantizeResult run_quantize(const QuantizeCandidate& candidate, const QuantizeCase& c,
                                   Memory& at) {
  const int64_t stride = kernels::transposed_stride(c.rows);
  QuantizeRows task{.format = c.format,
                    .rows = c.rows,
                    .width = c.width,
                    .x = at.put(quantize_input(c)),
                    .values = at.put(std::vector<uint8_t>(c.rows * c.width, 0xAA)),
                    .scales = at.put(Floats(static_cast<size_t>(c.rows), NAN)),
                    .largest = at.put(Floats(1, 0.0f))};
  candidate.rows(task);
  TransposeQuantized turn{.format = c.format,
                          .rows = c.rows,
                          .width = c.width,
                          .values = task.values,
                          .scales = task.scales,
                          .largest = task.largest,
                          .transposed = at.put(std::vector<uint8_t>(stride * c.width, 0xAA)),
                          .column_scales = at.put(Floats(static_cast<size_t>(c.width), NAN))};
  candidate.transpose(turn);
  return {at.get(task.values, c.rows * c.width), at.get(turn.transposed, stride * c.width),
          at.get(task.scales, c.rows), at.get(task.largest, 1),
          at.get(turn.column_scales, c.width)};
}

inline void check_quantize(const QuantizeCandidate& candidate, const QuantizeCase& c, Memory& at) {
  HostMemory host;
  const QuantizeResult expected = run_quantize(plain_quantize(), c, host),
                       found = run_quantize(candidate, c, at);
  EXPECT_EQ(found.values, expected.values) << c.name();
  EXPECT_EQ(found.scales, expected.scales) << c.name();
  EXPECT_EQ(found.largest, expected.largest) << c.name();
  EXPECT_EQ(found.transposed, expected.transposed) << c.name();
  EXPECT_EQ(found.column_scales, expected.column_scales) << c.name();
}

}  // namespace vitrail::testing
