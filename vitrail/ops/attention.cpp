#include "vitrail/ops/attention.h"

#include <cmath>
#include <limits>

#include <ATen/TensorOperators.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/scaled_dot_product_attention.h>

#include "vitrail/ops/norm.h"

namespace vitrail::ops {
namespace {

at::Tensor over_scores(const at::Tensor& key_mask_BL) {
  return key_mask_BL.unsqueeze(1).unsqueeze(1);
}

/// One head of k or v for each of `heads` query heads.
at::Tensor repeated(const at::Tensor& kv, int64_t heads) {
  return kv.size(1) == heads ? kv : kv.repeat_interleave(heads / kv.size(1), 1);
}

/// Only flash attention shares heads without falling back to the formula, and it takes no mask.
bool flash_shares_heads(const at::Tensor& q) {
  return q.is_cuda() && (q.scalar_type() == at::kBFloat16 || q.scalar_type() == at::kHalf);
}

}  // namespace

at::Tensor sdpa(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                const at::Tensor& key_mask_BL) {
  const bool shared = k.size(1) != q.size(1);
  if (!key_mask_BL.defined() && (!shared || flash_shares_heads(q)))
    return at::scaled_dot_product_attention(q, k, v, {}, 0.0, false, std::nullopt, shared);
  const int64_t heads = q.size(1);
  std::optional<at::Tensor> mask;
  if (key_mask_BL.defined()) mask = over_scores(key_mask_BL);
  return at::scaled_dot_product_attention(q, repeated(k, heads), repeated(v, heads), mask);
}

at::Tensor plain_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                           const at::Tensor& key_mask_BL,
                           const std::function<at::Tensor(const at::Tensor&)>& drop) {
  const double scale = 1.0 / std::sqrt(static_cast<double>(q.size(-1)));
  at::Tensor scores = at::matmul(q * scale, repeated(k, q.size(1)).transpose(-2, -1));
  if (key_mask_BL.defined())
    scores = scores.masked_fill(over_scores(key_mask_BL).logical_not(),
                                -std::numeric_limits<double>::infinity());
  at::Tensor probabilities =
      scores.softmax(-1, statistics_type(q.scalar_type())).to(v.scalar_type());
  if (drop) probabilities = drop(probabilities);
  return at::matmul(probabilities, repeated(v, q.size(1)));
}

}  // namespace vitrail::ops
