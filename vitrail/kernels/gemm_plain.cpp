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

}  // namespace

void gemm_plain(const GemmShape& shape, const GemmOperands& operands) {
  const auto [m, n, k] = std::tuple(shape.m, shape.n, shape.k);
  const void* c = operands.c ? operands.c : operands.d;
  std::vector<double> row(static_cast<size_t>(n));
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t j = 0; j < n; ++j)
      row[j] = (shape.has_bias ? from_bf16(operands.bias[j]) : 0.0) +
               (shape.adds ? stored(c, i * n + j, shape.is_f32) : 0.0);
    for (int64_t l = 0; l < k; ++l) {
      const double a = from_bf16(operands.a[shape.a_transposed ? l * m + i : i * k + l]);
      for (int64_t j = 0; j < n; ++j)
        row[j] += a * from_bf16(operands.b[shape.b_transposed ? j * k + l : l * n + j]);
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
