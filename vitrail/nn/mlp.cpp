#include "vitrail/nn/mlp.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/silu.h>

#include "vitrail/nn/part_dropout.h"

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

std::vector<Linear*> Mlp::inputs() const {
  if (gate_) return {gate_.get(), fc1_.get()};
  return {fc1_.get()};
}

at::Tensor Mlp::hidden(const at::Tensor& x) const {
  std::vector<at::Tensor> entered;
  if (enter_)
    entered = enter_(x, inputs());
  else
    for (const Linear* layer : inputs()) entered.push_back(layer->forward(x));
  if (gate_) return at::silu(entered[0]) * entered[1];
  return at::gelu(entered[0], options_.kind == MlpKind::gelu_tanh ? "tanh" : "none");
}

at::Tensor Mlp::forward(const at::Tensor& x, const Draws& draws, const TokenWindow& window) const {
  const auto drop = [&](const at::Tensor& y, int place, const TokenWindow& tokens, Part channels) {
    return part_dropout(y, options_.drop, draws, static_cast<uint16_t>(options_.draw_layer + place),
                        tokens, channels);
  };
  const at::Tensor hidden_BLF = hidden(x);
  const at::Tensor kept_BLF =
      drop(hidden_BLF, 0, gathered_window(window, hidden_BLF), fc1_->outputs());
  return drop(fc2_->forward(kept_BLF), 1, window, {});
}

}  // namespace vitrail::nn
