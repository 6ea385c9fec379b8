#include "vitrail/ops/norm.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/layer_norm.h>

namespace vitrail::ops {

// ATen's kernel keeps mean and variance in fp32 for bf16 input, on CPU and CUDA.
at::Tensor layer_norm(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                      double eps) {
  return at::layer_norm(x, {x.size(-1)}, weight, bias, eps);
}

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  const at::Tensor wide = x.to(statistics_type(x.scalar_type()));
  const at::Tensor inverse = wide.square().mean(-1, /*keepdim=*/true).add(eps).rsqrt();
  return (wide * inverse).to(x.scalar_type()) * weight;
}

}  // namespace vitrail::ops
