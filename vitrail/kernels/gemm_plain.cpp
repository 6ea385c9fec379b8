#include <tuple>
#include <vector>

#include "vitrail/kernels/bf16.h"
#include "vitrail/kernels/gemm.h"

namespace vitrail::kernels {
namespace {

double stored(const void* values, int64_t index, bool is_f32) {
  return is_f32 ? static_cast<const float*>(values)[index]
                : from_bf16(static_cast<const uint16_t*>(values)[index]);
}

double stored(GemmType type, const uint16_t* wide, const uint8_t* codes, int64_t index) {
  if (type == GemmType::bf16) return from_bf16(wide[index]);
  return from_fp8(type == GemmType::e4m3 ? Fp8::e4m3 : Fp8::e5m2, codes[index]);
}

}  // namespace

void gemm_plain(const GemmShape& shape, const GemmOperands& operands) {
  const auto [m, n, k] = std::tuple(shape.m, shape.n, shape.k);
  const void* c = operands.c ? operands.c : operands.d;
  const auto scale = [&](const float* scales, int64_t i) {
    return shape.is_fp8() ? static_cast<double>(scales[shape.row_scales ? i : 0]) : 1.0;
  };
  std::vector<double> row(static_cast<size_t>(n));
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t j = 0; j < n; ++j)
      row[j] = (shape.has_bias ? from_bf16(operands.bias[j]) : 0.0) +
               (shape.adds ? stored(c, i * n + j, shape.is_f32) : 0.0);
    for (int64_t l = 0; l < k; ++l) {
      const double a =
          scale(operands.a_scales, i) *
          stored(shape.a_type, operands.a, operands.a8, shape.a_transposed ? l * m + i : i * k + l);
      for (int64_t j = 0; j < n; ++j)
        row[j] += a * scale(operands.b_scales, j) *
                  stored(shape.b_type, operands.b, operands.b8,
                         shape.b_transposed ? j * k + l : l * n + j);
    }
    for (int64_t j = 0; j < n; ++j) {
      const auto value = static_cast<float>(row[j]);
      if (shape.is_f32)
        static_cast<float*>(operands.d)[i * n + j] = value;
      else
        static_cast<uint16_t*>(operands.d)[i * n + j] = to_bf16(value);
    }
  }
}

}  // namespace vitrail::kernels
