#pragma once
/// LayerNorm or RMSNorm over the last axis, statistics in fp32 (fp64 for fp64).

#include <cstdint>

#include <ATen/core/Tensor.h>

#include "vitrail/nn/module.h"

namespace vitrail::nn {

enum class NormKind { layernorm, rmsnorm };

struct NormOptions {
  NormKind kind = NormKind::layernorm;
  double eps = 1e-6;
};

/// Names    weight [width]; bias [width] (layernorm only).
class Norm : public Module {
 public:
  Norm(int64_t width, const NormOptions& options);
  /// x [..., width] -> the same shape
  at::Tensor forward(const at::Tensor& x) const;
  const NormOptions& options() const { return options_; }
  const at::Tensor& weight() const { return weight_; }
  const at::Tensor& bias() const { return bias_; }  // undefined: none

 private:
  NormOptions options_;
  at::Tensor weight_, bias_;
};

}  // namespace vitrail::nn
