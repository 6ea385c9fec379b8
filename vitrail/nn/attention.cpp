#include "vitrail/nn/attention.h"

#include "vitrail/core/error.h"
#include "vitrail/nn/part_dropout.h"
#include "vitrail/ops/attention.h"
#include "vitrail/ops/random.h"
#include "vitrail/ops/rotary.h"

namespace vitrail::nn {

Attention::Attention(const AttentionOptions& options) : options_(options), attend_(ops::sdpa) {
  VT_REQUIRE(ConfigError, options.num_heads > 0 && options.width % options.num_heads == 0,
             "[config] the width must be a multiple of the number of heads but got {} and {}",
             options.width, options.num_heads);
  if (options_.num_kv_heads == 0) options_.num_kv_heads = options.num_heads;
  const int64_t kv_heads = options_.num_kv_heads, head_width = options.width / options.num_heads;
  VT_REQUIRE(ConfigError, kv_heads > 0 && options.num_heads % kv_heads == 0,
             "[config] the number of heads must be a multiple of num_kv_heads but got {} and {}",
             options.num_heads, kv_heads);
  qkv_ = register_module(
      "qkv", std::make_shared<Linear>(
                 options.width, (options.num_heads + 2 * kv_heads) * head_width, options.qkv_bias));
  if (options.qk_norm) {
    q_norm_ = register_module("q_norm", std::make_shared<Norm>(head_width, options.norm));
    k_norm_ = register_module("k_norm", std::make_shared<Norm>(head_width, options.norm));
  }
  proj_ = register_module(
      "proj", std::make_shared<Linear>(options.width, options.width, options.proj_bias));
}

bool Attention::is_library_core() const {
  using Core = at::Tensor (*)(const at::Tensor&, const at::Tensor&, const at::Tensor&,
                              const at::Tensor&);
  const Core* core = attend_.target<Core>();
  return !divided_ && core && *core == &ops::sdpa;
}

at::Tensor Attention::attend(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                             const Context& context) const {
  const int64_t tokens = context.window.whole > 0 ? context.window.whole : q.size(2);
  DropProbabilities drop;
  if (context.training && options_.attn_drop > 0.0) {
    // By value: backward may ask again when this pass is long over.
    const int64_t first_head = qkv_->outputs().index * q.size(1);
    drop = [draws = Draws(context), rate = options_.attn_drop, layer = options_.draw_layer,
            heads = options_.num_heads, first_head,
            tokens](const at::Tensor& probabilities, const std::array<int64_t, 3>& first) {
      return ops::dropout(
          probabilities, rate, draws.key(core::Stream::dropout, layer), draws.sample_ids,
          ops::Window{{first_head + first[0], first[1], first[2]}, {heads, tokens, tokens}});
    };
  }
  if (divided_) return divided_(q, k, v, {context.key_mask_BT, tokens, attend_, drop});
  if (!drop) return attend_(q, k, v, context.key_mask_BT);
  return ops::plain_attention(q, k, v, context.key_mask_BT, [&](const at::Tensor& probabilities) {
    return drop(probabilities, {0, 0, 0});
  });
}

at::Tensor Attention::forward(const at::Tensor& x_BLD, const Context& context) const {
  const at::Tensor qkv_BLF = enter_ ? enter_(x_BLD, {qkv_.get()})[0] : qkv_->forward(x_BLD);
  const int64_t B = x_BLD.size(0), L = qkv_BLF.size(1), E = options_.width / options_.num_heads;
  const at::Tensor qkv_BLNE = qkv_BLF.view({B, L, -1, E});
  // Of the heads that are here: a tensor-parallel rank holds an equal part of each kind.
  const int64_t heads = qkv_BLNE.size(2);
  const int64_t kv =
      heads * options_.num_kv_heads / (options_.num_heads + 2 * options_.num_kv_heads);
  const std::vector<at::Tensor> parts = qkv_BLNE.split_with_sizes({heads - 2 * kv, kv, kv}, 2);
  at::Tensor q_BNLE = parts[0].transpose(1, 2), k_BNLE = parts[1].transpose(1, 2);
  const at::Tensor v_BNLE = parts[2].transpose(1, 2);
  if (q_norm_) q_BNLE = q_norm_->forward(q_BNLE);
  if (k_norm_) k_BNLE = k_norm_->forward(k_BNLE);
  if (context.rotary.defined()) {
    q_BNLE = ops::rotate(q_BNLE, context.rotary);
    k_BNLE = ops::rotate(k_BNLE, context.rotary);
  }
  const at::Tensor merged_BLD =
      attend(q_BNLE, k_BNLE, v_BNLE, context).transpose(1, 2).reshape({B, L, -1});
  if (context.attended_BTD) *context.attended_BTD = merged_BLD;
  const at::Tensor out_BLD = proj_->forward(merged_BLD);
  return part_dropout(out_BLD, options_.proj_drop, context,
                      static_cast<uint16_t>(options_.draw_layer + 1), context.window, {});
}

}  // namespace vitrail::nn
