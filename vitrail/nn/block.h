#pragma once
/// The pre-norm transformer block with timm's names: norm1, attn, ls1, norm2, mlp, ls2; and cond when conditioned.
///
///   x <- x + drop_path(ls1(attn(norm1(x + c))));  x <- x + drop_path(ls2(mlp(norm2(x))))
/// with c = cond(silu(condition)), the same for all tokens of a sample, in conditioned blocks, else 0.
/// Paper    Dosovitskiy et al. 2021, arXiv:2010.11929; LayerScale: Touvron et al. 2021, arXiv:2103.17239.
/// Shapes   B batch, L tokens, D width.

#include <cstdint>
#include <memory>
#include <optional>

#include <ATen/core/Tensor.h>

#include "vitrail/nn/attention.h"
#include "vitrail/nn/context.h"
#include "vitrail/nn/mlp.h"
#include "vitrail/nn/module.h"
#include "vitrail/nn/norm.h"

namespace vitrail::nn {

/// Everything a block is, as data.
struct BlockOptions {
  int64_t width = 768;
  int64_t num_heads = 12;
  int64_t num_kv_heads = 0;  // 0 = num_heads
  int64_t mlp_hidden = 3072;
  bool qkv_bias = true;
  bool proj_bias = true;  // of attn.proj and of the whole MLP, as in timm
  bool qk_norm = false;
  bool layer_scale = false;
  bool conditioned = false;  // needs Context::condition_BD
  NormOptions norm;
  MlpKind mlp = MlpKind::gelu;
  double drop_path = 0.0;
  double attn_drop = 0.0;
  double proj_drop = 0.0;
  int index =
      0;  // place among all blocks of the model: tells its random draws from those of other blocks
};

/// A learned factor per channel on a residual branch. Name: gamma [D].
class LayerScale : public Module {
 public:
  explicit LayerScale(int64_t width) : gamma_(register_parameter("gamma", {width})) {}
  at::Tensor forward(const at::Tensor& x) const { return x.mul(gamma_); }
  const at::Tensor& gamma() const { return gamma_; }

 private:
  at::Tensor gamma_;
};

class Block : public Module {
 public:
  /// Draw layers of one block: 4 for dropouts, 2 for drop-path.
  static constexpr int kDrawsPerBlock = 4;

  explicit Block(const BlockOptions& options);
  /// x_BLD -> [B, L, D]. throws Error when a conditioned block gets no condition. A block of another kind may begin with
  /// work of its own and give fewer tokens than it gets; the autograd engine runs it.
  virtual at::Tensor forward(const at::Tensor& x_BLD, const Context& context) const;
  Attention& attention() { return *attn_; }
  Mlp& mlp() { return *mlp_; }
  const BlockOptions& options() const { return options_; }
  const Norm& norm1() const { return *norm1_; }
  const Norm& norm2() const { return *norm2_; }
  /// LayerScale's factor of a branch (0 attention, 1 MLP); undefined: none.
  at::Tensor branch_gamma(int branch) const;
  /// Of the draws of a branch's drop-path.
  core::DrawKey drop_path_key(const Draws& draws, int branch) const;
  const Linear* cond() const { return cond_.get(); }  // null unless conditioned

 private:
  at::Tensor attention_input(const at::Tensor& x_BLD, const Context& context) const;
  /// What is added to the residual stream; `branch` is 0 for attention, 1 for the MLP.
  at::Tensor finish_branch(at::Tensor y_BLD, const LayerScale* scale, const Draws& draws,
                           int branch) const;

  BlockOptions options_;
  std::shared_ptr<Norm> norm1_, norm2_;
  std::shared_ptr<Attention> attn_;
  std::shared_ptr<LayerScale> ls1_, ls2_;  // null without layer_scale
  std::shared_ptr<Mlp> mlp_;
  std::shared_ptr<Linear> cond_;  // null unless conditioned
};

/// Drop-path rate of block i: rate * i / (depth - 1).
double drop_path_rate(double rate, int i, int depth);

}  // namespace vitrail::nn
