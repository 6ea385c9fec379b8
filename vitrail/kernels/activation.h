#pragma once
/// What lies between the two layers of an MLP, bf16: GELU (exact or tanh) or a SiLU gate, with bias gradients from the
/// same pass.
///
/// Error    the normal distribution function of exact GELU within 4e-7 (4e-5 of itself far out on the negative side).
/// Paper    Hendrycks & Gimpel 2016, arXiv:1606.08415; Shazeer 2020, arXiv:2002.05202.
/// Shapes   all [rows, width], contiguous, bits of bfloat16; column sums fp32 [width].
/// Needs    device pointers, 16-byte aligned; width a multiple of 8. Computed in fp32, rounded once; the same result at
///          every launch. Asynchronous on `stream` (a cudaStream_t).
/// throws   Error in a build without CUDA.

#include <cstdint>

#include "vitrail/kernels/fp8.h"

namespace vitrail::kernels {

enum class ActivationKind { gelu_erf, gelu_tanh, silu_gate };  // silu_gate: silu(gate) * pre

struct Activation {
  ActivationKind kind = ActivationKind::gelu_erf;
  int64_t rows = 0, width = 0;
  const uint16_t* pre = nullptr;
  const uint16_t* gate = nullptr;  // silu_gate only
  uint16_t* out = nullptr;         // may be pre; null where only codes are wanted
  /// Of `out`; not with silu_gate, width a multiple of 16, at most kMostQuantizedWidth (kernels/quantize.h).
  CodeRows codes;
};
void activation(const Activation& task, void* stream);
/// The loop to read and to test against, on host memory; column sums in fp64.
void activation_plain(const Activation& task);

/// Column sums (of the gradients as rounded) are added to what is there; null: not wanted.
struct ActivationBackward {
  Activation forward;  // out: null, or where the activation is to be written again
  const uint16_t* dout = nullptr;
  uint16_t* dpre = nullptr;   // may be dout or pre; null where only codes are wanted
  CodeRows dpre_codes;        // of dpre, as forward.codes, which backward does not write
  uint16_t* dgate = nullptr;  // may be gate
  float *pre_sums = nullptr, *gate_sums = nullptr;
  float* partials = nullptr;  // activation_partials(rows, width) values; null without sums
};
int64_t activation_partials(int64_t rows, int64_t width);
void activation_backward(const ActivationBackward& task, void* stream);
void activation_backward_plain(const ActivationBackward& task);

/// sums[c] += the column sums of x [rows, width], whose rows are `stride` elements (a multiple of 8) apart.
int64_t column_sums_partials(int64_t rows, int64_t width);
void column_sums(const uint16_t* x, int64_t rows, int64_t width, int64_t stride, float* partials,
                 float* sums, void* stream);
void column_sums_plain(const uint16_t* x, int64_t rows, int64_t width, int64_t stride, float* sums);

}  // namespace vitrail::kernels
