#pragma once
/// The block's two-layer perceptron: GELU (exact, erf) or SwiGLU, with timm's names.
///
/// Names    gelu: fc1, fc2; swiglu: fc1_g (gate), fc1_x, fc2.
/// Paper    Hendrycks & Gimpel 2016, arXiv:1606.08415; Shazeer 2020, arXiv:2002.05202.

#include <cstdint>
#include <memory>

#include <ATen/core/Tensor.h>

#include "vitrail/nn/draws.h"
#include "vitrail/nn/linear.h"
#include "vitrail/nn/module.h"

namespace vitrail::nn {

enum class MlpKind { gelu, swiglu };

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
  /// x [..., width] -> the same shape
  at::Tensor forward(const at::Tensor& x, const Draws& draws) const;

 private:
  at::Tensor drop(const at::Tensor& x, const Draws& draws, int place) const;

  MlpOptions options_;
  std::shared_ptr<Linear> gate_, fc1_, fc2_;  // gate_ only for swiglu
};

}  // namespace vitrail::nn
