#include "vitrail/ops/attention.h"

#include <cmath>
#include <limits>

#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/scaled_dot_product_attention.h>

#include "vitrail/ops/attention_kept.h"
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

/// cuDNN's backward is suspected of NaN gradients for these numbers of keys (docs/numerics.md); flash
/// attention takes its place.
bool avoids_cudnn(const at::Tensor& k) { return k.is_cuda() && k.size(-2) % 128 == 64; }

/// Turns cuDNN's attention off while it lives. Which library runs backward is settled by forward.
class WithoutCudnn {
 public:
  explicit WithoutCudnn(bool is_on) : is_on_(is_on && at::globalContext().userEnabledCuDNNSDP()) {
    if (is_on_) at::globalContext().setSDPUseCuDNN(false);
  }
  ~WithoutCudnn() {
    if (is_on_) at::globalContext().setSDPUseCuDNN(true);
  }
  WithoutCudnn(const WithoutCudnn&) = delete;
  WithoutCudnn& operator=(const WithoutCudnn&) = delete;

 private:
  bool is_on_;
};

}  // namespace

at::Tensor sdpa(const at::Tensor& q, const at::Tensor& key, const at::Tensor& value,
                const at::Tensor& key_mask_BL) {
  const WithoutCudnn guard(avoids_cudnn(key));
  const bool shares_heads =
      key.size(1) != q.size(1) && !key_mask_BL.defined() && flash_shares_heads(q);
  const int64_t heads = shares_heads ? key.size(1) : q.size(1);
  const at::Tensor k = repeated(key, heads), v = repeated(value, heads);
  std::optional<at::Tensor> mask;
  if (key_mask_BL.defined()) mask = over_scores(key_mask_BL);
  if (const std::optional<at::Tensor> kept = kept_sdpa(q, k, v, mask, shares_heads)) return *kept;
  return at::scaled_dot_product_attention(q, k, v, mask, 0.0, false, std::nullopt, shares_heads);
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
