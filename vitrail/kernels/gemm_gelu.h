#pragma once
/// The first product of an MLP with its bias and GELU in one kernel, and the product of backward with GELU's derivative.
///
///   forward    aux [m, n] = A [m, k] B [n, k]^T + bias [n];   D [m, n] = gelu(aux), by erf, of the sum before it is rounded
///   backward   D [m, n] = (A [m, k] B [k, n]) gelu'(aux [m, n])
/// Needs    as run() of gemm.h; n and k multiples of 8; compute capability 9.0. Asynchronous; may be captured.
/// Error    of GELU as in activation.h; D rounded once.
/// throws   Error with the shape where it cannot.

#include <cstdint>

#include "vitrail/kernels/gemm.h"

namespace vitrail::kernels {

/// True where the build found CUTLASS.
bool has_gemm_gelu();
/// True for the shapes above: B transposed (backward: not), with bias (without), bf16, no sum, sides that fit.
bool fits_gemm_gelu(const GemmShape& shape);
bool fits_gemm_gelu_backward(const GemmShape& shape);
/// Bytes of device memory that the calls below need; usually 0.
int64_t gemm_gelu_workspace_bytes(const GemmShape& shape);
void gemm_gelu(const GemmShape& shape, const GemmOperands& operands, uint16_t* aux, void* workspace,
               void* stream);
void gemm_gelu_backward(const GemmShape& shape, const GemmOperands& operands, const uint16_t* aux,
                        void* workspace, void* stream);

}  // namespace vitrail::kernels
