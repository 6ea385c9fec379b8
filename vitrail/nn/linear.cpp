#include "vitrail/nn/linear.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/linear.h>

namespace vitrail::nn {

Linear::Linear(int64_t in, int64_t out, bool bias) {
  weight_ = register_parameter("weight", {out, in});
  if (bias) bias_ = register_parameter("bias", {out});
}

at::Tensor Linear::forward(const at::Tensor& x) const {
  if (!product_) return at::linear(x, weight_, bias_);
  const at::Tensor y = product_(x, weight_);
  return bias_.defined() ? y + bias_ : y;
}

void Linear::set_product(Product product, Part outputs) {
  product_ = std::move(product);
  outputs_ = outputs;
}

}  // namespace vitrail::nn
