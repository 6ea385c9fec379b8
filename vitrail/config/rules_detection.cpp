// Rules of model.detection, and of the rest of a model that learns boxes.

#include <cmath>

#include <fmt/format.h>

#include "vitrail/config/limits.h"
#include "vitrail/config/rules.h"

namespace vitrail::config {

namespace {

constexpr int64_t kMaxBoxes = 10'000;

/// rat says itself what its tokens must be.
bool has_own_rules(const Model& model) { return model.kind == "rat"; }

int64_t width_of(const Model& model) {
  return model.detection.decoder_embed_dim.value_or(model.embed_dim);
}

void check_decoder_sizes(const Model& model, RuleBook& rules) {
  const Detection& detection = model.detection;
  const char* width_key =
      detection.decoder_embed_dim ? "model.detection.decoder_embed_dim" : "model.embed_dim";
  const int64_t width = width_of(model);
  const bool good_width =
      !detection.decoder_embed_dim || rules.within(width_key, width, 1, kMaxWidth);
  const bool good_heads =
      rules.within("model.detection.decoder_num_heads", detection.decoder_num_heads, 1, kMaxHeads);
  if (good_width && width >= 1 && width % 4 != 0)
    rules.add({width_key},
              fmt::format("{} must be a multiple of 4 for the sines and cosines of "
                          "boxes but got {}",
                          width_key, width),
              {"model.kind"});
  if (good_width && good_heads && width % detection.decoder_num_heads != 0)
    rules.add({width_key, "model.detection.decoder_num_heads"},
              fmt::format("{} must be a multiple of model.detection.decoder_num_heads but got {} "
                          "and {}",
                          width_key, width, detection.decoder_num_heads));
  const bool is_learned = detection.queries == "learned";
  if (is_learned && detection.decoder_depth == 0)
    rules.add({"model.detection.decoder_depth", "model.detection.queries"},
              "model.detection.decoder_depth must be at least 1 for learned queries, which know "
              "nothing of the image yet, but got 0; use queries: grid");
  else
    rules.within("model.detection.decoder_depth", detection.decoder_depth, 0, kMaxBlocks);
}

void check_queries(const Model& model, RuleBook& rules) {
  const Detection& detection = model.detection;
  if (!rules.within("model.detection.num_queries", detection.num_queries, 1, kMaxBoxes)) return;
  if (model.kind != "vit_detection" || detection.queries != "grid" ||
      detection.decoder_depth == 0 || model.patch_size < 1 || model.image_size.size() != 2)
    return;
  if (const int64_t tokens = model.num_patches(); detection.num_queries > tokens)
    rules.add({"model.detection.num_queries", "model.image_size"},
              fmt::format("model.detection.num_queries must be at most the {} tokens that queries "
                          "of the grid come from but got {}",
                          tokens, detection.num_queries),
              {"model.patch_size", "model.detection.queries"});
}

void check_terms(const Detection& detection, RuleBook& rules) {
  const auto least = [&](const char* name, double value) {
    return rules.at_least(fmt::format("model.detection.{}", name), value, 0);
  };
  bool good = least("class_weight", detection.class_weight);
  good = least("l1_weight", detection.l1_weight) && good;
  good = least("giou_weight", detection.giou_weight) && good;
  least("no_object_weight", detection.no_object_weight);
  least("min_score", detection.min_score);
  if (detection.focal_alpha < 0 || detection.focal_alpha > 1)
    rules.add({"model.detection.focal_alpha"},
              fmt::format("model.detection.focal_alpha must be from 0 to 1 but got {}",
                          detection.focal_alpha));
  if (good && detection.l1_weight + detection.giou_weight == 0)
    rules.add({"model.detection.l1_weight", "model.detection.giou_weight"},
              "model.detection.l1_weight or giou_weight must be above 0 but both are 0: nothing "
              "would teach the boxes");
}

void check_auxiliary(const Detection& detection, RuleBook& rules) {
  const char* key = "model.detection.auxiliary_matches";
  if (!rules.within(key, detection.auxiliary_matches, 1, 1000)) return;
  if (detection.auxiliary_matches == 1) return;
  if (!detection.auxiliary_losses)
    rules.add({key, "model.detection.auxiliary_losses"},
              fmt::format("{} {} needs model.detection.auxiliary_losses true but it is false", key,
                          detection.auxiliary_matches));
  if (detection.matching == "index")
    rules.add({key, "model.detection.matching"},
              fmt::format("{} {} needs model.detection.matching hungarian but it is index", key,
                          detection.auxiliary_matches));
}

/// Keys of other objectives, which would do nothing here.
void check_unused(const Model& model, RuleBook& rules) {
  if (!model.class_weights.empty())
    rules.add({"model.class_weights", "model.kind"},
              "model.class_weights must be empty where boxes are learnt; "
              "model.detection.no_object_weight and focal_alpha weigh classes there");
  if (model.label_smoothing > 0)
    rules.add({"model.label_smoothing", "model.kind"},
              fmt::format("model.label_smoothing must be 0 where boxes are learnt but got {}",
                          model.label_smoothing));
  if (model.drop_rate > 0 && !has_own_rules(model))
    rules.add({"model.drop_rate", "model.kind"},
              fmt::format("model.drop_rate must be 0 where boxes are learnt, whose head drops "
                          "nothing, but got {}",
                          model.drop_rate));
}

void check_image_and_classes(const Model& model, RuleBook& rules) {
  if (model.image_size.size() == 3 && !has_own_rules(model))
    rules.add({"model.image_size", "model.kind"},
              "model.image_size must be [H, W] where boxes are learnt but has 3 sides");
  if (model.num_classes == 0)
    rules.add({"model.num_classes", "model.kind"},
              "model.num_classes must be at least 1 where boxes are learnt, the background not "
              "counted, but got 0");
  if (model.num_leaves() > 0 && !has_own_rules(model))
    rules.add({model.adaptive.fixed_length > 0 ? "model.adaptive.fixed_length"
                                               : "model.mixed_resolution.num_tokens",
               "model.kind"},
              fmt::format("tokens of many sizes need another model.kind than {}, whose boxes are "
                          "found on a grid of patches",
                          model.kind.value));
}

}  // namespace

bool detects(const Model& model) {
  return model.kind == "vit_detection" || (model.kind == "rat" && model.rat.head == "detection");
}

void check_detection(const Model& model, RuleBook& rules) {
  check_image_and_classes(model, rules);
  check_decoder_sizes(model, rules);
  check_queries(model, rules);
  check_terms(model.detection, rules);
  check_auxiliary(model.detection, rules);
  check_unused(model, rules);
}

}  // namespace vitrail::config
