#pragma once
/// The two products of an MLP that exact GELU lies behind: fc1 with GELU, and the gradient of fc2's input through it.
///
/// Device   CUDA bf16: product and GELU apart, or in one kernel (kernels/gemm_gelu.h) for shapes where that was timed
///          to be faster; elsewhere as ops/product.h and ops/activation.h.
/// Shapes   as there.

#include <string>

#include <ATen/core/Tensor.h>

namespace vitrail::ops {

struct GeluProduct {
  at::Tensor pre, out;  // x W^T + b, and its GELU
};
GeluProduct gelu_product(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias);

/// (dy W) gelu'(pre); its column sums are added to pre_sums (undefined: not wanted).
at::Tensor gelu_product_backward(const at::Tensor& dy, const at::Tensor& weight,
                                 const at::Tensor& pre, const at::Tensor& pre_sums);

/// Times both ways for every shape that has run on the device and was not timed yet; until then they run apart.
void tune_gelu_products(at::Device device);
/// One line a shape that was timed.
std::string gelu_product_choices();

}  // namespace vitrail::ops
