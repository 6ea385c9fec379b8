#pragma once
/// bf16 matrices as numbers of 8 bits, in both layouts that products of 8-bit numbers read.
///
///   values[r][c] = to_fp8(x[r][c] / scales[r])                       scales[r] = 2^e, the smallest that holds the row
///   transposed[c][r] = to_fp8(values[r][c] scales[r] / scale)        scale = the largest of all scales
/// Products of 8-bit numbers sum over the last axis of both operands. Where that is the width, each row has its own
/// scale; where it is the rows (weight gradients), one scale serves all. Scales are powers of two (fp8.h), so that the
/// second form differs from one made of x only below the smallest steps of the whole matrix.
/// Shapes   x, values [rows, width]; scales [rows]; transposed [width, stride], stride = transposed_stride(rows), with
///          zeros beyond the last row; all contiguous.
/// Needs    device pointers, 16-byte aligned; width a multiple of 16, at most kMostQuantizedWidth. The same result at
///          every launch. Asynchronous on `stream` (a cudaStream_t).
/// Values   a NaN becomes NaN; an infinity the largest number, which its row's scale takes out of range again.
/// throws   Error in a build without CUDA, or for a width that does not fit.

#include <cstdint>

#include "vitrail/kernels/fp8.h"

namespace vitrail::kernels {

constexpr int64_t kMostQuantizedWidth = 16384;

constexpr int64_t transposed_stride(int64_t rows) { return (rows + 15) / 16 * 16; }

struct QuantizeRows {
  Fp8 format = Fp8::e4m3;
  int64_t rows = 0, width = 0;
  const uint16_t* x = nullptr;
  uint8_t* values = nullptr;
  float* scales = nullptr;
  float* largest =
      nullptr;  // one value: becomes the largest of itself and all scales; null: not wanted
};
void quantize_rows(const QuantizeRows& task, void* stream);
/// The loop to read and to test against, on host memory.
void quantize_rows_plain(const QuantizeRows& task);

struct TransposeQuantized {
  Fp8 format = Fp8::e4m3;
  int64_t rows = 0, width = 0;
  const uint8_t* values = nullptr;
  const float* scales = nullptr;   // [rows]
  const float* largest = nullptr;  // the scale of the result; at least all scales
  uint8_t* transposed = nullptr;
  float* column_scales =
      nullptr;  // [width]: the result's scale for each of its rows; null: not wanted
};
void transpose_quantized(const TransposeQuantized& task, void* stream);
void transpose_quantized_plain(const TransposeQuantized& task);

}  // namespace vitrail::kernels
