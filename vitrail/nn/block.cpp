#include "vitrail/nn/block.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/silu.h>

#include "vitrail/core/error.h"
#include "vitrail/ops/random.h"

namespace vitrail::nn {
namespace {

constexpr int kMaxBlocks = 65536 / Block::kDrawsPerBlock;  // a draw's layer has 16 bits

uint16_t draw_layer(const BlockOptions& options, int place) {
  return static_cast<uint16_t>(options.index * Block::kDrawsPerBlock + place);
}

AttentionOptions attention_options(const BlockOptions& options) {
  return {.width = options.width,
          .num_heads = options.num_heads,
          .num_kv_heads = options.num_kv_heads,
          .qkv_bias = options.qkv_bias,
          .proj_bias = options.proj_bias,
          .qk_norm = options.qk_norm,
          .norm = options.norm,
          .attn_drop = options.attn_drop,
          .proj_drop = options.proj_drop,
          .draw_layer = draw_layer(options, 0)};
}

MlpOptions mlp_options(const BlockOptions& options) {
  return {.kind = options.mlp,
          .width = options.width,
          .hidden = options.mlp_hidden,
          .bias = options.proj_bias,
          .drop = options.proj_drop,
          .draw_layer = draw_layer(options, 2)};
}

}  // namespace

double drop_path_rate(double rate, int i, int depth) {
  return depth > 1 ? rate * i / (depth - 1) : 0.0;
}

Block::Block(const BlockOptions& options) : options_(options) {
  // The last values are left to dropouts outside the blocks.
  VT_REQUIRE(ConfigError, options.index >= 0 && options.index < kMaxBlocks - 1,
             "[config] a model must have fewer than {} blocks", kMaxBlocks - 1);
  norm1_ = register_module("norm1", std::make_shared<Norm>(options.width, options.norm));
  attn_ = register_module("attn", std::make_shared<Attention>(attention_options(options)));
  if (options.layer_scale)
    ls1_ = register_module("ls1", std::make_shared<LayerScale>(options.width));
  norm2_ = register_module("norm2", std::make_shared<Norm>(options.width, options.norm));
  mlp_ = register_module("mlp", std::make_shared<Mlp>(mlp_options(options)));
  if (options.layer_scale)
    ls2_ = register_module("ls2", std::make_shared<LayerScale>(options.width));
  if (options.conditioned)
    cond_ = register_module("cond", std::make_shared<Linear>(options.width, options.width));
}

at::Tensor Block::attention_input(const at::Tensor& x_BLD, const Context& context) const {
  if (!cond_) return x_BLD;
  VT_CHECK(context.condition_BD.defined(),
           "[block] a conditioned block must get a condition but got none");
  return x_BLD + cond_->forward(at::silu(context.condition_BD)).unsqueeze(1);
}

at::Tensor Block::branch_gamma(int branch) const {
  const LayerScale* scale = branch == 0 ? ls1_.get() : ls2_.get();
  return scale ? scale->gamma() : at::Tensor();
}

core::DrawKey Block::drop_path_key(const Draws& draws, int branch) const {
  return draws.key(core::Stream::drop_path, static_cast<uint16_t>(2 * options_.index + branch));
}

at::Tensor Block::finish_branch(at::Tensor y_BLD, const LayerScale* scale, const Draws& draws,
                                int branch) const {
  if (scale) y_BLD = scale->forward(y_BLD);
  if (!draws.training) return y_BLD;
  return ops::drop_path(y_BLD, options_.drop_path, drop_path_key(draws, branch), draws.sample_ids);
}

at::Tensor Block::forward(const at::Tensor& x_BLD, const Context& context) const {
  const at::Tensor attended_BLD =
      attn_->forward(norm1_->forward(attention_input(x_BLD, context)), context);
  const at::Tensor middle_BLD = x_BLD + finish_branch(attended_BLD, ls1_.get(), context, 0);
  const at::Tensor mlp_BLD = mlp_->forward(norm2_->forward(middle_BLD), context, context.window);
  return middle_BLD + finish_branch(mlp_BLD, ls2_.get(), context, 1);
}

}  // namespace vitrail::nn
