#include "vitrail/models/diffusion.h"

#include <cmath>

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/where.h>
#include <fmt/ranges.h>

#include "vitrail/core/error.h"
#include "vitrail/models/diffusion_noise.h"
#include "vitrail/ops/patch.h"
#include "vitrail/ops/random.h"

namespace vitrail::models {
namespace {

const config::Model& checked(const config::Model& options) {
  VT_REQUIRE(
      ConfigError, options.embed_dim % 2 == 0,
      "[config] model.embed_dim must be even for the sines and cosines of the time but got {}",
      options.embed_dim);
  VT_REQUIRE(ConfigError, options.num_leaves() == 0,
             "[config] model.adaptive.fixed_length must be 0 for diffusion, which predicts whole "
             "images, but got {}",
             options.num_leaves());
  VT_REQUIRE(
      ConfigError, options.patch_drop_rate == 0.0,
      "[config] model.patch_drop_rate must be 0 for diffusion, which predicts every patch, but "
      "got {}",
      options.patch_drop_rate);
  VT_REQUIRE(ConfigError, !(options.decoder == "conv"),
             "[config] model.decoder must be transformer or linear for diffusion but got {}",
             options.decoder.value);
  return options;
}

core::DrawKey time_key(const nn::Draws& draws, TimeDraw what) {
  return draws.key(core::Stream::time, static_cast<uint16_t>(what));
}

at::Tensor time_table(int64_t num_timesteps, int64_t width) {
  at::Tensor table = at::empty({num_timesteps, width}, at::kFloat);
  float* out = table.mutable_data_ptr<float>();
  for (int64_t t = 0; t < num_timesteps; ++t)
    for (int64_t j = 0; 2 * j < width; ++j) {
      const double angle =
          static_cast<double>(t) *
          std::pow(10000.0, -2.0 * static_cast<double>(j) / static_cast<double>(width));
      out[t * width + 2 * j] = static_cast<float>(std::sin(angle));
      out[t * width + 2 * j + 1] = static_cast<float>(std::cos(angle));
    }
  return table;
}

/// Given levels may come from a file; drawn ones are in range.
void check_given(const data::Batch& batch, int64_t num_timesteps) {
  if (batch.timestep.defined()) {
    const at::Tensor& t = batch.timestep;
    VT_CHECK(t.scalar_type() == at::kLong && t.dim() == 1 && t.size(0) == batch.size(),
             "[diffusion] timestep must be int64 [{}] but got {} [{}]", batch.size(),
             c10::toString(t.scalar_type()), fmt::join(t.sizes(), ", "));
    if (t.numel() > 0) {
      const auto low = t.min().item<int64_t>(), high = t.max().item<int64_t>();
      VT_REQUIRE(DataError, low >= 0 && high < num_timesteps,
                 "[diffusion] timestep must be in [0, model.num_timesteps = {}) but got {}",
                 num_timesteps, low < 0 ? low : high);
    }
  }
  VT_CHECK(!batch.noise.defined() || batch.noise.sizes() == batch.image.sizes(),
           "[diffusion] noise must be like the image [{}] but got [{}]",
           fmt::join(batch.image.sizes(), ", "), fmt::join(batch.noise.sizes(), ", "));
}

}  // namespace

TimeEmbed::TimeEmbed(int64_t num_timesteps, int64_t width, double drop_rate)
    : table_(time_table(num_timesteps, width)), drop_rate_(drop_rate) {
  fc1_ = register_module("fc1", std::make_shared<nn::Linear>(width, width));
  fc2_ = register_module("fc2", std::make_shared<nn::Linear>(width, width));
}

at::Tensor TimeEmbed::forward(const at::Tensor& timestep_B, const nn::Draws& draws) {
  at::Tensor x_BD = fc1_->forward(table_.like(fc1_->weight()).index_select(0, timestep_B)).relu();
  if (draws.training)
    x_BD = ops::dropout(x_BD, drop_rate_, time_key(draws, TimeDraw::dropout), draws.sample_ids);
  return fc2_->forward(x_BD);
}

Diffusion::Diffusion(const config::Model& options)
    : EncoderModel(checked(options)), schedule_(options) {
  const int64_t D = options.embed_dim;
  time_embed_ = register_module(
      "time_embed", std::make_shared<TimeEmbed>(options.num_timesteps, D, options.time_drop_rate));
  if (options.num_classes > 0)
    class_embed_ = register_parameter("class_embed", {options.num_classes + 1, D});
  add_decoder();
  // Learned positions start at the sin-cos table, as UCF-VIT's.
  for (const nn::NamedTensor& parameter : named_parameters())
    if (parameter.name == "pos_embed" || parameter.name == "decoder_pos_embed")
      start_at(parameter.tensor,
               position_table(options, encoder_->prefix_tokens(), parameter.tensor.size(-1)));
}

void Diffusion::add_decoder() {
  const bool transformer = options_.decoder == "transformer";
  const int64_t width = transformer ? options_.decoder_embed_dim : options_.embed_dim;
  if (transformer) {
    decoder_positions_ = std::make_unique<Positions>(options_, width);
    if (const auto shape = decoder_positions_->learned_shape(); !shape.empty())
      decoder_positions_->set_learned(register_parameter("decoder_pos_embed", shape));
    decoder_embed_ = register_module(
        "decoder_embed",
        std::make_shared<nn::Linear>(options_.embed_dim, width, options_.proj_bias));
    const auto hidden =
        static_cast<int64_t>(static_cast<double>(width) * options_.decoder_mlp_ratio);
    config::Model unconditioned = options_;
    unconditioned.time_conditioning.value = "input";
    decoder_blocks_ = register_module(
        "decoder_blocks",
        make_trunk(unconditioned, {width, options_.decoder_depth, options_.decoder_num_heads,
                                   hidden, encoder_->blocks().depth()}));
    add_trunk("decoder_blocks", decoder_blocks_.get());
    decoder_norm_ =
        register_module("decoder_norm", std::make_shared<nn::Norm>(width, norm_options(options_)));
    decoder_rotary_ =
        RotaryTable(options_, encoder_->prefix_tokens(), width / options_.decoder_num_heads,
                    options_.decoder_rope_theta.value_or(options_.rope_theta));
  }
  decoder_pred_ = register_module("decoder_pred",
                                  std::make_shared<PatchHead>(options_, width, options_.proj_bias));
}

/// Row of class_embed of every sample: the label, or the last one for none and for hidden classes.
at::Tensor Diffusion::class_rows(const data::Batch& batch, const nn::Draws& draws) const {
  const at::Tensor none_B =
      at::full({batch.size()}, options_.num_classes, batch.image.options().dtype(at::kLong));
  if (!batch.label.defined()) return none_B;
  at::Tensor without_B = batch.label.lt(0);
  if (draws.training && options_.class_drop_rate > 0.0) {
    const at::Tensor uniforms =
        ops::uniform(time_key(draws, TimeDraw::hide_class), draws.sample_ids, 1);
    without_B = without_B.logical_or(uniforms.view(-1).lt(options_.class_drop_rate));
  }
  return at::where(without_B, none_B, batch.label);
}

at::Tensor Diffusion::condition(const data::Batch& batch, const nn::Draws& draws) {
  const at::Tensor time_BD = time_embed_->forward(batch.timestep, draws);
  if (!class_embed_.defined()) return time_BD;
  return time_BD + class_embed_.index_select(0, class_rows(batch, draws));
}

at::Tensor Diffusion::add_decoder_positions(const at::Tensor& x_BTD,
                                            const data::Batch& batch) const {
  const at::Tensor of_patches = decoder_positions_->of_patches(batch, {}, x_BTD);
  if (!of_patches.defined()) return x_BTD;
  return x_BTD + at::cat({decoder_positions_->of_prefix(x_BTD), of_patches}, 1);
}

Known Diffusion::know(const data::Batch& batch, const nn::Draws& draws, Asks who) const {
  if (who == Asks::context || who == Asks::between) return {batch, draws, {}};
  VT_CHECK(batch.image.defined(), "[diffusion] a batch must hold images but has none");
  check_given(batch, options_.num_timesteps);
  nn::Draws place = draws;
  if (!draws.training) place.step = 0;
  Known known{batch, draws, {}};
  data::Batch& noisy = known.batch;
  if (!noisy.timestep.defined())
    noisy.timestep =
        uniform_levels(time_key(place, TimeDraw::level), place.sample_ids, options_.num_timesteps);
  if (!noisy.noise.defined())
    noisy.noise = normal(place.key(core::Stream::noise, static_cast<uint16_t>(NoiseDraw::training)),
                         place.sample_ids, batch.image.sizes().slice(1));
  if (!(who == Asks::conclude))
    noisy.image = schedule_.add_noise(batch.image, noisy.noise, noisy.timestep);
  return known;
}

void Diffusion::begin(Flow& flow, const Known& known, Taps& tap) {
  tap.offer("noise", known.batch.noise);
  const at::Tensor condition_BD = condition(known.batch, known.draws);
  tap.offer("time_embed", condition_BD);
  EncoderModel::begin(flow, known, tap);
  if (conditions_blocks())
    flow.condition_BD = condition_BD;
  else
    flow.x_BTD = flow.x_BTD + condition_BD.unsqueeze(1);
}

nn::Context Diffusion::trunk_context(int t, const Flow& flow, const Known& known) {
  if (t == 0) return EncoderModel::trunk_context(t, flow, known);
  nn::Context context = known.draws;
  context.rotary = decoder_rotary_.on(flow.x_BTD.device());
  return context;
}

void Diffusion::between(Flow& flow, const Known& known, Taps& tap) {
  const at::Tensor x_BTD = decoder_embed_->forward(encoder_->normalised(flow.x_BTD, tap));
  flow.x_BTD = add_decoder_positions(x_BTD, known.batch);
  flow.condition_BD = at::Tensor();
  tap.offer("decoder_embed", flow.x_BTD);
}

void Diffusion::conclude(Flow& flow, const Known& known, Taps& tap, Output& out) {
  const data::Batch& batch = known.batch;
  at::Tensor x_BTD;
  if (decoder_blocks_) {
    x_BTD = decoder_norm_->forward(flow.x_BTD);
    tap.offer("decoder_norm", x_BTD);
  } else {
    x_BTD = encoder_->normalised(flow.x_BTD, tap);
  }
  flow.condition_BD = at::Tensor();
  const at::Tensor pixels_BLS = decoder_pred_->forward(x_BTD.slice(1, encoder_->prefix_tokens()),
                                                       encoder_->channels_of(batch));
  const std::vector<int64_t> grid = ops::patch_grid(options_.image_size, options_.patch_size);
  out.output = ops::unpatchify(pixels_BLS.to(at::kFloat), grid, options_.patch_size,
                               ops::PatchOrder::channel_last);
  if (batch.noise.defined()) out.loss = (out.output - batch.noise.to(at::kFloat)).square().mean();
}

at::Tensor Diffusion::predict_noise(const data::Batch& given) {
  data::Batch noisy = given;
  noisy.noise = at::Tensor();  // nothing is to be scored
  return run_all({noisy, {0, 0, noisy.sample_ids, /*training=*/false}, {}}, {}).output;
}

std::vector<std::string> Diffusion::end_taps() const {
  std::vector<std::string> ends{"noise", "time_embed", "embed", "norm"};
  if (decoder_blocks_) ends.insert(ends.end(), {"decoder_embed", "decoder_norm"});
  return ends;
}

std::vector<UnitSpec> Diffusion::units() {
  const std::vector<nn::NamedTensor> all = named_parameters();
  std::vector<UnitSpec> units = encoder_->units(all);
  for (nn::NamedTensor& parameter : select(all, {"time_embed.", "class_embed"}))
    units.front().parameters.push_back(std::move(parameter));
  if (decoder_blocks_) {
    units.push_back(
        {"decoder_embed", select(all, {"norm.", "decoder_pos_embed", "decoder_embed."})});
    add_trunk_units(units, all, "decoder_blocks", decoder_blocks_.get());
  }
  units.push_back({"head", remaining(all, units)});
  return units;
}

double Diffusion::train_flops_per_sample() const {
  double flops = EncoderModel::train_flops_per_sample();
  if (decoder_blocks_)
    flops += trunk_flops(*decoder_blocks_, tokens_per_sample(), options_.decoder_embed_dim);
  return flops;
}

std::vector<nn::NamedTensor> Diffusion::fixed_tensors() const {
  std::vector<nn::NamedTensor> fixed = EncoderModel::fixed_tensors();
  if (decoder_positions_ && decoder_positions_->fixed().defined())
    fixed.push_back({"decoder_pos_embed", decoder_positions_->fixed().values()});
  return fixed;
}

void Diffusion::set_fixed_tensor(const std::string& name, const at::Tensor& values) {
  if (name == "decoder_pos_embed" && decoder_positions_ && decoder_positions_->fixed().defined())
    decoder_positions_->fixed().set(values);
  else
    EncoderModel::set_fixed_tensor(name, values);
}

InitialRule diffusion_initial(const config::Model& options) {
  return [base = mae_initial(options)](const std::string& name,
                                       const at::Tensor& parameter) -> Initial {
    if (name == "decoder_pred.weight" || name.ends_with(".cond.weight")) return {Fill::zeros};
    if (name == "class_embed") return {Fill::normal, 0.02};
    return base(name, parameter);
  };
}

}  // namespace vitrail::models
