#include "vitrail/nn/mlp.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/silu.h>

#include "vitrail/ops/random.h"

namespace vitrail::nn {

Mlp::Mlp(const MlpOptions& options) : options_(options) {
  const bool gated = options.kind == MlpKind::swiglu;
  const auto linear = [&](const char* name, int64_t in, int64_t out) {
    return register_module(name, std::make_shared<Linear>(in, out, options.bias));
  };
  if (gated) gate_ = linear("fc1_g", options.width, options.hidden);
  fc1_ = linear(gated ? "fc1_x" : "fc1", options.width, options.hidden);
  fc2_ = linear("fc2", options.hidden, options.width);
}

at::Tensor Mlp::drop(const at::Tensor& x, const Draws& draws, int place) const {
  if (!draws.training) return x;
  return ops::dropout(
      x, options_.drop,
      draws.key(core::Stream::dropout, static_cast<uint16_t>(options_.draw_layer + place)),
      draws.sample_ids);
}

at::Tensor Mlp::forward(const at::Tensor& x, const Draws& draws) const {
  const at::Tensor hidden =
      gate_ ? at::silu(gate_->forward(x)) * fc1_->forward(x) : at::gelu(fc1_->forward(x), "none");
  return drop(fc2_->forward(drop(hidden, draws, 0)), draws, 1);
}

}  // namespace vitrail::nn
