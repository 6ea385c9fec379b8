#pragma once
/// Masked autoencoder: encode the visible tokens, decode all, score the hidden ones.
///
/// Paper    He et al. 2022, arXiv:2111.06377; reference code facebookresearch/mae.
/// Differs  accepts 3-D input, variables and leaves; class and register tokens are optional; a linear decoder; learned
///          positions (pos_embed: learned) are parameters that start at the sin-cos table.
/// Leaves   are scored as losses_leaves.h says: on their patches, by area if wanted, or on the image, where the pixels of
///          hidden leaves count and those of visible ones do not. Padding is neither hidden nor scored: every sample hides
///          the same share of its real leaves, and padding, which nothing attends to, fills what is left of the K places.
///          With a tree per channel every leaf predicts its own channel, and the decoder is told which by
///          decoder_var_embed [1, V, D'] (with model.variable_embedding); K is that of the batch's variables.
/// Shapes   B batch, L tokens, K = floor(L (1 - mask_ratio)) kept, D width, D' decoder width, S values per token of the
///          batch's channels in the order (p, q, c).
/// Taps     embed [B, K(+1), D], blocks.i, norm (latent), decoder_embed [B, L(+1), D'], decoder_blocks.i, decoder_norm.

#include <memory>
#include <string>
#include <vector>

#include "vitrail/models/encoder.h"
#include "vitrail/nn/linear.h"
#include "vitrail/nn/norm.h"
#include "vitrail/ops/masking.h"

namespace vitrail::models {

/// output: prediction [B, L, S]; mask [B, L]; loss always. Masks come from batch.mask_noise [B, L], or are drawn from the
/// seed by sample id.
class Mae : public EncoderModel {
 public:
  /// throws ConfigError when the options contradict each other or mask everything.
  explicit Mae(const config::Model& options);

  Task task() const override { return Task::reconstruction; }
  data::Batch prepared(data::Batch batch, const nn::Draws& draws) const override;
  std::vector<UnitSpec> units() override;
  double train_flops_per_sample() const override;
  int64_t tokens_per_sample() const override { return kept_ + encoder_->prefix_tokens(); }
  std::vector<nn::NamedTensor> fixed_tensors() const override;
  void set_fixed_tensor(const std::string& name, const at::Tensor& values) override;

 private:
  Known know(const data::Batch& batch, const nn::Draws& draws, Asks who) const override;
  void between(Flow& flow, const Known& known, Taps& tap) override;
  void conclude(Flow& flow, const Known& known, Taps& tap, Output& out) override;
  nn::Context trunk_context(int t, const Flow& flow, const Known& known) override;
  std::vector<std::string> end_taps() const override {
    return {"embed", "norm", "decoder_embed", "decoder_norm"};
  }
  bool has_transformer_decoder() const { return options_.decoder == "transformer"; }
  void add_decoder();
  void add_decoder_variables(int64_t width);
  at::Tensor mask_noise(const data::Batch& batch, const nn::Draws& draws) const;
  ops::Masking mask(const data::Batch& batch, const nn::Draws& draws) const;
  at::Tensor restore(const at::Tensor& x, const ops::Masking& masking) const;
  at::Tensor add_decoder_positions(const at::Tensor& x, const data::Batch& batch) const;
  /// [1, L, D'] of leaves whose variables the decoder is told; undefined otherwise.
  at::Tensor decoder_variables(const data::Batch& batch, const at::Tensor& like) const;
  at::Tensor loss(const data::Batch& batch, const at::Tensor& prediction,
                  const at::Tensor& mask_BL) const;

  int64_t kept_ = 0;              // K
  at::Tensor mask_token_;         // [1, 1, D']
  at::Tensor decoder_var_embed_;  // [1, V, D']
  IndexTensors indices_;
  std::unique_ptr<Positions> decoder_positions_;
  RotaryTable decoder_rotary_;
  std::shared_ptr<nn::Stack> decoder_blocks_;
  std::shared_ptr<nn::Norm> decoder_norm_;
  std::shared_ptr<nn::Linear> decoder_embed_;
  std::shared_ptr<PatchHead> decoder_pred_;
};

}  // namespace vitrail::models
