#pragma once
/// The three products of a linear layer, written where their results belong.
///
///   y = x W^T + b (+ c);   dx = dy W (+ dx);   dW += dy^T x
/// Device   CUDA bf16: the tuned library of kernels/gemm.h; else plain ATen, fp32, fp64 or bf16.
/// Shapes   x [..., in], y and c [..., out], W [out, in], b [out]; all contiguous. dW in the statistics type (ops/norm.h).

#include <ATen/core/Tensor.h>

namespace vitrail::kernels {
class GemmLibrary;
}

namespace vitrail::ops {

/// Undefined: no bias, nothing added.
at::Tensor product(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                   const at::Tensor& added = {});
at::Tensor product_input_gradient(const at::Tensor& dy, const at::Tensor& weight);
/// dx += dy W.
void add_product_input_gradient(const at::Tensor& dx, const at::Tensor& dy,
                                const at::Tensor& weight);
/// dweight undefined: not wanted.
void add_weight_gradient(const at::Tensor& dweight, const at::Tensor& dy, const at::Tensor& x);

/// s W for one row s [out] of the statistics type -> [in] of that type; to about 16 bits of s on CUDA bf16.
at::Tensor row_product(const at::Tensor& row, const at::Tensor& weight);

/// A CUDA device's library, made at first use; its calls share one workspace, so they belong on one stream.
kernels::GemmLibrary& gemm_library(at::Device device);
/// Times the algorithms of every shape that has run on this device and was not timed yet, for about `seconds` in all.
void tune_products(at::Device device, double seconds);

}  // namespace vitrail::ops
