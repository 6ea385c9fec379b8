#include "vitrail/models/vit.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/cross_entropy_loss.h>

#include "vitrail/core/error.h"

namespace vitrail::models {
namespace {

/// Label of a padding row.
constexpr int64_t kNoLabel = -1;

}  // namespace

Vit::Vit(const config::Model& options) : options_(options) {
  VT_REQUIRE(
      ConfigError, options.class_token || !(options.pool == "token"),
      "[config] model.pool=token needs model.class_token=true; set model.pool to avg or none");
  const int64_t D = options.embed_dim;
  const int64_t tokens = tokens_per_sample();
  if (options.class_token) cls_token_ = register_parameter("cls_token", {1, 1, D});
  if (options.register_tokens > 0)
    reg_token_ = register_parameter("reg_token", {1, options.register_tokens, D});
  if (options.pos_embed == "learned") pos_embed_ = register_parameter("pos_embed", {1, tokens, D});
  if (options.pos_embed == "sincos")
    fixed_positions_ = FixedTable(position_table(options, prefix_tokens(), D));
  patch_embed_ = register_module("patch_embed", std::make_shared<PatchEmbed>(options));
  blocks_ = register_module("blocks", make_trunk(options, trunk_sizes(options)));
  const bool after_pool = options.pool == "avg";
  if (options.final_norm) {
    auto norm = std::make_shared<nn::Norm>(D, norm_options(options));
    (after_pool ? fc_norm_ : norm_) = register_module(after_pool ? "fc_norm" : "norm", norm);
  }
  if (options.num_classes > 0)
    head_ = register_module("head", std::make_shared<nn::Linear>(D, options.num_classes));
}

at::Tensor Vit::embed(const at::Tensor& image, const nn::Draws& draws) {
  const at::Tensor x_BLD = patch_embed_->project(patch_embed_->patches(image));
  std::vector<at::Tensor> parts;
  for (const at::Tensor& token : {cls_token_, reg_token_})
    if (token.defined()) parts.push_back(token.expand({x_BLD.size(0), -1, -1}));
  parts.push_back(x_BLD);
  at::Tensor x_BTD = parts.size() > 1 ? at::cat(parts, 1) : x_BLD;
  if (pos_embed_.defined()) x_BTD = x_BTD + pos_embed_;
  if (fixed_positions_.defined()) x_BTD = x_BTD + fixed_positions_.like(x_BTD);
  return end_dropout(x_BTD, options_.pos_drop_rate, draws, EndDraw::pos_drop);
}

at::Tensor Vit::pool(const at::Tensor& x_BTD) const {
  if (options_.pool == "token") return x_BTD.select(1, 0);
  if (options_.pool == "avg") return x_BTD.slice(1, prefix_tokens()).mean(1);
  return x_BTD;
}

at::Tensor Vit::loss(const at::Tensor& logits, const at::Tensor& label) const {
  if (!head_ || !label.defined() || logits.dim() != label.dim() + 1) return {};
  return at::cross_entropy_loss(logits, label, {}, at::Reduction::Mean, kNoLabel,
                                options_.label_smoothing);
}

Output Vit::forward(const data::Batch& batch, const nn::Draws& draws,
                    const std::vector<std::string>& taps) {
  Output out;
  Taps tap(taps, {"embed", "norm", "pool"}, {{"blocks", blocks_->depth()}}, out.taps);
  at::Tensor x_BTD = embed(batch.image, draws);
  tap.offer("embed", x_BTD);
  x_BTD = tap.run("blocks", *blocks_, x_BTD, draws);
  if (norm_) x_BTD = norm_->forward(x_BTD);
  tap.offer("norm", x_BTD);
  at::Tensor features = pool(x_BTD);
  if (fc_norm_) features = fc_norm_->forward(features);
  tap.offer("pool", features);
  features = end_dropout(features, options_.drop_rate, draws, EndDraw::head_drop);
  out.output = (head_ ? head_->forward(features) : features).to(at::kFloat);
  out.loss = loss(out.output, batch.label);
  return out;
}

std::vector<UnitSpec> Vit::units() {
  const std::vector<nn::NamedTensor> all = named_parameters();
  std::vector<UnitSpec> units;
  units.push_back({"embed", select(all, {"cls_token", "reg_token", "pos_embed", "patch_embed."})});
  add_trunk_units(units, all, "blocks", blocks_.get());
  units.push_back({"head", select(all, {"norm.", "fc_norm.", "head."})});
  if (units.back().parameters.empty()) units.pop_back();
  return units;
}

double Vit::train_flops_per_sample() const {
  return trunk_flops(*blocks_, tokens_per_sample(), options_.embed_dim);
}

int64_t Vit::tokens_per_sample() const { return prefix_tokens() + options_.num_patches(); }

std::vector<nn::NamedTensor> Vit::fixed_tensors() const {
  if (!fixed_positions_.defined()) return {};
  return {{"pos_embed", fixed_positions_.values()}};
}

void Vit::set_fixed_tensor(const std::string& name, const at::Tensor& values) {
  VT_CHECK(name == "pos_embed" && fixed_positions_.defined(),
           "[model] '{}' is not a fixed tensor of this model", name);
  fixed_positions_.set(values);
}

}  // namespace vitrail::models
