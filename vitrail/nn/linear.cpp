#include "vitrail/nn/linear.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/linear.h>

namespace vitrail::nn {

Linear::Linear(int64_t in, int64_t out, bool bias) {
  weight_ = register_parameter("weight", {out, in});
  if (bias) bias_ = register_parameter("bias", {out});
}

at::Tensor Linear::forward(const at::Tensor& x) const {
  const at::Tensor entered = enter_ ? enter_(x) : x;
  if (!leave_) return at::linear(entered, weight_, bias_);
  const at::Tensor left = leave_(at::linear(entered, weight_));
  return bias_.defined() ? left + bias_ : left;
}

void Linear::set_boundaries(Boundary enter, Boundary leave) {
  enter_ = std::move(enter);
  leave_ = std::move(leave);
}

}  // namespace vitrail::nn
