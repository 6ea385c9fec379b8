// Rules of the model section.

#include <cmath>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "vitrail/config/rules.h"

namespace vitrail::config {

namespace {

// Far above any model, far below what would overflow or exhaust a machine by a slip of the hand.
constexpr int64_t kMaxWidth = 65536;
constexpr int64_t kMaxDepth = 10000;
constexpr int64_t kMaxHeads = 4096;
constexpr int64_t kMaxSide = 65536;
constexpr int64_t kMaxPatch = 4096;
constexpr int64_t kMaxChannels = 4096;
constexpr int64_t kMaxClasses = 10'000'000;
constexpr int64_t kMaxRegisters = 65536;
constexpr int64_t kMaxHidden = int64_t{1} << 22;
constexpr int64_t kMaxPatches = int64_t{1} << 24;
constexpr int64_t kMaxValues = int64_t{1} << 34;  // of one image: 64 GiB in fp32

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

/// Width, heads and position table of the trunk or, with prefix "decoder_", of the decoder.
void check_width(const Model& model, const std::string& prefix, int64_t width, int64_t heads,
                 RuleBook& rules) {
  const std::string width_key = fmt::format("model.{}embed_dim", prefix);
  const std::string heads_key = fmt::format("model.{}num_heads", prefix);
  const bool good_width = rules.within(width_key, width, 1, kMaxWidth);
  const bool good_heads = rules.within(heads_key, heads, 1, kMaxHeads);
  if (good_width && good_heads && width % heads != 0)
    rules.add({width_key, heads_key}, fmt::format("{} must be a multiple of {} but got {} and {}",
                                                  width_key, heads_key, width, heads));
  const auto axes = static_cast<int64_t>(model.image_size.size());
  const bool sincos = model.pos_embed == "sincos" && (axes == 2 || axes == 3);
  if (sincos && good_width && width % (2 * axes) != 0)
    rules.add({width_key, "model.pos_embed"},
              fmt::format("{} must be a multiple of {} for sincos positions in {}-D but got {}",
                          width_key, 2 * axes, axes, width),
              {"model.image_size"});
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

void check_rates(const Model& model, RuleBook& rules) {
  rules.rate("model.drop_path_rate", model.drop_path_rate);
  rules.rate("model.attn_drop_rate", model.attn_drop_rate);
  rules.rate("model.proj_drop_rate", model.proj_drop_rate);
  rules.rate("model.pos_drop_rate", model.pos_drop_rate);
  rules.rate("model.drop_rate", model.drop_rate);
  rules.rate("model.label_smoothing", model.label_smoothing);
}

void check_mae(const Model& model, bool countable, RuleBook& rules) {
  if (model.mask_ratio <= 0 || model.mask_ratio >= 1) {
    rules.add(
        {"model.mask_ratio"},
        fmt::format("model.mask_ratio must be above 0 and below 1 but got {}", model.mask_ratio));
  } else if (countable) {
    const int64_t patches = model.num_patches();
    const auto kept =
        static_cast<int64_t>(std::floor(static_cast<double>(patches) * (1 - model.mask_ratio)));
    if (kept < 1 || kept >= patches)
      rules.add(
          {"model.mask_ratio"},
          fmt::format(
              "model.mask_ratio must keep and hide at least one of {} patches but {} keeps {}",
              patches, model.mask_ratio, kept),
          {"model.image_size", "model.patch_size"});
  }
  if (model.decoder == "linear") return;
  check_width(model, "decoder_", model.decoder_embed_dim, model.decoder_num_heads, rules);
  check_mlp("decoder_", model.decoder_embed_dim, model.decoder_mlp_ratio, rules);
  rules.within("model.decoder_depth", model.decoder_depth, 1, kMaxDepth);
}

}  // namespace

void check_model(const Model& model, RuleBook& rules) {
  const bool countable = check_image(model, rules) && check_counts(model, rules);
  rules.within("model.num_classes", model.num_classes, 0, kMaxClasses);
  rules.within("model.depth", model.depth, 1, kMaxDepth);
  rules.within("model.register_tokens", model.register_tokens, 0, kMaxRegisters);
  check_width(model, "", model.embed_dim, model.num_heads, rules);
  if (model.mlp_hidden_dim)
    rules.within("model.mlp_hidden_dim", *model.mlp_hidden_dim, 1, kMaxHidden);
  else
    check_mlp("", model.embed_dim, model.mlp_ratio, rules);
  rules.above("model.norm_eps", model.norm_eps, 0);
  check_rates(model, rules);
  if (model.pool == "token" && !model.class_token)
    rules.add({"model.pool", "model.class_token"},
              "model.pool token needs model.class_token true but it is false; use pool: avg");
  if (model.kind == "mae") check_mae(model, countable, rules);
}

}  // namespace vitrail::config
