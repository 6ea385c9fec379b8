#pragma once
/// Normalisation over the last axis, statistics in fp32 whatever the type of x (fp64 for fp64).

#include <ATen/core/Tensor.h>

namespace vitrail::ops {

/// The type in which sums over values of type `type` are kept: fp64 for fp64, else fp32.
inline at::ScalarType statistics_type(at::ScalarType type) {
  return type == at::kDouble ? at::kDouble : at::kFloat;
}

/// (x - mean) / sqrt(var + eps) * weight + bias, biased variance.
/// Paper    Ba et al. 2016, arXiv:1607.06450.
at::Tensor layer_norm(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                      double eps);

/// x / sqrt(mean(x^2) + eps) * weight.
/// Paper    Zhang & Sennrich 2019, arXiv:1910.07467.
at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps);

}  // namespace vitrail::ops
