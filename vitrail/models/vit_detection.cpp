#include "vitrail/models/vit_detection.h"

#include "vitrail/core/error.h"
#include "vitrail/models/detection_losses.h"
#include "vitrail/ops/patch.h"

namespace vitrail::models {
namespace {

/// Before the encoder allocates anything.
const config::Model& checked(const config::Model& options) {
  VT_REQUIRE(ConfigError, options.image_size.size() == 2,
             "[config] vit_detection needs model.image_size [H, W] but it has {} sides",
             options.image_size.size());
  VT_REQUIRE(
      ConfigError, prefix_tokens(options) == 0 && options.num_leaves() == 0,
      "[config] vit_detection reads a grid of patches without class and register tokens; set "
      "model.class_token to false, model.register_tokens to 0 and leave adaptive patches out");
  VT_REQUIRE(ConfigError, options.num_classes >= 1,
             "[config] model.num_classes must be at least 1 for vit_detection but got {}",
             options.num_classes);
  return options;
}

bool keeps_dense(const config::Model& options) {
  return options.detection.queries == "grid" && options.detection.decoder_depth > 0;
}

}  // namespace

VitDetection::VitDetection(const config::Model& options)
    : EncoderModel(checked(options)),
      places_(grid_places(ops::patch_grid(options.image_size, options.patch_size))),
      head_(register_module("head", std::make_shared<DetectionHead>(options, options.embed_dim))) {}

void VitDetection::conclude(Flow& flow, const Known& known, Taps& tap, Output& out) {
  const at::Tensor x_BLD = encoder_->normalised(flow.x_BTD, tap);
  if (places_.device() != x_BLD.device()) places_ = places_.to(x_BLD.device());
  const DetectionPredictions predictions = head_->forward(x_BLD, places_);
  if (keeps_dense(options_)) {
    tap.offer("dense_boxes", predictions.earlier[0].boxes);
    tap.offer("dense_logits", predictions.earlier[0].logits);
  }
  finish_detection(out, predictions, known.batch, options_);
}

std::vector<std::string> VitDetection::end_taps() const {
  if (keeps_dense(options_)) return {"embed", "norm", "dense_boxes", "dense_logits"};
  return {"embed", "norm"};
}

double VitDetection::train_flops_per_sample() const {
  return EncoderModel::train_flops_per_sample() + head_->train_flops(tokens_per_sample());
}

InitialRule vit_detection_initial(const config::Model& options) {
  return with_detection_head(timm_initial(options), "head.", options);
}

}  // namespace vitrail::models
