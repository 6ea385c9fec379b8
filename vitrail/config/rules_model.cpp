// Rules of the model section that hold for every kind: image, widths, positions, rates.

#include <cmath>
#include <numeric>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "vitrail/config/limits.h"
#include "vitrail/config/rules.h"

namespace vitrail::config {

namespace {

/// True when the sides are usable: the right number of them, in range, divisible.
bool check_image(const Model& model, RuleBook& rules) {
  const std::vector<int64_t>& sides = model.image_size;
  if (sides.size() != 2 && sides.size() != 3) {
    rules.add({"model.image_size"},
              fmt::format("model.image_size must be [H, W] or [D, H, W] but got [{}]",
                          fmt::join(sides, ", ")));
    return false;
  }
  bool good = rules.within("model.patch_size", model.patch_size, 1, kMaxPatch);
  good = rules.within("model.in_channels", model.in_channels, 1, kMaxChannels) && good;
  for (size_t axis = 0; axis < sides.size(); ++axis) {
    const std::string key = fmt::format("model.image_size[{}]", axis);
    if (!rules.within(key, sides[axis], 1, kMaxSide)) {
      good = false;
    } else if (good && sides[axis] % model.patch_size != 0) {
      rules.add({key, "model.patch_size"},
                fmt::format("{} must be a multiple of model.patch_size but got {} and {}", key,
                            sides[axis], model.patch_size));
      good = false;
    }
  }
  return good;
}

/// Products of checked factors: at most 2^48 patches and 2^60 values, so they cannot overflow.
bool check_counts(const Model& model, RuleBook& rules) {
  const std::string size = fmt::format("[{}]", fmt::join(model.image_size, ", "));
  if (model.num_patches() > kMaxPatches) {
    rules.add(
        {"model.image_size", "model.patch_size"},
        fmt::format("model.image_size {} in patches of {} must give at most {} tokens but gives {}",
                    size, model.patch_size, kMaxPatches, model.num_patches()));
    return false;
  }
  int64_t values = model.in_channels;
  for (const int64_t side : model.image_size) values *= side;
  if (values > kMaxValues)
    rules.add(
        {"model.image_size", "model.in_channels"},
        fmt::format("model.image_size {} with {} channels must give at most {} values but gives {}",
                    size, model.in_channels, kMaxValues, values));
  return values <= kMaxValues;
}

/// One transformer of a model: its trunk or, with prefix "decoder_", its decoder.
struct Trunk {
  std::string width_key, heads_key;
  int64_t width, heads;
  int64_t axes;  // of the image; 0 when that is broken
  bool good_width = false, good_heads = false;
};

Trunk trunk_of(const Model& model, const std::string& prefix, int64_t width, int64_t heads) {
  const auto axes = static_cast<int64_t>(model.image_size.size());
  return {fmt::format("model.{}embed_dim", prefix), fmt::format("model.{}num_heads", prefix), width,
          heads, axes == 2 || axes == 3 ? axes : 0};
}

void check_heads(const Trunk& trunk, RuleBook& rules) {
  if (trunk.width % trunk.heads == 0) return;
  int64_t near = trunk.heads;
  while (trunk.width % near != 0) --near;
  rules.add({trunk.width_key, trunk.heads_key},
            fmt::format("{} must be a multiple of {} but got {} and {}; {} heads divide it",
                        trunk.width_key, trunk.heads_key, trunk.width, trunk.heads, near));
}

/// "60 or 72 would do": the nearest widths that fit positions and heads.
std::string widths_that_fit(const Trunk& trunk, int64_t step) {
  step = std::lcm(step, trunk.good_heads ? trunk.heads : 1);
  const int64_t below = trunk.width / step * step;
  return below > 0 ? fmt::format("{} or {} would do", below, below + step)
                   : fmt::format("{} would do", step);
}

/// Learned tables of these kinds start at sin-cos values.
bool starts_at_sincos(const Model& model) {
  return model.pos_embed == "learned" && model.num_leaves() == 0 &&
         (model.kind == "mae" || model.kind == "diffusion");
}

/// Sin-cos positions split the width over axes, sines and cosines.
void check_positions(const Model& model, const Trunk& trunk, RuleBook& rules) {
  const int64_t step = 2 * trunk.axes;
  if (step == 0 || trunk.width % step == 0) return;
  if (model.pos_embed == "sincos")
    rules.add(
        {trunk.width_key, "model.pos_embed"},
        fmt::format("{} must be a multiple of {} for sincos positions in {}-D but got {}; {}",
                    trunk.width_key, step, trunk.axes, trunk.width, widths_that_fit(trunk, step)),
        {"model.image_size"});
  else if (starts_at_sincos(model))
    rules.add({trunk.width_key, "model.pos_embed"},
              fmt::format("{} must be a multiple of {} for learned positions of {} in {}-D, which "
                          "start as sincos, but got {}; {}",
                          trunk.width_key, step, model.kind.value, trunk.axes, trunk.width,
                          widths_that_fit(trunk, step)),
              {"model.image_size", "model.kind"});
}

/// Rotary positions turn pairs of a head's channels, per axis for axial.
void check_rope(const Model& model, const Trunk& trunk, RuleBook& rules) {
  if (model.rope == "none" || trunk.axes == 0 || trunk.width % trunk.heads != 0) return;
  const int64_t step = model.rope == "axial" ? 2 * trunk.axes : 2;
  const int64_t head = trunk.width / trunk.heads;
  if (head % step != 0)
    rules.add({trunk.width_key, trunk.heads_key, "model.rope"},
              fmt::format("{} / {} must be a multiple of {} for {} rope in {}-D but got {} / {} = "
                          "{}; change one of them or model.rope",
                          trunk.width_key, trunk.heads_key, step, model.rope.value, trunk.axes,
                          trunk.width, trunk.heads, head),
              {"model.image_size"});
}

void check_width(const Model& model, Trunk trunk, RuleBook& rules) {
  trunk.good_width = rules.within(trunk.width_key, trunk.width, 1, kMaxWidth);
  trunk.good_heads = rules.within(trunk.heads_key, trunk.heads, 1, kMaxHeads);
  if (trunk.good_width && trunk.good_heads) {
    check_heads(trunk, rules);
    check_rope(model, trunk, rules);
  }
  if (trunk.good_width) check_positions(model, trunk, rules);
}

/// The hidden width must come out whole-number-sized and sane: width * ratio, at least 1.
void check_mlp(const std::string& prefix, int64_t width, double ratio, RuleBook& rules) {
  const std::string key = fmt::format("model.{}mlp_ratio", prefix);
  if (!rules.above(key, ratio, 0) || width < 1 || width > kMaxWidth) return;
  const double hidden = std::floor(static_cast<double>(width) * ratio);
  if (hidden < 1 || hidden > static_cast<double>(kMaxHidden))
    rules.add({key, fmt::format("model.{}embed_dim", prefix)},
              fmt::format("{} must give an MLP width from 1 to {} but got {} * {}", key, kMaxHidden,
                          width, ratio));
}

void check_kv_heads(const Model& model, const std::string& heads_key, int64_t heads,
                    RuleBook& rules) {
  if (model.num_kv_heads && *model.num_kv_heads >= 1 && heads >= 1 &&
      heads % *model.num_kv_heads != 0)
    rules.add({heads_key, "model.num_kv_heads"},
              fmt::format("{} must be a multiple of model.num_kv_heads but got {} and {}",
                          heads_key, heads, *model.num_kv_heads));
}

void check_rates(const Model& model, RuleBook& rules) {
  rules.rate("model.drop_path_rate", model.drop_path_rate);
  rules.rate("model.attn_drop_rate", model.attn_drop_rate);
  rules.rate("model.proj_drop_rate", model.proj_drop_rate);
  rules.rate("model.pos_drop_rate", model.pos_drop_rate);
  rules.rate("model.patch_drop_rate", model.patch_drop_rate);
  rules.rate("model.drop_rate", model.drop_rate);
  rules.rate("model.label_smoothing", model.label_smoothing);
  rules.rate("model.time_drop_rate", model.time_drop_rate);
  rules.rate("model.class_drop_rate", model.class_drop_rate);
}

void check_trunk(const Model& model, RuleBook& rules) {
  rules.within("model.depth", model.depth, 1, kMaxBlocks);
  check_width(model, trunk_of(model, "", model.embed_dim, model.num_heads), rules);
  if (model.num_kv_heads && rules.within("model.num_kv_heads", *model.num_kv_heads, 1, kMaxHeads))
    check_kv_heads(model, "model.num_heads", model.num_heads, rules);
  if (model.mlp_hidden_dim)
    rules.within("model.mlp_hidden_dim", *model.mlp_hidden_dim, 1, kMaxHidden);
  else
    check_mlp("", model.embed_dim, model.mlp_ratio, rules);
  rules.above("model.norm_eps", model.norm_eps, 0);
  rules.above("model.rope_theta", model.rope_theta, 0);
}

}  // namespace

void check_decoder(const Model& model, RuleBook& rules) {
  check_width(model, trunk_of(model, "decoder_", model.decoder_embed_dim, model.decoder_num_heads),
              rules);
  // mae's decoder has a key and value head for every head, whatever its encoder has.
  if (model.kind == "diffusion")
    check_kv_heads(model, "model.decoder_num_heads", model.decoder_num_heads, rules);
  check_mlp("decoder_", model.decoder_embed_dim, model.decoder_mlp_ratio, rules);
  rules.within("model.decoder_depth", model.decoder_depth, 1, kMaxBlocks);
  if (model.decoder_rope_theta)
    rules.above("model.decoder_rope_theta", *model.decoder_rope_theta, 0);
}

void check_model(const Model& model, RuleBook& rules) {
  const bool countable = check_image(model, rules) && check_counts(model, rules);
  rules.within("model.num_classes", model.num_classes, 0, kMaxClasses);
  rules.within("model.register_tokens", model.register_tokens, 0, kMaxRegisters);
  check_trunk(model, rules);
  check_rates(model, rules);
  check_tokens(model, rules);
  check_kind(model, countable, rules);
}

}  // namespace vitrail::config
