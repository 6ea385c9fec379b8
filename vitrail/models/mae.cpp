#include "vitrail/models/mae.h"

#include <algorithm>

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/where.h>
#include <fmt/ranges.h>

#include "vitrail/core/error.h"
#include "vitrail/models/losses.h"
#include "vitrail/models/losses_leaves.h"
#include "vitrail/ops/patch.h"
#include "vitrail/ops/position.h"
#include "vitrail/ops/random.h"

namespace vitrail::models {
namespace {

/// The decoder's trunk: plain multi-head attention whatever the encoder's key and value heads.
config::Model decoder_options(const config::Model& options) {
  config::Model decoder = options;
  decoder.num_kv_heads.reset();
  return decoder;
}

/// Masking of leaves of which some are padding. Per sample floor(n (1 - ratio)) of its n real leaves stay, at least
/// one; then padding fills the kept places; hidden leaves come last. Without padding this is ops::random_masking.
ops::Masking mask_real(const at::Tensor& noise_BL, const at::Tensor& real_BL, double mask_ratio,
                       int64_t kept) {
  const int64_t L = noise_BL.size(1);
  const at::Tensor rank_BL =
      ops::random_masking(at::where(real_BL, noise_BL, INFINITY), kept).restore_BL;
  const at::Tensor stay_B1 = (real_BL.sum(1, /*keepdim=*/true).to(at::kDouble) * (1.0 - mask_ratio))
                                 .floor()
                                 .clamp_min(1.0);
  const at::Tensor hidden_BL = real_BL.logical_and(rank_BL.ge(stay_B1));
  ops::Masking masking = ops::random_masking(
      rank_BL + real_BL.logical_not() * L + hidden_BL.to(at::kLong) * (2 * L), kept);
  masking.mask_BL = masking.mask_BL * real_BL;
  return masking;
}

}  // namespace

Mae::Mae(const config::Model& options) : EncoderModel(options) {
  // What the field holds when no recipe chose; recipes always name one of this model's two.
  if (options_.loss == "cross_entropy") options_.loss.value = "masked_mse";
  const int64_t L = encoder_->num_patches();
  kept_ = ops::kept_tokens(L, options.mask_ratio);
  VT_REQUIRE(ConfigError, kept_ >= 1 && kept_ <= L,
             "[config] model.mask_ratio must leave at least 1 of {} patches but {} leaves {}", L,
             options.mask_ratio, kept_);
  VT_REQUIRE(ConfigError, kept_ < L || !(options_.loss == "masked_mse"),
             "[config] model.mask_ratio {} hides none of {} patches, and model.loss=masked_mse "
             "scores hidden ones",
             options.mask_ratio, L);
  VT_REQUIRE(
      ConfigError,
      options.num_leaves() == 0 || !options.norm_pix_loss ||
          !(options.adaptive.loss_space == "image"),
      "[config] model.norm_pix_loss needs model.adaptive.loss_space=leaf: normalised patches "
      "have no image to be pasted to");
  add_decoder();
}

void Mae::add_decoder() {
  const int64_t D = options_.embed_dim;
  const int64_t width = has_transformer_decoder() ? options_.decoder_embed_dim : D;
  mask_token_ = register_parameter("mask_token", {1, 1, width});
  if (has_transformer_decoder()) {
    decoder_positions_ = std::make_unique<Positions>(options_, width);
    if (const auto shape = decoder_positions_->learned_shape(); !shape.empty())
      decoder_positions_->set_learned(register_parameter("decoder_pos_embed", shape));
    if (const auto leaves = decoder_positions_->of_leaves())
      register_module("decoder_leaf_position", leaves);
    if (trees_per_channel(options_) && options_.variable_embedding) add_decoder_variables(width);
    decoder_embed_ = register_module("decoder_embed",
                                     std::make_shared<nn::Linear>(D, width, options_.proj_bias));
    const auto hidden =
        static_cast<int64_t>(static_cast<double>(width) * options_.decoder_mlp_ratio);
    const TrunkSizes sizes{width, options_.decoder_depth, options_.decoder_num_heads, hidden,
                           encoder_->blocks().depth()};
    decoder_blocks_ =
        register_module("decoder_blocks", make_trunk(decoder_options(options_), sizes));
    add_trunk("decoder_blocks", decoder_blocks_.get());
    decoder_rotary_ =
        RotaryTable(options_, encoder_->prefix_tokens(), width / options_.decoder_num_heads,
                    options_.decoder_rope_theta.value_or(options_.rope_theta));
    decoder_norm_ =
        register_module("decoder_norm", std::make_shared<nn::Norm>(width, norm_options(options_)));
  }
  decoder_pred_ = register_module("decoder_pred",
                                  std::make_shared<PatchHead>(options_, width, options_.proj_bias));
}

void Mae::add_decoder_variables(int64_t width) {
  VT_REQUIRE(ConfigError, width % 2 == 0,
             "[config] model.decoder_embed_dim must be even for variable embeddings but got {}",
             width);
  const int64_t V = known_channels(options_);
  decoder_var_embed_ = register_parameter("decoder_var_embed", {1, V, width});
  start_at(decoder_var_embed_, ops::sincos_table({V}, width).unsqueeze(0));
}

at::Tensor Mae::mask_noise(const data::Batch& batch, const nn::Draws& draws) const {
  if (batch.mask_noise.defined()) return batch.mask_noise;
  return ops::uniform(draws.key(core::Stream::mask, 0), draws.sample_ids,
                      encoder_->num_patches(batch));
}

data::Batch Mae::prepared(data::Batch given, const nn::Draws& draws) const {
  data::Batch batch = EncoderModel::prepared(std::move(given), draws);
  batch.mask_noise = mask_noise(batch, draws);
  return batch;
}

ops::Masking Mae::mask(const data::Batch& batch, const nn::Draws& draws) const {
  const int64_t L = encoder_->num_patches(batch);
  const int64_t kept = L == encoder_->num_patches()
                           ? kept_
                           : std::max<int64_t>(1, ops::kept_tokens(L, options_.mask_ratio));
  const at::Tensor noise_BL = mask_noise(batch, draws);
  VT_CHECK(noise_BL.dim() == 2 && noise_BL.size(0) == batch.size() && noise_BL.size(1) == L,
           "[mae] mask_noise must be [{}, {}] but got [{}]", batch.size(), L,
           fmt::join(noise_BL.sizes(), ", "));
  if (options_.num_leaves() == 0) return ops::random_masking(noise_BL, kept);
  return mask_real(noise_BL, real_leaves(batch.leaf_boxes), options_.mask_ratio, kept);
}

/// [B, prefix + K, D'] -> [B, prefix + L, D']: mask tokens fill the hidden places, tokens return to their order.
at::Tensor Mae::restore(const at::Tensor& x, const ops::Masking& masking) const {
  const int64_t B = x.size(0), prefix = encoder_->prefix_tokens();
  const int64_t hidden = masking.mask_BL.size(1) - masking.keep_BK.size(1);
  const at::Tensor shuffled_BLD =
      at::cat({x.slice(1, prefix), mask_token_.expand({B, hidden, -1})}, 1);
  const at::Tensor restored_BLD = ops::gather_tokens(shuffled_BLD, masking.restore_BL);
  return prefix > 0 ? at::cat({x.slice(1, 0, prefix), restored_BLD}, 1) : restored_BLD;
}

at::Tensor Mae::decoder_variables(const data::Batch& batch, const at::Tensor& like) const {
  if (!decoder_var_embed_.defined()) return {};
  const at::Tensor ids = indices_.on(like.device(), encoder_->channels_of(batch));
  return decoder_var_embed_.index_select(1, ids).repeat_interleave(options_.adaptive.fixed_length,
                                                                   1);
}

at::Tensor Mae::add_decoder_positions(const at::Tensor& x, const data::Batch& batch) const {
  if (!decoder_positions_) return x;
  const int64_t prefix = encoder_->prefix_tokens();
  at::Tensor of_patches = decoder_positions_->of_patches(batch, {}, x);
  if (const at::Tensor of_variables = decoder_variables(batch, x); of_variables.defined())
    of_patches = of_patches.defined() ? of_patches + of_variables : of_variables;
  if (!of_patches.defined()) return x;
  if (prefix == 0) return x + of_patches;
  const at::Tensor of_prefix = decoder_positions_->of_prefix(x);
  const at::Tensor head = x.slice(1, 0, prefix);
  return at::cat({of_prefix.defined() ? head + of_prefix : head, x.slice(1, prefix) + of_patches},
                 1);
}

Known Mae::know(const data::Batch& given, const nn::Draws& draws, Asks) const {
  Known known{with_leaves(given, draws), draws, {}};
  known.masking = mask(known.batch, draws);
  return known;
}

nn::Context Mae::trunk_context(int t, const Flow& flow, const Known& known) {
  if (t == 0) return EncoderModel::trunk_context(t, flow, known);
  nn::Context context = known.draws;
  context.rotary = decoder_rotary_.on(flow.x_BTD.device());
  context.key_mask_BT = key_mask(options_, known.batch);
  context.key_mask_is_prefix = key_mask_is_prefix(options_);
  return context;
}

void Mae::between(Flow& flow, const Known& known, Taps& tap) {
  const at::Tensor latent = encoder_->normalised(flow.x_BTD, tap);
  const at::Tensor x = decoder_embed_ ? decoder_embed_->forward(latent) : latent;
  flow.x_BTD = add_decoder_positions(restore(x, known.masking), known.batch);
  tap.offer("decoder_embed", flow.x_BTD);
}

void Mae::conclude(Flow& flow, const Known& known, Taps& tap, Output& out) {
  if (!decoder_blocks_) between(flow, known, tap);
  const at::Tensor x = decoder_norm_ ? decoder_norm_->forward(flow.x_BTD) : flow.x_BTD;
  tap.offer("decoder_norm", x);
  const at::Tensor x_BLD = x.slice(1, encoder_->prefix_tokens());
  const std::vector<int64_t> channels = encoder_->channels_of(known.batch);
  out.output = (trees_per_channel(options_) ? decoder_pred_->forward_apart(x_BLD, channels)
                                            : decoder_pred_->forward(x_BLD, channels))
                   .to(at::kFloat);
  out.mask = known.masking.mask_BL;
  out.loss = loss(known.batch, out.output, out.mask);
}

at::Tensor Mae::loss(const data::Batch& batch, const at::Tensor& prediction,
                     const at::Tensor& mask_BL) const {
  if (options_.num_leaves() > 0)
    return leaf_reconstruction_loss(batch, prediction, mask_BL, options_);
  at::Tensor target_BLS =
      ops::patchify(batch.image.to(at::kFloat), options_.patch_size, ops::PatchOrder::channel_last);
  if (options_.norm_pix_loss) {
    const PatchScale scale = patch_scale(target_BLS);
    target_BLS = (target_BLS - scale.mean_BL1) / scale.deviation_BL1;
  }
  return reconstruction_loss(prediction, target_BLS, mask_BL, options_);
}

std::vector<UnitSpec> Mae::units() {
  const std::vector<nn::NamedTensor> all = named_parameters();
  std::vector<UnitSpec> units = encoder_->units(all);
  units.push_back({"decoder_embed",
                   select(all, {"norm.", "mask_token", "decoder_pos_embed",
                                "decoder_leaf_position.", "decoder_var_embed", "decoder_embed."})});
  if (decoder_blocks_) add_trunk_units(units, all, "decoder_blocks", decoder_blocks_.get());
  units.push_back({"head", remaining(all, units)});
  return units;
}

double Mae::train_flops_per_sample() const {
  double flops = EncoderModel::train_flops_per_sample();
  if (decoder_blocks_)
    flops += trunk_flops(*decoder_blocks_, encoder_->num_patches() + encoder_->prefix_tokens(),
                         options_.decoder_embed_dim);
  return flops;
}

std::vector<nn::NamedTensor> Mae::fixed_tensors() const {
  std::vector<nn::NamedTensor> fixed = EncoderModel::fixed_tensors();
  if (decoder_positions_ && decoder_positions_->fixed().defined())
    fixed.push_back({"decoder_pos_embed", decoder_positions_->fixed().values()});
  return fixed;
}

void Mae::set_fixed_tensor(const std::string& name, const at::Tensor& values) {
  if (name == "decoder_pos_embed" && decoder_positions_ && decoder_positions_->fixed().defined())
    decoder_positions_->fixed().set(values);
  else
    EncoderModel::set_fixed_tensor(name, values);
}

}  // namespace vitrail::models
