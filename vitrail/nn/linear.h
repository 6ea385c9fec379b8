#pragma once
/// y = x W^T + b, the seam at which tensor parallelism enters.

#include <cstdint>
#include <functional>

#include <ATen/core/Tensor.h>

#include "vitrail/nn/module.h"

namespace vitrail::nn {

/// What happens to activations at a layer's border; empty = identity.
using Boundary = std::function<at::Tensor(const at::Tensor&)>;

/// Names    weight [out, in], bias [out].
/// A rank of a tensor-parallel group holds its slice; `enter` and `leave` are then a conjugate pair of collectives
/// (identity / all-reduce and the like). The bias is added once, after `leave`.
class Linear : public Module {
 public:
  Linear(int64_t in, int64_t out, bool bias = true);
  /// x [..., in] -> [..., out]
  at::Tensor forward(const at::Tensor& x) const;
  void set_boundaries(Boundary enter, Boundary leave);
  const at::Tensor& weight() const { return weight_; }
  const at::Tensor& bias() const { return bias_; }

 private:
  at::Tensor weight_, bias_;
  Boundary enter_, leave_;
};

}  // namespace vitrail::nn
