#pragma once
/// LayerNorm or RMSNorm of the rows of a residual stream in bf16, with the addition before it and the column sums that
/// its backward gives for free.
///
///   sum = x + keep[sample] * gamma * branch;   y = norm(sum)
/// Shapes   rows = samples * tokens; x, branch, sum, y and their gradients [rows, width], contiguous, as bits of bfloat16.
/// Needs    device pointers, 16-byte aligned; width a multiple of 8, at most kMostNormWidth. Sums and statistics are fp32,
///          results are rounded once; the same result at every launch. Asynchronous on `stream` (a cudaStream_t).
/// throws   Error in a build without CUDA, or for a width that does not fit.

#include <cstdint>

#include "vitrail/core/philox.h"  // VT_HOST_DEVICE
#include "vitrail/kernels/fp8.h"

namespace vitrail::kernels {

constexpr int64_t kMostNormWidth = 16384;

struct RowShape {
  int64_t samples = 0, tokens = 0, width = 0;
  VT_HOST_DEVICE int64_t rows() const { return samples * tokens; }
};

/// What is added to the stream.
struct Branch {
  const uint16_t* values = nullptr;  // [rows, width]; null: nothing
  const uint16_t* gamma = nullptr;   // LayerScale [width]; null: 1
  const float* keep = nullptr;       // drop-path [samples]: 0 or 1 / (1 - rate); null: 1
  VT_HOST_DEVICE bool is_scaled() const { return gamma || keep; }
};

struct NormParameters {
  const uint16_t* weight = nullptr;  // [width]
  const uint16_t* bias = nullptr;    // [width]; null for RMSNorm
  float eps = 1e-6f;
  bool is_rms = false;
};

struct ResidualNorm {
  RowShape shape;
  const uint16_t* x = nullptr;
  Branch branch;
  NormParameters norm;
  uint16_t* sum = nullptr;  // null without a branch; may be x
  uint16_t* y =
      nullptr;  // null: only codes are wanted; without them only the sum, and no statistics
  float* mean = nullptr;  // [rows]; null for RMSNorm
  float* rstd = nullptr;  // [rows]
  CodeRows codes;         // of y; width a multiple of 16
};
void residual_norm(const ResidualNorm& task, void* stream);
/// The loop to read and to test against, on host memory; sums over a row in fp64.
void residual_norm_plain(const ResidualNorm& task);

/// Gradients of parameters are added to what is there; null: not wanted. dx is rounded before dbranch and the sums are
/// made of it, and dbranch before its sums: they are those of the tensors in memory.
struct ResidualNormBackward {
  RowShape shape;
  const uint16_t* dy = nullptr;   // null: nothing was normed, and dx = dsum
  const uint16_t* sum = nullptr;  // what was normed
  const float *mean = nullptr, *rstd = nullptr;
  NormParameters norm;
  const uint16_t* dsum = nullptr;  // gradient that reaches the sum past the norm; null: none
  uint16_t* dx = nullptr;          // dsum + that of the norm: the gradient of x; may be dsum
  Branch branch;                   // as in forward; values only where gamma has a gradient
  uint16_t* dbranch = nullptr;     // keep * gamma * dx; null without scales, where it is dx
  float *dweight = nullptr, *dbias = nullptr;  // [width] fp32
  float* dgamma = nullptr;                     // [width]: sum of keep * branch * dx
  float* branch_sums =
      nullptr;  // [width]: column sums of dbranch: the bias gradient of the layer that made the branch
  float* partials = nullptr;  // residual_norm_partials(shape) values
};
int64_t residual_norm_partials(const RowShape& shape);
void residual_norm_backward(const ResidualNormBackward& task, void* stream);
void residual_norm_backward_plain(const ResidualNormBackward& task);

}  // namespace vitrail::kernels
