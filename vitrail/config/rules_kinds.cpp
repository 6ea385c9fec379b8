// Rules of the model section that depend on model.kind.

#include <algorithm>
#include <cmath>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "vitrail/config/limits.h"
#include "vitrail/config/rules.h"

namespace vitrail::config {

namespace {

void check_pool(const Model& model, RuleBook& rules) {
  if (model.pool == "token" && !model.class_token)
    rules.add({"model.pool", "model.class_token"},
              "model.pool token needs model.class_token true but it is false; use pool: avg");
  if (model.pool == "attention" && model.kind != "vit")
    rules.add(
        {"model.pool", "model.kind"},
        fmt::format("model.pool attention needs model.kind vit but it is {}; leave model.pool "
                    "out",
                    model.kind.value));
}

/// Only the classifier may leave patches out, and only it and mae have a use for a class token.
void check_prefix(const Model& model, RuleBook& rules) {
  if (model.kind == "vit") return;
  const std::string& kind = model.kind.value;
  if (model.register_tokens > 0)
    rules.add({"model.register_tokens", "model.kind"},
              fmt::format("model.register_tokens must be 0 for {} but got {}", kind,
                          model.register_tokens));
  if (model.patch_drop_rate > 0)
    rules.add({"model.patch_drop_rate", "model.kind"},
              fmt::format("model.patch_drop_rate must be 0 for {}, whose output needs every patch, "
                          "but got {}",
                          kind, model.patch_drop_rate));
  if (model.class_token && model.kind != "mae")
    rules.add({"model.class_token", "model.kind"},
              fmt::format("model.class_token must be false for {}, which has no use for it, but is "
                          "true",
                          kind));
}

void check_decoder_form(const Model& model, RuleBook& rules) {
  const auto refuse = [&](const char* allowed) {
    rules.add({"model.decoder", "model.kind"},
              fmt::format("model.decoder must be {} for {} but got {}", allowed, model.kind.value,
                          model.decoder.value));
  };
  if (model.kind == "unetr" && model.decoder == "transformer") refuse("conv or linear");
  if ((model.kind == "mae" || model.kind == "diffusion") && model.decoder == "conv")
    refuse("transformer or linear");
}

void check_loss(const Model& model, RuleBook& rules) {
  std::vector<std::string> allowed;
  if (model.kind == "vit") allowed = {"cross_entropy", "focal", "mse"};
  if (model.kind == "mae") allowed = {"masked_mse", "mse"};
  if (model.kind == "diffusion") allowed = {"mse"};
  if (detects(model)) allowed = {"boxes"};
  if (segments(model))
    allowed = {"dice_ce", "dice", "generalized_dice", "cross_entropy", "focal", "dice_focal", "mse"};
  if (std::find(allowed.begin(), allowed.end(), model.loss.value) == allowed.end())
    rules.add({"model.loss", "model.kind"},
              fmt::format("model.loss must be {}{} for {} but got {}",
                          allowed.size() > 1 ? "one of " : "", fmt::join(allowed, ", "),
                          model.kind.value, model.loss.value));
}

void check_class_weights(const Model& model, RuleBook& rules) {
  const std::vector<double>& weights = model.class_weights;
  rules.at_least("model.focal_gamma", model.focal_gamma, 0);
  if (weights.empty()) return;
  bool good = true;
  for (size_t c = 0; c < weights.size(); ++c)
    good = rules.at_least(fmt::format("model.class_weights[{}]", c), weights[c], 0) && good;
  if (static_cast<int64_t>(weights.size()) != model.num_classes)
    rules.add(
        {"model.class_weights", "model.num_classes"},
        fmt::format("model.class_weights must hold model.num_classes = {} numbers but holds {}",
                    model.num_classes, weights.size()));
  else if (good && *std::max_element(weights.begin(), weights.end()) == 0)
    rules.add({"model.class_weights"},
              "model.class_weights must hold a number above 0 but all are 0");
}

void check_mask(const Model& model, bool countable, RuleBook& rules) {
  if (model.mask_ratio <= 0 || model.mask_ratio >= 1) {
    rules.add(
        {"model.mask_ratio"},
        fmt::format("model.mask_ratio must be above 0 and below 1 but got {}", model.mask_ratio));
    return;
  }
  if (!countable) return;
  const int64_t patches =
      model.num_leaves() > 0 ? model.num_leaves() : model.num_patches();
  const auto kept =
      static_cast<int64_t>(std::floor(static_cast<double>(patches) * (1 - model.mask_ratio)));
  if (kept < 1 || kept >= patches)
    rules.add({"model.mask_ratio"},
              fmt::format("model.mask_ratio must keep and hide at least one of {} patches but {} "
                          "keeps {}",
                          patches, model.mask_ratio, kept),
              {"model.image_size", "model.patch_size", "model.adaptive.fixed_length"});
}

void check_segmentation(const Model& model, RuleBook& rules) {
  const int64_t least = model.loss == "mse" ? 1 : 2;
  if (model.num_classes >= 0 && model.num_classes < least)
    rules.add(
        {"model.num_classes", "model.kind"},
        fmt::format("model.num_classes must be at least {} for {}{}, but got {}", least,
                    model.kind.value, least == 2 ? ", background included" : " with the loss mse",
                    model.num_classes));
}

void check_unetr(const Model& model, RuleBook& rules) {
  constexpr int64_t kSkippedBlocks = 4;  // three inner outputs and the last one
  rules.within("model.feature_size", model.feature_size, 1, kMaxFeatures);
  if (!model.skips) return;
  if (model.decoder == "linear")
    rules.add({"model.decoder", "model.skips"},
              "model.decoder linear needs model.skips false but it is true; set model.skips: false "
              "or model.decoder: conv",
              {"model.kind"});
  if (model.depth >= 1 && model.depth < kSkippedBlocks)
    rules.add({"model.depth", "model.skips"},
              fmt::format("model.depth must be at least {} for unetr with model.skips but got {}; "
                          "set model.skips: false or more blocks",
                          kSkippedBlocks, model.depth),
              {"model.kind"});
}

void check_diffusion(const Model& model, RuleBook& rules) {
  rules.within("model.num_timesteps", model.num_timesteps, 2, kMaxTimesteps);
  if (model.embed_dim >= 1 && model.embed_dim % 2 != 0)
    rules.add({"model.embed_dim", "model.kind"},
              fmt::format("model.embed_dim must be even for diffusion, whose times are sines and "
                          "cosines, but got {}",
                          model.embed_dim));
}

}  // namespace

bool segments(const Model& model) {
  return model.kind == "unetr" || model.kind == "sap" ||
         (model.kind == "rat" && model.rat.head == "segmentation");
}

bool regresses(const Model& model) {
  return model.loss == "mse" && !(model.kind == "rat") && (model.kind == "vit" || segments(model));
}

bool has_transformer_decoder(const Model& model) {
  return (model.kind == "mae" || model.kind == "diffusion") && model.decoder == "transformer";
}

void check_kind(const Model& model, bool countable, RuleBook& rules) {
  check_pool(model, rules);
  check_prefix(model, rules);
  check_decoder_form(model, rules);
  if (model.kind == "rat")
    check_rat(model, rules);
  else
    check_loss(model, rules);
  check_class_weights(model, rules);
  if (model.kind == "mae") check_mask(model, countable, rules);
  if (model.kind == "unetr") check_unetr(model, rules);
  if (model.kind == "sap")
    rules.within("model.decoder_embed_dim", model.decoder_embed_dim, 1, kMaxWidth);
  if (segments(model) && !(model.kind == "rat")) check_segmentation(model, rules);
  if (model.kind == "diffusion") check_diffusion(model, rules);
  if (detects(model)) check_detection(model, rules);
  if (has_transformer_decoder(model)) check_decoder(model, rules);
}

}  // namespace vitrail::config
