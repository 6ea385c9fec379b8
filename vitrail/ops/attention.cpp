#include "vitrail/ops/attention.h"

#include <cmath>

#include <ATen/TensorOperators.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/scaled_dot_product_attention.h>

namespace vitrail::ops {

at::Tensor sdpa(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  return at::scaled_dot_product_attention(q, k, v);
}

at::Tensor plain_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                           const std::function<at::Tensor(const at::Tensor&)>& drop) {
  const double scale = 1.0 / std::sqrt(static_cast<double>(q.size(-1)));
  const at::Tensor scores = at::matmul(q * scale, k.transpose(-2, -1));
  at::Tensor probabilities = scores.softmax(-1, at::kFloat).to(v.scalar_type());
  if (drop) probabilities = drop(probabilities);
  return at::matmul(probabilities, v);
}

}  // namespace vitrail::ops
