#include "vitrail/nn/norm.h"

#include "vitrail/ops/norm.h"

namespace vitrail::nn {

Norm::Norm(int64_t width, const NormOptions& options) : options_(options) {
  weight_ = register_parameter("weight", {width});
  if (options_.kind == NormKind::layernorm) bias_ = register_parameter("bias", {width});
}

at::Tensor Norm::forward(const at::Tensor& x) const {
  if (options_.kind == NormKind::rmsnorm) return ops::rms_norm(x, weight_, options_.eps);
  return ops::layer_norm(x, weight_, bias_, options_.eps);
}

}  // namespace vitrail::nn
