#include "vitrail/models/segmenter.h"

#include <array>
#include <cmath>
#include <utility>

#include <ATen/core/grad_mode.h>
#include <fmt/ranges.h>

#include "vitrail/core/error.h"
#include "vitrail/models/losses.h"
#include "vitrail/models/tokenizer.h"
#include "vitrail/ops/norm.h"

namespace vitrail::models {
namespace {

constexpr std::array kLosses{"cross_entropy",    "dice", "dice_ce", "dice_focal", "focal",
                             "generalized_dice", "mse"};

/// Before the encoder allocates anything.
const config::Model& checked(const config::Model& options) {
  const std::string& kind = options.kind.value;
  VT_REQUIRE(ConfigError, prefix_tokens(options) == 0,
             "[config] {} gives a class to every place and has none for class or register tokens, "
             "but model.class_token is {} and model.register_tokens {}; set them to false and 0",
             kind, options.class_token, options.register_tokens);
  VT_REQUIRE(
      ConfigError, !trees_per_channel(options),
      "[config] model.adaptive.trees=per_channel needs model.kind vit or mae but the kind is "
      "{}, which has one prediction a place",
      kind);
  const bool of_values = options.loss == "mse";
  VT_REQUIRE(ConfigError, options.num_classes >= (of_values ? 1 : 2),
             "[config] model.num_classes must be at least {} for {} but got {}{}",
             of_values ? 1 : 2, kind, options.num_classes,
             of_values ? "" : "; the background is a class too");
  bool known = false;
  for (const char* loss : kLosses) known |= options.loss == loss;
  VT_REQUIRE(ConfigError, known, "[config] model.loss must be one of {} for {} but got {}",
             fmt::join(kLosses, ", "), kind, options.loss.value);
  return options;
}

bool is_convolution(const std::string& name, const at::Tensor& parameter) {
  return parameter.dim() >= 4 && name.ends_with(".weight") && !name.starts_with("patch_embed.") &&
         !name.starts_with("token_embeds.");
}

/// Learned positions start at the sin-cos table where there is one: a grid, and a width that its sides can share.
/// MONAI's start random, so a width without a table is no error.
bool starts_at_table(const config::Model& options) {
  const auto axes = static_cast<int64_t>(options.image_size.size());
  return options.num_leaves() == 0 && options.embed_dim % (2 * axes) == 0;
}

}  // namespace

Segmenter::Segmenter(const config::Model& options) : EncoderModel(checked(options)) {
  if (!starts_at_table(options)) return;
  for (nn::NamedTensor& parameter : encoder_->named_parameters())
    if (parameter.name == "pos_embed")
      start_at(parameter.tensor, position_table(options, 0, options.embed_dim));
}

std::vector<UnitSpec> Segmenter::units() {
  std::vector<UnitSpec> units = EncoderModel::units();
  units.back().name = "decoder";
  return units;
}

void Segmenter::finish(Output& out, const at::Tensor& logits, const at::Tensor& label) const {
  out.output = logits.to(ops::statistics_type(logits.scalar_type()));
  if (label.defined()) {
    const at::Tensor own = tiles_ ? tiles_->enter(label) : label;
    SumOverParts sum;
    if (tiles_) sum = [tiles = tiles_](const at::Tensor& sums) { return tiles->sum(sums); };
    out.loss = options_.loss == "mse" ? values_loss(out.output, own, {}, sum)
                                      : segmentation_loss(out.output, own, options_, {}, sum);
  }
  // Nobody trains on the output, and whole it would be as large as what tiles save.
  if (tiles_ && !at::GradMode::is_enabled()) out.output = tiles_->leave(out.output);
}

at::Tensor as_map(const at::Tensor& x_BLD, at::IntArrayRef grid) {
  std::vector<int64_t> shape{x_BLD.size(0), x_BLD.size(2)};
  shape.insert(shape.end(), grid.begin(), grid.end());
  return x_BLD.transpose(1, 2).reshape(shape);
}

InitialRule segmenter_initial(const config::Model& options) {
  const InitialRule timm = timm_initial(options);
  const bool table = starts_at_table(options);
  // Inputs of the last convolution, the only one with a bias.
  const int64_t last = options.kind == "sap" ? options.decoder_embed_dim : options.feature_size;
  const bool linear = options.kind == "unetr" && options.decoder == "linear";
  return [=](const std::string& name, const at::Tensor& parameter) -> Initial {
    if (table && name == "pos_embed") return {Fill::keep};
    int64_t inputs = 0;
    if (is_convolution(name, parameter)) inputs = parameter.numel() / parameter.size(0);
    if (!linear && (name == "out.conv.conv.bias" || name == "head.bias")) inputs = last;
    if (inputs == 0) return timm(name, parameter);
    return {Fill::uniform, 1.0 / std::sqrt(static_cast<double>(inputs))};
  };
}

}  // namespace vitrail::models
