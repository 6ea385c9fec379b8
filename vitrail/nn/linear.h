#pragma once
/// y = x W^T + b, the seam at which tensor parallelism enters.

#include <cstdint>
#include <functional>
#include <vector>

#include <ATen/core/Tensor.h>

#include "vitrail/nn/module.h"

namespace vitrail::nn {

/// x, weight -> x W^T, with the collectives that belong around it. Tensor parallelism puts it in the place of the
/// plain product: identity and all-reduce, all-gather and reduce-scatter and the like, whole or in pieces.
using Product = std::function<at::Tensor(const at::Tensor& x, const at::Tensor& weight)>;

/// One of `of` equal parts of a divided axis.
struct Part {
  int64_t index = 0, of = 1;
};

class Linear;
/// x, layers that all read it -> each layer's x W^T + b, with the collectives that belong around them: one serves all.
using SharedInput =
    std::function<std::vector<at::Tensor>(const at::Tensor& x, const std::vector<Linear*>& layers)>;

/// Names    weight [out, in], bias [out].
/// A rank of a tensor-parallel group holds its part of the outputs (or of the inputs); the bias is added once, after
/// the product.
class Linear : public Module {
 public:
  Linear(int64_t in, int64_t out, bool bias = true);
  /// x [..., in] -> [..., out]
  at::Tensor forward(const at::Tensor& x) const;
  /// `outputs`: which part of the layer's outputs this rank computes; the whole when its inputs are divided.
  void set_product(Product product, Part outputs);
  /// The same for a layer whose product another function computes (SharedInput).
  void set_outputs(Part outputs) { outputs_ = outputs; }
  Part outputs() const { return outputs_; }
  /// Whether nobody stands in the plain product's place.
  bool is_plain() const { return !product_; }
  const at::Tensor& weight() const { return weight_; }
  const at::Tensor& bias() const { return bias_; }

 private:
  at::Tensor weight_, bias_;
  Product product_;  // empty: the plain one
  Part outputs_;
};

}  // namespace vitrail::nn
