#include "vitrail/nn/attention.h"

#include "vitrail/core/error.h"
#include "vitrail/ops/attention.h"
#include "vitrail/ops/random.h"

namespace vitrail::nn {

Attention::Attention(const AttentionOptions& options) : options_(options), attend_(ops::sdpa) {
  VT_REQUIRE(ConfigError, options.num_heads > 0 && options.width % options.num_heads == 0,
             "[config] the width must be a multiple of the number of heads but got {} and {}",
             options.width, options.num_heads);
  qkv_ = register_module(
      "qkv", std::make_shared<Linear>(options.width, 3 * options.width, options.qkv_bias));
  if (options.qk_norm) {
    const int64_t head_width = options.width / options.num_heads;
    q_norm_ = register_module("q_norm", std::make_shared<Norm>(head_width, options.norm));
    k_norm_ = register_module("k_norm", std::make_shared<Norm>(head_width, options.norm));
  }
  proj_ = register_module("proj", std::make_shared<Linear>(options.width, options.width));
}

at::Tensor Attention::attend(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                             const Draws& draws) const {
  if (!draws.training || options_.attn_drop == 0.0) return attend_(q, k, v);
  return ops::plain_attention(q, k, v, [&](const at::Tensor& probabilities) {
    return ops::dropout(probabilities, options_.attn_drop,
                        draws.key(core::Stream::dropout, options_.draw_layer), draws.sample_ids);
  });
}

at::Tensor Attention::forward(const at::Tensor& x_BLD, const Draws& draws) const {
  const int64_t B = x_BLD.size(0), L = x_BLD.size(1), E = options_.width / options_.num_heads;
  const at::Tensor qkv_3BNLE = qkv_->forward(x_BLD).view({B, L, 3, -1, E}).permute({2, 0, 3, 1, 4});
  at::Tensor q_BNLE = qkv_3BNLE.select(0, 0), k_BNLE = qkv_3BNLE.select(0, 1);
  const at::Tensor v_BNLE = qkv_3BNLE.select(0, 2);
  if (q_norm_) q_BNLE = q_norm_->forward(q_BNLE);
  if (k_norm_) k_BNLE = k_norm_->forward(k_BNLE);
  const at::Tensor merged_BLD =
      attend(q_BNLE, k_BNLE, v_BNLE, draws).transpose(1, 2).reshape({B, L, -1});
  const at::Tensor out_BLD = proj_->forward(merged_BLD);
  if (!draws.training) return out_BLD;
  return ops::dropout(
      out_BLD, options_.proj_drop,
      draws.key(core::Stream::dropout, static_cast<uint16_t>(options_.draw_layer + 1)),
      draws.sample_ids);
}

}  // namespace vitrail::nn
