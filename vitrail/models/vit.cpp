#include "vitrail/models/vit.h"

#include <cmath>

#include <ATen/TensorOperators.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/softmax.h>

#include "vitrail/core/error.h"
#include "vitrail/models/losses.h"

namespace vitrail::models {

AttentionPool::AttentionPool(const config::Model& options) : num_heads_(options.num_heads) {
  const int64_t D = options.embed_dim;
  latent_ = register_parameter("latent", {1, 1, D});
  q_ = register_module("q", std::make_shared<nn::Linear>(D, D));
  kv_ = register_module("kv", std::make_shared<nn::Linear>(D, 2 * D));
  proj_ = register_module("proj", std::make_shared<nn::Linear>(D, D));
  norm_ = register_module("norm", std::make_shared<nn::Norm>(D, norm_options(options)));
  nn::MlpOptions mlp;
  mlp.width = D;
  mlp.hidden = static_cast<int64_t>(static_cast<double>(D) * options.mlp_ratio);
  mlp_ = register_module("mlp", std::make_shared<nn::Mlp>(mlp));
}

at::Tensor AttentionPool::forward(const at::Tensor& x_BLD, const at::Tensor& real_BL) const {
  const int64_t B = x_BLD.size(0), L = x_BLD.size(1), D = x_BLD.size(2), N = num_heads_, E = D / N;
  const at::Tensor q_N1E = q_->forward(latent_).view({1, N, E}).transpose(0, 1);
  const at::Tensor kv_2BNLE = kv_->forward(x_BLD).view({B, L, 2, N, E}).permute({2, 0, 3, 1, 4});
  // One query: the product with the keys is small, so nothing is gained by a fused kernel.
  at::Tensor scores_BN1L =
      at::matmul(q_N1E, kv_2BNLE.select(0, 0).transpose(2, 3)) / std::sqrt(double(E));
  if (real_BL.defined())
    scores_BN1L = scores_BN1L.masked_fill(real_BL.logical_not().view({B, 1, 1, L}), -INFINITY);
  const at::Tensor p_BN1L = at::softmax(scores_BN1L, -1, at::kFloat).to(x_BLD.scalar_type());
  const at::Tensor merged_BD =
      at::matmul(p_BN1L, kv_2BNLE.select(0, 1)).transpose(1, 2).reshape({B, D});
  const at::Tensor y_BD = proj_->forward(merged_BD);
  return y_BD + mlp_->forward(norm_->forward(y_BD), {});
}

Vit::Vit(const config::Model& options) : EncoderModel(options) {
  VT_REQUIRE(
      ConfigError, options.class_token || !(options.pool == "token"),
      "[config] model.pool=token needs model.class_token=true; set model.pool to avg or none");
  const int64_t D = options.embed_dim;
  if (options.pool == "attention")
    attn_pool_ = register_module("attn_pool", std::make_shared<AttentionPool>(options));
  if (options.pool == "avg" && options.final_norm)
    fc_norm_ = register_module("fc_norm", std::make_shared<nn::Norm>(D, norm_options(options)));
  if (options.num_classes > 0)
    head_ = register_module("head", std::make_shared<nn::Linear>(D, options.num_classes));
}

at::Tensor Vit::pool(const at::Tensor& x_BTD, const at::Tensor& key_mask_BT) const {
  if (options_.pool == "token") return x_BTD.select(1, 0);
  if (options_.pool == "none") return x_BTD;
  const at::Tensor x_BLD = x_BTD.slice(1, encoder_->prefix_tokens());
  const at::Tensor real_BL =
      key_mask_BT.defined() ? key_mask_BT.slice(1, encoder_->prefix_tokens()) : at::Tensor();
  if (attn_pool_) return attn_pool_->forward(x_BLD, real_BL);
  if (!real_BL.defined()) return x_BLD.mean(1);
  const at::Tensor weight_BL1 = real_BL.unsqueeze(-1).to(x_BLD.scalar_type());
  return (x_BLD * weight_BL1).sum(1) / weight_BL1.sum(1).clamp_min(1.0);
}

at::Tensor Vit::loss(const at::Tensor& logits, const data::Batch& batch) const {
  const at::Tensor& label = batch.label;
  if (!head_ || !label.defined() || logits.dim() != 2) return {};
  if (options_.loss == "mse") return values_loss(logits, label);
  if (label.dim() != 1) return {};
  if (!batch.label_other.defined()) return classification_loss(logits, label, options_);
  return classification_loss(logits, MixedLabel{label, batch.label_other, batch.label_share},
                             options_);
}

void Vit::conclude(Flow& flow, const Known& known, Taps& tap, Output& out) {
  // A norm goes row by row: where the class token alone is read, it alone is normed.
  const bool reads_one = options_.pool == "token" && !tap.wants("norm");
  const at::Tensor x_BTD =
      encoder_->normalised(reads_one ? flow.x_BTD.slice(1, 0, 1) : flow.x_BTD, tap);
  at::Tensor features = pool(x_BTD, key_mask(options_, known.batch, known.masking.keep_BK));
  if (fc_norm_) features = fc_norm_->forward(features);
  tap.offer("pool", features);
  features = end_dropout(features, options_.drop_rate, known.draws, EndDraw::head_drop);
  out.output = (head_ ? head_->forward(features) : features).to(at::kFloat);
  out.loss = loss(out.output, known.batch);
}

at::Tensor Vit::features(const data::Batch& batch, const nn::Draws& draws) {
  if (options_.pool == "none") return EncoderModel::features(batch, draws);
  return forward(batch, draws, {"pool"}).taps.at("pool");
}

}  // namespace vitrail::models
