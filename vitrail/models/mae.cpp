#include "vitrail/models/mae.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <fmt/ranges.h>

#include "vitrail/core/error.h"
#include "vitrail/ops/patch.h"
#include "vitrail/ops/random.h"

namespace vitrail::models {

Mae::Mae(const config::Model& options) : options_(options) {
  VT_REQUIRE(ConfigError, options.register_tokens == 0,
             "[config] model.register_tokens must be 0 for mae but got {}",
             options.register_tokens);
  const int64_t L = options.num_patches();
  kept_ = ops::kept_tokens(L, options.mask_ratio);
  VT_REQUIRE(ConfigError, kept_ >= 1 && kept_ <= L,
             "[config] model.mask_ratio must leave at least 1 of {} patches but {} leaves {}", L,
             options.mask_ratio, kept_);
  VT_REQUIRE(ConfigError, kept_ < L || !(options.loss == "masked_mse"),
             "[config] model.mask_ratio {} hides none of {} patches, and model.loss=masked_mse "
             "scores hidden ones",
             options.mask_ratio, L);
  add_encoder();
  add_decoder();
}

void Mae::add_positions(const std::string& name, int64_t width, at::Tensor& learned,
                        FixedTable& fixed) {
  if (options_.pos_embed == "none") return;
  const at::Tensor table = position_table(options_, prefix_tokens(), width);
  if (options_.pos_embed == "sincos")
    fixed = FixedTable(table);
  else {
    learned = register_parameter(name, table.sizes());
    const at::NoGradGuard no_grad;
    learned.copy_(table);
  }
}

void Mae::add_encoder() {
  const int64_t D = options_.embed_dim;
  if (options_.class_token) cls_token_ = register_parameter("cls_token", {1, 1, D});
  add_positions("pos_embed", D, pos_embed_, fixed_positions_);
  patch_embed_ = register_module("patch_embed", std::make_shared<PatchEmbed>(options_));
  blocks_ = register_module("blocks", make_trunk(options_, trunk_sizes(options_)));
  if (options_.final_norm)
    norm_ = register_module("norm", std::make_shared<nn::Norm>(D, norm_options(options_)));
}

void Mae::add_decoder() {
  const int64_t D = options_.embed_dim;
  const int64_t width = has_transformer_decoder() ? options_.decoder_embed_dim : D;
  mask_token_ = register_parameter("mask_token", {1, 1, width});
  if (has_transformer_decoder()) {
    add_positions("decoder_pos_embed", width, decoder_pos_embed_, fixed_decoder_positions_);
    decoder_embed_ = register_module("decoder_embed", std::make_shared<nn::Linear>(D, width));
    const auto hidden =
        static_cast<int64_t>(static_cast<double>(width) * options_.decoder_mlp_ratio);
    const TrunkSizes sizes{width, options_.decoder_depth, options_.decoder_num_heads, hidden,
                           blocks_->depth()};
    decoder_blocks_ = register_module("decoder_blocks", make_trunk(options_, sizes));
    decoder_norm_ =
        register_module("decoder_norm", std::make_shared<nn::Norm>(width, norm_options(options_)));
  }
  decoder_pred_ =
      register_module("decoder_pred", std::make_shared<nn::Linear>(width, options_.patch_values()));
}

ops::Masking Mae::mask(const data::Batch& batch, const nn::Draws& draws) const {
  const int64_t L = options_.num_patches();
  const at::Tensor noise_BL =
      batch.mask_noise.defined()
          ? batch.mask_noise
          : ops::uniform(draws.key(core::Stream::mask, 0), draws.sample_ids, L);
  VT_CHECK(noise_BL.dim() == 2 && noise_BL.size(0) == batch.size() && noise_BL.size(1) == L,
           "[mae] mask_noise must be [{}, {}] but got [{}]", batch.size(), L,
           fmt::join(noise_BL.sizes(), ", "));
  return ops::random_masking(noise_BL, kept_);
}

/// Only visible patches are embedded: positions and pixels are gathered first.
at::Tensor Mae::encode(const at::Tensor& image, const ops::Masking& masking, const nn::Draws& draws,
                       Taps& tap) {
  const int64_t B = image.size(0);
  at::Tensor x_BKD =
      patch_embed_->project(ops::gather_tokens(patch_embed_->patches(image), masking.keep_BK));
  const at::Tensor positions_1TD = pos_embed_.defined()         ? pos_embed_
                                   : fixed_positions_.defined() ? fixed_positions_.like(x_BKD)
                                                                : at::Tensor();
  if (positions_1TD.defined()) {
    const at::Tensor of_patches_BLD = positions_1TD.slice(1, prefix_tokens()).expand({B, -1, -1});
    x_BKD = x_BKD + ops::gather_tokens(of_patches_BLD, masking.keep_BK);
  }
  if (cls_token_.defined()) {
    const at::Tensor cls_11D =
        positions_1TD.defined() ? cls_token_ + positions_1TD.slice(1, 0, 1) : cls_token_;
    x_BKD = at::cat({cls_11D.expand({B, -1, -1}), x_BKD}, 1);
  }
  x_BKD = end_dropout(x_BKD, options_.pos_drop_rate, draws, EndDraw::pos_drop);
  tap.offer("embed", x_BKD);
  x_BKD = tap.run("blocks", *blocks_, x_BKD, draws);
  if (norm_) x_BKD = norm_->forward(x_BKD);
  tap.offer("norm", x_BKD);
  return x_BKD;
}

/// [B, prefix + K, D'] -> [B, prefix + L, D']: mask tokens fill the hidden places, tokens return to their order.
at::Tensor Mae::restore(const at::Tensor& x, const ops::Masking& masking) const {
  const int64_t B = x.size(0), hidden = options_.num_patches() - kept_;
  const at::Tensor shuffled_BLD =
      at::cat({x.slice(1, prefix_tokens()), mask_token_.expand({B, hidden, -1})}, 1);
  const at::Tensor restored_BLD = ops::gather_tokens(shuffled_BLD, masking.restore_BL);
  return prefix_tokens() > 0 ? at::cat({x.slice(1, 0, prefix_tokens()), restored_BLD}, 1)
                             : restored_BLD;
}

at::Tensor Mae::decode(const at::Tensor& latent, const ops::Masking& masking,
                       const nn::Draws& draws, Taps& tap) {
  at::Tensor x = restore(decoder_embed_ ? decoder_embed_->forward(latent) : latent, masking);
  if (decoder_pos_embed_.defined()) x = x + decoder_pos_embed_;
  if (fixed_decoder_positions_.defined()) x = x + fixed_decoder_positions_.like(x);
  tap.offer("decoder_embed", x);
  if (decoder_blocks_) x = tap.run("decoder_blocks", *decoder_blocks_, x, draws);
  if (decoder_norm_) x = decoder_norm_->forward(x);
  tap.offer("decoder_norm", x);
  return decoder_pred_->forward(x).slice(1, prefix_tokens());
}

at::Tensor Mae::loss(const at::Tensor& image, const at::Tensor& prediction,
                     const at::Tensor& mask_BL) const {
  at::Tensor target_BLS =
      ops::patchify(image.to(at::kFloat), options_.patch_size, ops::PatchOrder::channel_last);
  if (options_.norm_pix_loss) {
    const at::Tensor mean = target_BLS.mean(-1, /*keepdim=*/true);
    const at::Tensor variance =
        target_BLS.var(at::OptionalIntArrayRef(-1), /*correction=*/1, /*keepdim=*/true);
    target_BLS = (target_BLS - mean) / (variance + 1e-6).sqrt();
  }
  const at::Tensor error_BL = (prediction - target_BLS).square().mean(-1);
  if (options_.loss == "mse") return error_BL.mean();
  return (error_BL * mask_BL).sum() / mask_BL.sum();
}

Output Mae::forward(const data::Batch& batch, const nn::Draws& draws,
                    const std::vector<std::string>& taps) {
  Output out;
  std::vector<std::pair<std::string, int>> trunks{{"blocks", blocks_->depth()}};
  if (decoder_blocks_) trunks.emplace_back("decoder_blocks", decoder_blocks_->depth());
  Taps tap(taps, {"embed", "norm", "decoder_embed", "decoder_norm"}, trunks, out.taps);
  const ops::Masking masking = mask(batch, draws);
  const at::Tensor latent = encode(batch.image, masking, draws, tap);
  out.output = decode(latent, masking, draws, tap).to(at::kFloat);
  out.mask = masking.mask_BL;
  out.loss = loss(batch.image, out.output, out.mask);
  return out;
}

std::vector<UnitSpec> Mae::units() {
  const std::vector<nn::NamedTensor> all = named_parameters();
  std::vector<UnitSpec> units;
  units.push_back({"embed", select(all, {"cls_token", "pos_embed", "patch_embed."})});
  add_trunk_units(units, all, "blocks", blocks_.get());
  units.push_back({"decoder_embed",
                   select(all, {"norm.", "mask_token", "decoder_pos_embed", "decoder_embed."})});
  if (decoder_blocks_) add_trunk_units(units, all, "decoder_blocks", decoder_blocks_.get());
  units.push_back({"head", select(all, {"decoder_norm.", "decoder_pred."})});
  return units;
}

std::vector<nn::Stack*> Mae::stacks() {
  std::vector<nn::Stack*> stacks{blocks_.get()};
  if (decoder_blocks_) stacks.push_back(decoder_blocks_.get());
  return stacks;
}

double Mae::train_flops_per_sample() const {
  double flops = trunk_flops(*blocks_, tokens_per_sample(), options_.embed_dim);
  if (decoder_blocks_)
    flops += trunk_flops(*decoder_blocks_, options_.num_patches() + prefix_tokens(),
                         options_.decoder_embed_dim);
  return flops;
}

std::vector<nn::NamedTensor> Mae::fixed_tensors() const {
  std::vector<nn::NamedTensor> fixed;
  if (fixed_positions_.defined()) fixed.push_back({"pos_embed", fixed_positions_.values()});
  if (fixed_decoder_positions_.defined())
    fixed.push_back({"decoder_pos_embed", fixed_decoder_positions_.values()});
  return fixed;
}

void Mae::set_fixed_tensor(const std::string& name, const at::Tensor& values) {
  FixedTable* table = name == "pos_embed"           ? &fixed_positions_
                      : name == "decoder_pos_embed" ? &fixed_decoder_positions_
                                                    : nullptr;
  VT_CHECK(table && table->defined(), "[model] '{}' is not a fixed tensor of this model", name);
  table->set(values);
}

}  // namespace vitrail::models
