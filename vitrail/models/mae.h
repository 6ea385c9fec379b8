#pragma once
/// Masked autoencoder: encode the visible tokens, decode all, score the hidden ones.
///
/// Paper    He et al. 2022, arXiv:2111.06377; reference code facebookresearch/mae.
/// Differs  accepts 3-D input; the class token is optional; a linear decoder; learned positions (pos_embed: learned) are
///          parameters that start at the sin-cos table.
/// Shapes   B batch, L tokens, K = floor(L (1 - mask_ratio)) kept, D width, S values per token in the order (p, q, c).
/// Taps     embed [B, K(+1), D], blocks.i, norm (latent), decoder_embed [B, L(+1), D'], decoder_blocks.i, decoder_norm.

#include <memory>
#include <string>
#include <vector>

#include "vitrail/models/model.h"
#include "vitrail/models/parts.h"
#include "vitrail/nn/linear.h"
#include "vitrail/nn/norm.h"
#include "vitrail/ops/masking.h"

namespace vitrail::models {

class Mae : public Model {
 public:
  /// throws ConfigError when the options contradict each other or mask everything.
  explicit Mae(const config::Model& options);

  /// output: prediction [B, L, S]; mask [B, L]; loss always. Masks come from batch.mask_noise [B, L], or are drawn from
  /// the seed by sample id.
  Output forward(const data::Batch& batch, const nn::Draws& draws,
                 const std::vector<std::string>& taps = {}) override;
  std::vector<UnitSpec> units() override;
  std::vector<nn::Stack*> stacks() override;
  double train_flops_per_sample() const override;
  int64_t tokens_per_sample() const override { return kept_ + prefix_tokens(); }
  std::vector<nn::NamedTensor> fixed_tensors() const override;
  void set_fixed_tensor(const std::string& name, const at::Tensor& values) override;

 private:
  bool has_transformer_decoder() const { return options_.decoder == "transformer"; }
  int64_t prefix_tokens() const { return options_.class_token ? 1 : 0; }
  void add_encoder();
  void add_decoder();
  /// Registers learned positions, or fills the fixed table; neither for pos_embed none.
  void add_positions(const std::string& name, int64_t width, at::Tensor& learned,
                     FixedTable& fixed);
  ops::Masking mask(const data::Batch& batch, const nn::Draws& draws) const;
  at::Tensor encode(const at::Tensor& image, const ops::Masking& masking, const nn::Draws& draws,
                    Taps& tap);
  at::Tensor decode(const at::Tensor& latent, const ops::Masking& masking, const nn::Draws& draws,
                    Taps& tap);
  at::Tensor restore(const at::Tensor& x, const ops::Masking& masking) const;
  at::Tensor loss(const at::Tensor& image, const at::Tensor& prediction,
                  const at::Tensor& mask_BL) const;

  config::Model options_;
  int64_t kept_ = 0;                                      // K
  at::Tensor cls_token_, pos_embed_;                      // [1, 1, D], [1, 1 + L, D]
  at::Tensor mask_token_, decoder_pos_embed_;             // [1, 1, D'], [1, 1 + L, D']
  FixedTable fixed_positions_, fixed_decoder_positions_;  // instead of the learned ones
  std::shared_ptr<PatchEmbed> patch_embed_;
  std::shared_ptr<nn::Stack> blocks_, decoder_blocks_;
  std::shared_ptr<nn::Norm> norm_, decoder_norm_;
  std::shared_ptr<nn::Linear> decoder_embed_, decoder_pred_;
};

}  // namespace vitrail::models
