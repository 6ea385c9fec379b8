#pragma once
/// What lies between the two layers of an MLP, forward and backward with bias gradients from the same pass.
///
/// Device   CUDA bf16: the kernels of kernels/activation.h; else plain ATen, fp32, fp64 or bf16. Computed in the
///          statistics type (ops/norm.h), rounded once.
/// Shapes   all [..., width], contiguous; column sums [width] in the statistics type.
/// Paper    Hendrycks & Gimpel 2016, arXiv:1606.08415; Shazeer 2020, arXiv:2002.05202.

#include <ATen/core/Tensor.h>

#include "vitrail/ops/product8.h"

namespace vitrail::ops {

enum class ActivationKind { gelu_erf, gelu_tanh, silu_gate };  // silu_gate: silu(gate) * pre

/// `gate` is undefined but for silu_gate.
at::Tensor activation(ActivationKind kind, const at::Tensor& pre, const at::Tensor& gate);
/// The same in 8 bits; `wants_out` false: undefined is returned. Not silu_gate.
at::Tensor activation(ActivationKind kind, const at::Tensor& pre, Codes& codes, bool wants_out);

struct ActivationBackward {
  ActivationKind kind = ActivationKind::gelu_erf;
  at::Tensor dout;  // may be overwritten
  at::Tensor pre;
  at::Tensor gate;                 // may be overwritten
  at::Tensor pre_sums, gate_sums;  // column sums of the gradients are added; undefined: not wanted
  bool wants_out = false;          // the activation again
  Codes* dpre_codes = nullptr;     // dpre in 8 bits as well; null: not wanted. Not silu_gate
  bool wants_dpre = true;          // false, with codes: dpre is left undefined
};
struct ActivationGradients {
  at::Tensor dpre, dgate;  // dgate undefined but for silu_gate
  at::Tensor out;
};
ActivationGradients activation_backward(const ActivationBackward& task);

/// sums[c] += sum over rows of x [..., width], whose last axis is contiguous and whose rows are equally far apart.
void add_column_sums(const at::Tensor& x, const at::Tensor& sums);

}  // namespace vitrail::ops
