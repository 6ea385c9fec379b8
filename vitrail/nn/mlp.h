#pragma once
/// The block's two-layer perceptron: GELU (exact, erf, or its tanh approximation) or SwiGLU, with timm's names.
///
/// Names    gelu, gelu_tanh: fc1, fc2; swiglu: fc1_g (gate), fc1_x, fc2.
/// Paper    Hendrycks & Gimpel 2016, arXiv:1606.08415; Shazeer 2020, arXiv:2002.05202.

#include <cstdint>
#include <memory>
#include <vector>

#include <ATen/core/Tensor.h>

#include "vitrail/nn/context.h"
#include "vitrail/nn/linear.h"
#include "vitrail/nn/module.h"

namespace vitrail::nn {

enum class MlpKind { gelu, gelu_tanh, swiglu };

struct MlpOptions {
  MlpKind kind = MlpKind::gelu;
  int64_t width = 768;
  int64_t hidden = 3072;
  bool bias = true;  // of all layers
  double drop = 0.0;
  uint16_t draw_layer = 0;  // uses draw_layer (hidden) and draw_layer + 1 (output)
};

class Mlp : public Module {
 public:
  explicit Mlp(const MlpOptions& options);
  /// x [..., width] -> the same shape; `window`: the tokens that x [B, T, width] holds.
  at::Tensor forward(const at::Tensor& x, const Draws& draws, const TokenWindow& window = {}) const;
  /// The layers that read the input, gate first; `enter` runs them from now on (empty: each for itself).
  std::vector<Linear*> inputs() const;
  void set_enter(SharedInput enter) { enter_ = std::move(enter); }
  bool has_enter() const { return static_cast<bool>(enter_); }
  const MlpOptions& options() const { return options_; }
  Linear& fc2() { return *fc2_; }

 private:
  at::Tensor hidden(const at::Tensor& x) const;

  MlpOptions options_;
  SharedInput enter_;
  std::shared_ptr<Linear> gate_, fc1_, fc2_;  // gate_ only for swiglu
};

}  // namespace vitrail::nn
