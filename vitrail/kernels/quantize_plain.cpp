#include <algorithm>
#include <cmath>

#include "vitrail/kernels/bf16.h"
#include "vitrail/kernels/quantize.h"

namespace vitrail::kernels {

void quantize_rows_plain(const QuantizeRows& task) {
  for (int64_t r = 0; r < task.rows; ++r) {
    const uint16_t* const x = task.x + r * task.width;
    float largest = 0;
    for (int64_t c = 0; c < task.width; ++c)
      largest = std::fmax(largest, std::fabs(from_bf16(x[c])));
    const int exponent = scale_exponent(task.format, largest);
    for (int64_t c = 0; c < task.width; ++c)
      task.values[r * task.width + c] =
          to_fp8(task.format, from_bf16(x[c]) * exponent_value(-exponent));
    task.scales[r] = exponent_value(exponent);
    if (task.largest) *task.largest = std::max(*task.largest, task.scales[r]);
  }
}

void transpose_quantized_plain(const TransposeQuantized& task) {
  const int64_t stride = transposed_stride(task.rows);
  for (int64_t c = 0; c < task.width; ++c) {
    for (int64_t r = 0; r < stride; ++r) {
      uint8_t& to = task.transposed[c * stride + r];
      to = 0;
      if (r >= task.rows) continue;
      const float value = from_fp8(task.format, task.values[r * task.width + c]);
      // Both are powers of two: one rounding.
      to = to_fp8(task.format, value * (task.scales[r] / *task.largest));
    }
    if (task.column_scales) task.column_scales[c] = *task.largest;
  }
}

}  // namespace vitrail::kernels
