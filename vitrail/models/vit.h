#pragma once
/// Vision transformer for images and volumes, with timm's names and choices.
///
/// Paper    Dosovitskiy et al. 2021, arXiv:2010.11929; register tokens: Darcet et al. 2023, arXiv:2309.16588.
/// Differs  accepts 3-D input; tokens are class, registers, patches in raster order.
/// Shapes   B batch, L patches, T = class + registers + L tokens, D width.
/// Taps     embed [B, T, D], blocks.i [B, T, D], norm [B, T, D] (tokens before pooling, normalised unless pool is avg),
///          pool [B, D] (what the head reads).

#include <memory>
#include <string>
#include <vector>

#include "vitrail/models/model.h"
#include "vitrail/models/parts.h"
#include "vitrail/nn/linear.h"
#include "vitrail/nn/norm.h"

namespace vitrail::models {

class Vit : public Model {
 public:
  /// throws ConfigError when the options contradict each other.
  explicit Vit(const config::Model& options);

  /// output: logits [B, classes] (pool none: [B, T, classes]; num_classes 0: features); loss: cross-entropy over the
  /// samples whose label is not -1.
  Output forward(const data::Batch& batch, const nn::Draws& draws,
                 const std::vector<std::string>& taps = {}) override;
  std::vector<UnitSpec> units() override;
  std::vector<nn::Stack*> stacks() override { return {blocks_.get()}; }
  double train_flops_per_sample() const override;
  int64_t tokens_per_sample() const override;
  std::vector<nn::NamedTensor> fixed_tensors() const override;
  void set_fixed_tensor(const std::string& name, const at::Tensor& values) override;

 private:
  int64_t prefix_tokens() const {
    return (options_.class_token ? 1 : 0) + options_.register_tokens;
  }
  at::Tensor embed(const at::Tensor& image, const nn::Draws& draws);
  at::Tensor pool(const at::Tensor& x_BTD) const;
  at::Tensor loss(const at::Tensor& logits, const at::Tensor& label) const;

  config::Model options_;
  at::Tensor cls_token_, reg_token_, pos_embed_;  // [1, 1, D], [1, R, D], [1, T, D]
  FixedTable fixed_positions_;                    // instead of pos_embed_ when sin-cos
  std::shared_ptr<PatchEmbed> patch_embed_;
  std::shared_ptr<nn::Stack> blocks_;
  std::shared_ptr<nn::Norm> norm_, fc_norm_;
  std::shared_ptr<nn::Linear> head_;
};

}  // namespace vitrail::models
