#include "vitrail/models/sap.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/matmul.h>

#include "vitrail/core/error.h"
#include "vitrail/models/losses_leaves.h"
#include "vitrail/ops/norm.h"
#include "vitrail/ops/patch.h"

namespace vitrail::models {
namespace {

/// Before anything is allocated.
const config::Model& checked(const config::Model& options) {
  VT_REQUIRE(ConfigError, options.decoder_embed_dim > 0,
             "[config] model.decoder_embed_dim must be positive but got {}",
             options.decoder_embed_dim);
  return options;
}

}  // namespace

Sap::Sap(const config::Model& options) : Segmenter(checked(options)) {
  std::vector<int64_t> neck{options.embed_dim, options.decoder_embed_dim};
  std::vector<int64_t> head{options.num_classes, options.decoder_embed_dim};
  neck.insert(neck.end(), axes(), options.patch_size);
  head.insert(head.end(), axes(), 1);
  neck_ = register_parameter("neck.weight", neck);
  head_ = register_parameter("head.weight", head);
  head_bias_ = register_parameter("head.bias", {options.num_classes});
}

at::Tensor Sap::decode(const at::Tensor& x_BLD) const {
  // [classes, W] times [D, W, P^k] -> [D, classes * P^k]
  return at::matmul(x_BLD, at::matmul(head_.flatten(1), neck_.flatten(2)).flatten(1));
}

at::Tensor Sap::add_bias(const at::Tensor& logits) const {
  const at::ScalarType wide = ops::statistics_type(logits.scalar_type());
  std::vector<int64_t> shape(static_cast<size_t>(logits.dim()), 1);
  shape[1] = options_.num_classes;
  return logits.to(wide) + head_bias_.to(wide).view(shape);
}

void Sap::finish_leaves(Output& out, const at::Tensor& logits_BCLP, const data::Batch& batch,
                        bool training) const {
  const bool on_image = options_.adaptive.loss_space == "image";
  if (batch.label.defined() && !on_image)
    out.loss = leaf_label_loss(logits_BCLP, batch.label, batch.leaf_boxes, options_);
  if (training && !on_image) {
    out.output = logits_BCLP;
    return;
  }
  const at::Tensor pasted =
      paste_leaves(logits_BCLP.to(at::kFloat).contiguous(), batch.leaf_boxes, options_);
  finish(out, pasted, on_image ? batch.label : at::Tensor());
}

void Sap::conclude(Flow& flow, const Known& known, Taps& tap, Output& out) {
  const at::Tensor patches_BLS = decode(encoder_->normalised(flow.x_BTD, tap));
  if (adaptive()) {
    const at::Tensor logits_BLCP = patches_BLS.unflatten(2, {options_.num_classes, -1});
    finish_leaves(out, add_bias(logits_BLCP.transpose(1, 2)), known.batch, known.draws.training);
    return;
  }
  const at::Tensor logits =
      ops::unpatchify(patches_BLS, ops::patch_grid(options_.image_size, options_.patch_size),
                      options_.patch_size, ops::PatchOrder::channel_first);
  finish(out, add_bias(logits), known.batch.label);
}

double Sap::train_flops_per_sample() const {
  return with_decoder(static_cast<double>(encoder_->num_patches() * options_.embed_dim *
                                          options_.num_classes * patch_pixels(options_)));
}

InitialRule sap_initial(const config::Model& options) { return segmenter_initial(options); }

}  // namespace vitrail::models
