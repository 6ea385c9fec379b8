#pragma once
/// A residual stream, what a branch adds to it and the norm behind it, with the column sums that backward gives for free.
///
///   sum = x + keep gamma branch;   y = norm(sum)
/// Device   CUDA bf16: one kernel forward, one backward (kernels/residual_norm.h); else plain ATen, fp32, fp64 or bf16.
/// Types    sums, statistics and gradients of parameters in the statistics type (ops/norm.h); each result rounded once.
/// Shapes   B batch, L tokens, D width.
/// Paper    LayerScale: Touvron et al. 2021, arXiv:2103.17239; drop-path: Huang et al. 2016, arXiv:1603.09382.

#include <ATen/core/Tensor.h>

#include "vitrail/ops/product8.h"

namespace vitrail::ops {

struct NormWeights {
  at::Tensor weight_D, bias_D;  // the bias undefined: none
  double eps = 1e-6;
  bool is_rms = false;
};

/// What a branch is multiplied by. Undefined: 1.
struct BranchScales {
  at::Tensor gamma_D;  // LayerScale
  at::Tensor keep_B;   // drop-path's factor of each sample, in the statistics type
  bool any() const { return gamma_D.defined() || keep_B.defined(); }
};

struct Normed {
  at::Tensor sum_BLD;  // x itself without a branch
  at::Tensor y_BLD;
  at::Tensor mean, rstd;  // [B, L]; no mean for RMSNorm
};

/// y in 8 bits as well.
struct NormCodes {
  Codes* codes = nullptr;  // null: not wanted
  bool wants_y = true;     // false: y is left undefined
};
/// branch_BLD undefined: y = norm(x).
Normed residual_norm(const at::Tensor& x_BLD, const at::Tensor& branch_BLD,
                     const BranchScales& scales, const NormWeights& norm,
                     const NormCodes& codes = {});
/// The sum alone.
at::Tensor residual_sum(const at::Tensor& x_BLD, const at::Tensor& branch_BLD,
                        const BranchScales& scales);

/// Where gradients of parameters are added, [D] in the statistics type each; undefined: not wanted.
struct ResidualSums {
  at::Tensor weight_D, bias_D;
  at::Tensor gamma_D;
  at::Tensor branch_D;  // column sums of the branch's gradient: of x's without a branch or scales
};

struct ResidualNormBackward {
  at::Tensor dy_BLD;
  Normed normed;          // y may be gone
  at::Tensor dsum_BLD;    // gradient that reaches the sum past the norm; undefined: none
  at::Tensor branch_BLD;  // where gamma has a gradient
  BranchScales scales;
  NormWeights norm;
  ResidualSums sums;
};
struct ResidualGradients {
  at::Tensor dx_BLD;
  at::Tensor dbranch_BLD;  // dx itself without scales
};
ResidualGradients residual_norm_backward(const ResidualNormBackward& task);
/// Gradient of the branch; weight_D and bias_D of `sums` are not looked at.
at::Tensor residual_sum_backward(const at::Tensor& dsum_BLD, const at::Tensor& branch_BLD,
                                 const BranchScales& scales, const ResidualSums& sums);

/// The norm alone in plain ATen over the last axis; everything in the statistics type.
struct PlainNorm {
  at::Tensor normed, rstd, mean;  // before weight and bias; mean undefined for RMSNorm
};
PlainNorm plain_norm(const at::Tensor& wide, const NormWeights& norm);
/// What weight and bias make of it.
at::Tensor plain_affine(const at::Tensor& normed, const NormWeights& norm);
/// Gradient of plain_norm's argument; those of weight and bias are added where defined.
at::Tensor plain_norm_backward(const at::Tensor& wide_dy, const PlainNorm& forward,
                               const NormWeights& norm, const at::Tensor& weight_gradient,
                               const at::Tensor& bias_gradient);

}  // namespace vitrail::ops
