#pragma once
/// Vision transformer for images and volumes, with timm's names and choices.
///
/// Paper    Dosovitskiy et al. 2021, arXiv:2010.11929; attention pooling: Lee et al. 2019, arXiv:1810.00825, as in timm.
/// Differs  accepts 3-D input, variables and adaptive leaves; tokens are class, registers, patches in raster order.
/// Shapes   B batch, L patches, T = class + registers + L tokens, D width, N heads, E head width.
/// Taps     embed [B, T, D], blocks.i [B, T, D], norm [B, T, D] (tokens before pooling, normalised unless pool is avg),
///          pool [B, D] (what the head reads).

#include <memory>
#include <string>
#include <vector>

#include "vitrail/models/encoder.h"
#include "vitrail/nn/linear.h"
#include "vitrail/nn/mlp.h"
#include "vitrail/nn/norm.h"

namespace vitrail::models {

/// One learned query attends to the patches, followed by a residual MLP: timm's AttentionPoolLatent.
/// Names    latent [1, 1, D], q, kv, proj, norm, mlp.fc1, mlp.fc2.
class AttentionPool : public nn::Module {
 public:
  explicit AttentionPool(const config::Model& options);
  /// x_BLD, real_BL (bool or undefined): false = not attended to -> [B, D]
  at::Tensor forward(const at::Tensor& x_BLD, const at::Tensor& real_BL) const;

 private:
  int64_t num_heads_;
  at::Tensor latent_;
  std::shared_ptr<nn::Linear> q_, kv_, proj_;
  std::shared_ptr<nn::Norm> norm_;
  std::shared_ptr<nn::Mlp> mlp_;
};

/// output: logits [B, classes] (pool none: [B, T, classes]; num_classes 0: features); loss: model.loss over the samples
/// whose label is not -1. Padding leaves are in no pool.
class Vit : public EncoderModel {
 public:
  /// throws ConfigError when the options contradict each other.
  explicit Vit(const config::Model& options);

  Task task() const override {
    return options_.loss == "mse" ? Task::regression : Task::classification;
  }
  /// What the head reads.
  at::Tensor features(const data::Batch& batch, const nn::Draws& draws) override;

 private:
  void conclude(Flow& flow, const Known& known, Taps& tap, Output& out) override;
  std::vector<std::string> end_taps() const override { return {"embed", "norm", "pool"}; }
  at::Tensor pool(const at::Tensor& x_BTD, const at::Tensor& key_mask_BT) const;
  at::Tensor loss(const at::Tensor& logits, const data::Batch& batch) const;

  std::shared_ptr<AttentionPool> attn_pool_;
  std::shared_ptr<nn::Norm> fc_norm_;
  std::shared_ptr<nn::Linear> head_;
};

}  // namespace vitrail::models
