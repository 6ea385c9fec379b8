#include "vitrail/models/encoder.h"

#include <algorithm>

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/ones.h>

#include "vitrail/core/error.h"
#include "vitrail/models/leaf_positions.h"
#include "vitrail/ops/embed.h"
#include "vitrail/ops/masking.h"
#include "vitrail/ops/random.h"

namespace vitrail::models {

int64_t prefix_tokens(const config::Model& options) {
  return (options.class_token ? 1 : 0) + options.register_tokens;
}

Positions::Positions(const config::Model& options, int64_t width)
    : options_(options), prefix_(prefix_tokens(options)), width_(width) {
  const int64_t leaves = options.num_leaves();
  if (options.adaptive.fixed_length > 0 && options.adaptive.position_embedding) {
    of_leaves_ = std::make_shared<LeafPosition>(options, width);
  }
  if (options.pos_embed == "sincos") {
    const auto parts = 2 * static_cast<int64_t>(options.image_size.size());
    VT_REQUIRE(ConfigError, leaves == 0 || (width % parts == 0 && width >= 2 * parts),
               "[config] model.pos_embed=sincos of leaves needs a width that is a multiple of {} "
               "and at least {} but model.embed_dim or model.decoder_embed_dim is {}",
               parts, 2 * parts, width);
    if (leaves > 0)
      sincos_of_leaves_ = true;
    else
      fixed_ = FixedTable(position_table(options, prefix_, width));
  } else if (options.pos_embed == "learned" && !of_leaves_) {
    learned_shape_ = {1, prefix_ + (leaves > 0 ? leaves : options.num_patches()), width};
    // The others' initial values are random.
    if ((options.kind == "mae" || options.kind == "diffusion") && leaves == 0)
      start_ = position_table(options, prefix_, width);
  }
}

void Positions::set_learned(at::Tensor parameter) {
  learned_ = std::move(parameter);
  if (start_.defined()) start_at(learned_, start_);
  start_ = at::Tensor();
}

at::Tensor Positions::table_like(const at::Tensor& x) const {
  return learned_.defined() ? learned_ : fixed_.defined() ? fixed_.like(x) : at::Tensor();
}

/// [1, L, width]: the table's rows of this batch's patches; undefined without a table.
at::Tensor Positions::table_of_patches(const data::Batch& batch, const at::Tensor& like) const {
  const at::Tensor table_1TD = table_like(like);
  if (!table_1TD.defined()) return {};
  const at::Tensor patches_1LD = table_1TD.slice(1, prefix_);
  if (!trees_per_channel(options_) || batch.variables.empty()) return patches_1LD;
  const std::vector<int64_t> ids = variable_ids(options_, batch.variables);
  return patches_1LD.unflatten(1, {-1, options_.adaptive.fixed_length})
      .index_select(1, indices_.on(like.device(), ids))
      .flatten(1, 2);
}

at::Tensor Positions::of_patches(const data::Batch& batch, const at::Tensor& keep_BK,
                                 const at::Tensor& like) const {
  at::Tensor positions_BLD = table_of_patches(batch, like);
  if (sincos_of_leaves_)
    positions_BLD =
        sincos_of_leaves(batch.leaf_boxes, static_cast<double>(options_.patch_size), width_)
            .to(like.scalar_type());
  if (of_leaves_) {
    const at::Tensor learned_BLD = of_leaves_->forward(batch.leaf_boxes);
    positions_BLD = positions_BLD.defined() ? positions_BLD + learned_BLD : learned_BLD;
  }
  if (!positions_BLD.defined() || !keep_BK.defined()) return positions_BLD;
  return ops::gather_tokens(positions_BLD.expand({keep_BK.size(0), -1, -1}), keep_BK);
}

at::Tensor Positions::of_prefix(const at::Tensor& like) const {
  const at::Tensor table_1TD = table_like(like);
  return table_1TD.defined() ? table_1TD.slice(1, 0, prefix_) : at::Tensor();
}

at::Tensor key_mask(const config::Model& options, const data::Batch& batch,
                    const at::Tensor& keep_BK) {
  if (options.num_leaves() == 0) return {};
  at::Tensor real_BK = real_leaves(batch.leaf_boxes);
  if (keep_BK.defined()) real_BK = real_BK.gather(1, keep_BK);
  const int64_t prefix = prefix_tokens(options);
  if (prefix == 0) return real_BK;
  return at::cat({at::ones({real_BK.size(0), prefix}, real_BK.options()), real_BK}, 1);
}

bool key_mask_is_prefix(const config::Model& options) {
  return options.num_leaves() == options.adaptive.fixed_length;
}

Encoder::Encoder(const config::Model& options)
    : options_(options),
      prefix_(models::prefix_tokens(options)),
      positions_(options, options.embed_dim) {
  VT_REQUIRE(ConfigError, options.patch_drop_rate >= 0.0 && options.patch_drop_rate < 1.0,
             "[config] model.patch_drop_rate must be in [0, 1) but got {}",
             options.patch_drop_rate);
  VT_REQUIRE(ConfigError, options.patch_drop_rate == 0.0 || options.kind == "vit",
             "[config] model.patch_drop_rate needs model.kind=vit but the kind is {}, whose output "
             "needs every patch; set it to 0",
             options.kind.value);
  const int64_t D = options.embed_dim;
  if (options.class_token) cls_token_ = register_parameter("cls_token", {1, 1, D});
  if (options.register_tokens > 0)
    reg_token_ = register_parameter("reg_token", {1, options.register_tokens, D});
  if (const auto shape = positions_.learned_shape(); !shape.empty())
    positions_.set_learned(register_parameter("pos_embed", shape));
  if (const auto leaves = positions_.of_leaves()) register_module("leaf_position", leaves);
  NamedTokenizer named = make_tokenizer(options);
  tokenizer_ = register_module(named.name, named.tokenizer);
  blocks_ = register_module("blocks", make_trunk(options, trunk_sizes(options)));
  rotary_ = RotaryTable(options, prefix_, D / options.num_heads, options.rope_theta);
  // With pool avg the head normalises after the mean.
  const bool in_head = options.kind == "vit" && options.pool == "avg";
  if (options.final_norm && !in_head)
    norm_ = register_module("norm", std::make_shared<nn::Norm>(D, norm_options(options)));
}

std::vector<int64_t> Encoder::channels_of(const data::Batch& batch) const {
  if (!options_.variables.empty()) return variable_ids(options_, batch.variables);
  VT_REQUIRE(DataError, batch.variables.empty(),
             "[model] a batch names the variable '{}' but model.variables is empty",
             batch.variables.front());
  std::vector<int64_t> all(options_.in_channels);
  for (size_t c = 0; c < all.size(); ++c) all[c] = static_cast<int64_t>(c);
  return all;
}

int64_t Encoder::num_patches(const data::Batch& batch) const {
  return trees_per_channel(options_) ? batch.leaf_boxes.size(1) : num_patches();
}

at::Tensor Encoder::draw_kept(const data::Batch& batch, const nn::Draws& draws) const {
  if (!draws.training || options_.patch_drop_rate == 0.0) return {};
  const int64_t L = num_patches(batch);
  at::Tensor noise_BL = ops::uniform(draws.key(core::Stream::patch_drop, 0), draws.sample_ids, L);
  if (options_.num_leaves() > 0) noise_BL = noise_BL + real_leaves(batch.leaf_boxes).logical_not();
  const int64_t kept = std::max<int64_t>(1, ops::kept_tokens(L, options_.patch_drop_rate));
  return ops::random_masking(noise_BL, kept).keep_BK;
}

Tokens Encoder::embed(const data::Batch& batch, const nn::Draws& draws, const at::Tensor& chosen) {
  const at::Tensor keep_BK = chosen.defined() ? chosen : draw_kept(batch, draws);
  const at::Tensor x_BTD = tokens(batch, draws, keep_BK);
  return {x_BTD, context(batch, draws, keep_BK, x_BTD.device())};
}

at::Tensor Encoder::tokens(const data::Batch& batch, const nn::Draws& draws,
                           const at::Tensor& keep_BK) {
  const at::Tensor x_BKD = tokenizer_->forward(batch, keep_BK);
  std::vector<at::Tensor> prefix;
  for (const at::Tensor& token : {cls_token_, reg_token_})
    if (token.defined()) prefix.push_back(token);
  at::Tensor prefix_1PD;
  if (!prefix.empty()) {
    prefix_1PD = prefix.size() > 1 ? at::cat(prefix, 1) : prefix[0];
    const at::Tensor of_prefix = positions_.of_prefix(x_BKD);
    if (of_prefix.defined()) prefix_1PD = prefix_1PD + of_prefix;
  }
  const at::Tensor x_BTD =
      ops::join_tokens(prefix_1PD, x_BKD, positions_.of_patches(batch, keep_BK, x_BKD));
  return end_dropout(x_BTD, options_.pos_drop_rate, draws, EndDraw::pos_drop);
}

nn::Context Encoder::context(const data::Batch& batch, const nn::Draws& draws,
                             const at::Tensor& keep_BK, at::Device device) {
  nn::Context context = draws;
  context.rotary = rotary_.on(device, keep_BK);
  context.key_mask_BT = key_mask(options_, batch, keep_BK);
  context.key_mask_is_prefix = key_mask_is_prefix(options_) && !keep_BK.defined();
  return context;
}

at::Tensor Encoder::run(const Tokens& tokens, Taps& tap) {
  tap.offer("embed", tokens.x_BTD);
  return normalised(tap.run("blocks", *blocks_, tokens.x_BTD, tokens.context), tap);
}

at::Tensor Encoder::normalised(const at::Tensor& x_BTD, Taps& tap) const {
  const at::Tensor y_BTD = norm_ ? norm_->forward(x_BTD) : x_BTD;
  tap.offer("norm", y_BTD);
  return y_BTD;
}

std::vector<nn::NamedTensor> Encoder::fixed_tensors() const {
  if (!positions_.fixed().defined()) return {};
  return {{"pos_embed", positions_.fixed().values()}};
}

bool Encoder::set_fixed_tensor(const std::string& name, const at::Tensor& values) {
  if (name != "pos_embed" || !positions_.fixed().defined()) return false;
  positions_.fixed().set(values);
  return true;
}

std::vector<UnitSpec> Encoder::units(const std::vector<nn::NamedTensor>& all) {
  std::vector<std::string> prefixes{"cls_token", "reg_token", "pos_embed", "leaf_position."};
  for (const std::string& prefix : tokenizer_->prefixes()) prefixes.push_back(prefix);
  std::vector<UnitSpec> units;
  units.push_back({"embed", select(all, prefixes)});
  add_trunk_units(units, all, "blocks", blocks_.get());
  return units;
}

EncoderModel::EncoderModel(const config::Model& options)
    : options_(options),
      leaf_maker_(options),
      encoder_(register_module("", std::make_shared<Encoder>(options))) {
  add_trunk("blocks", &encoder_->blocks());
}

std::vector<nn::Stack*> EncoderModel::stacks() {
  std::vector<nn::Stack*> stacks;
  for (const Trunk& trunk : trunks_) stacks.push_back(trunk.blocks);
  return stacks;
}

Known EncoderModel::know(const data::Batch& batch, const nn::Draws& draws, Asks) const {
  Known known{with_leaves(batch, draws), draws, {}};
  known.masking.keep_BK = encoder_->draw_kept(known.batch, draws);
  return known;
}

void EncoderModel::begin(Flow& flow, const Known& known, Taps&) {
  flow.x_BTD = encoder_->tokens(known.batch, known.draws, known.masking.keep_BK);
}

void EncoderModel::between(Flow&, const Known&, Taps&) {}

nn::Context EncoderModel::trunk_context(int, const Flow& flow, const Known& known) {
  nn::Context context =
      encoder_->context(known.batch, known.draws, known.masking.keep_BK, flow.x_BTD.device());
  context.condition_BD = flow.condition_BD;
  return context;
}

void EncoderModel::run_end(int t, Flow& flow, const Known& known, Taps& tap, Output& out) {
  if (t == 0) {
    begin(flow, known, tap);
    tap.offer("embed", flow.x_BTD);
  } else if (t < static_cast<int>(trunks_.size())) {
    between(flow, known, tap);
  } else {
    conclude(flow, known, tap, out);
  }
}

Taps EncoderModel::make_taps(const std::vector<std::string>& wanted,
                             std::map<std::string, at::Tensor>& found) const {
  std::vector<std::pair<std::string, int>> depths;
  for (const Trunk& trunk : trunks_) depths.emplace_back(trunk.name, trunk.blocks->depth());
  return {wanted, end_taps(), depths, found};
}

void EncoderModel::check_taps(const std::vector<std::string>& wanted) const {
  std::map<std::string, at::Tensor> none;
  make_taps(wanted, none);
}

std::string EncoderModel::tap_of_block(int trunk, int block) const {
  return fmt::format("{}.{}", trunks_[static_cast<size_t>(trunk)].name, block);
}

Output EncoderModel::run_all(const Known& known, const std::vector<std::string>& wanted) {
  Output out;
  Taps tap = make_taps(wanted, out.taps);
  const int last = static_cast<int>(trunks_.size());
  Flow flow;
  at::Tensor decatt;
  for (int t = 0; t < last; ++t) {
    run_end(t, flow, known, tap, out);
    const nn::Context context = trunk_context(t, flow, known);
    const std::vector<int> inner = taps(t);
    std::vector<nn::Tap> asked(inner.begin(), inner.end());
    const bool decorrelates = t == 0 && decatt_.any() && known.draws.training;
    if (decorrelates) asked.insert(asked.end(), decatt_.taps().begin(), decatt_.taps().end());
    std::vector<at::Tensor> outputs;
    flow.x_BTD = tap.run(trunks_[t].name, *trunks_[t].blocks, flow.x_BTD, context, asked, &outputs);
    const auto rest = outputs.begin() + static_cast<std::ptrdiff_t>(inner.size());
    if (decorrelates) decatt = decatt_.loss({rest, outputs.end()}, context.key_mask_BT);
    flow.inner.assign(outputs.begin(), rest);
  }
  run_end(last, flow, known, tap, out);
  if (decatt.defined() && out.loss.defined()) {
    last_decatt_ = decatt.detach();
    out.loss = out.loss + decatt_.weight() * decatt;
  }
  return out;
}

void EncoderModel::set_decatt(const config::Decatt& options) {
  decatt_ = options.weight > 0.0
                ? Decatt(options, trunks_.front().blocks->depth(), options_.num_heads)
                : Decatt();
}

Output EncoderModel::forward(const data::Batch& batch, const nn::Draws& draws,
                             const std::vector<std::string>& taps) {
  return run_all(know(batch, draws, Asks::whole), taps);
}

nn::Context EncoderModel::context(int t, const Flow& flow, const data::Batch& batch,
                                  const nn::Draws& draws) {
  return trunk_context(t, flow, know(batch, draws, Asks::context));
}

void EncoderModel::run_end(int t, Flow& flow, const data::Batch& batch, const nn::Draws& draws,
                           Output& out, const std::vector<std::string>& wanted) {
  Taps tap = make_taps(wanted, out.taps);
  const bool is_last = t == static_cast<int>(trunks_.size());
  const Asks who = t == 0 ? Asks::begin : is_last ? Asks::conclude : Asks::between;
  run_end(t, flow, know(batch, draws, who), tap, out);
}

int EncoderModel::end_of(const std::string& unit) const {
  // With one trunk, what leads from encoder to decoder is part of the last end.
  return unit == "embed" ? 0 : unit == "decoder_embed" ? 1 : static_cast<int>(trunks_.size());
}

at::Tensor EncoderModel::features(const data::Batch& given, const nn::Draws& draws) {
  const data::Batch batch = with_leaves(given, draws);
  std::map<std::string, at::Tensor> none;
  Taps tap({}, {}, {}, none);
  const Tokens tokens = encoder_->embed(batch, draws);
  const int64_t prefix = encoder_->prefix_tokens();
  const at::Tensor patches_BLD = encoder_->run(tokens, tap).slice(1, prefix).to(at::kFloat);
  if (!tokens.context.key_mask_BT.defined()) return patches_BLD.mean(1);
  const at::Tensor real_BL1 = tokens.context.key_mask_BT.slice(1, prefix).unsqueeze(-1);
  return (patches_BLD * real_BL1).sum(1) / real_BL1.sum(1).clamp_min(1);
}

std::vector<UnitSpec> EncoderModel::units() {
  const std::vector<nn::NamedTensor> all = named_parameters();
  std::vector<UnitSpec> units = encoder_->units(all);
  const UnitSpec rest{"head", remaining(all, units)};
  if (!rest.parameters.empty()) units.push_back(rest);
  return units;
}

double EncoderModel::train_flops_per_sample() const {
  return trunk_flops(encoder_->blocks(), tokens_per_sample(), options_.embed_dim);
}

/// Draws read their step where they are made. Weights of classes are copied from the host's memory in every pass, and boxes
/// are matched there.
bool EncoderModel::repeats() const {
  return options_.class_weights.empty() && task() != Task::detection;
}

int64_t EncoderModel::tokens_per_sample() const {
  return encoder_->prefix_tokens() + encoder_->num_patches();
}

void EncoderModel::set_fixed_tensor(const std::string& name, const at::Tensor& values) {
  if (!encoder_->set_fixed_tensor(name, values)) Model::set_fixed_tensor(name, values);
}

}  // namespace vitrail::models
