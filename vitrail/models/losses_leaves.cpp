#include "vitrail/models/losses_leaves.h"

#include <limits>
#include <vector>

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/where.h>
#include <fmt/ranges.h>

#include "vitrail/core/error.h"
#include "vitrail/models/losses.h"
#include "vitrail/models/parts.h"
#include "vitrail/models/tokenizer.h"
#include "vitrail/ops/norm.h"
#include "vitrail/patching/batch.h"

namespace vitrail::models {
namespace {

/// Pasted weights of a leaf's pixels are 1 up to rounding.
constexpr double kInside = 0.5;

/// [B, L]: how much each leaf counts.
at::Tensor counts_of(const at::Tensor& boxes, const config::Model& options) {
  return options.adaptive.area_weight ? leaf_areas(boxes) : real_leaves(boxes).to(at::kFloat);
}

/// [B, sides...] of classes, [B, C, sides...] of values.
void check_label(const at::Tensor& label, const at::Tensor& prediction_BCLP,
                 const config::Model& options) {
  std::vector<int64_t> shape{prediction_BCLP.size(0)};
  if (options.loss == "mse") shape.push_back(prediction_BCLP.size(1));
  shape.insert(shape.end(), options.image_size.begin(), options.image_size.end());
  VT_CHECK(label.sizes().equals(shape), "[loss] labels must be [{}] but are [{}]",
           fmt::join(shape, ", "), fmt::join(label.sizes(), ", "));
}

at::Tensor values_on_leaves(const at::Tensor& label, const at::Tensor& boxes,
                            const config::Model& options) {
  const at::Tensor values_BVLP = patching::serialise(label, boxes, options.patch_size,
                                                     patching::leaf_options(options).resample);
  const at::Tensor padding_BL = real_leaves(boxes).logical_not();
  return values_BVLP.masked_fill(padding_BL.unsqueeze(1).unsqueeze(-1),
                                 std::numeric_limits<double>::quiet_NaN());
}

int64_t trees_of(const data::Batch& batch, const config::Model& options) {
  return trees_per_channel(options) ? batch.image.size(1) : 1;
}

/// Bool [B, 1 or C, sides...]: pixels of the leaves that are scored.
at::Tensor scored_pixels(const at::Tensor& scored_BL, const data::Batch& batch,
                         const config::Model& options) {
  const at::NoGradGuard no_grad;
  const at::Tensor tokens_BLP =
      scored_BL.to(at::kFloat).unsqueeze(-1).expand({-1, -1, patch_pixels(options)});
  return paste_values(tokens_BLP, batch.leaf_boxes, trees_of(batch, options), options) > kInside;
}

at::Tensor image_loss(const data::Batch& batch, const at::Tensor& prediction_BLS,
                      const at::Tensor& mask_BL, const config::Model& options) {
  VT_CHECK(batch.image.defined(),
           "[mae] model.adaptive.loss_space image compares predictions with the image; give "
           "'image' beside the leaves");
  const bool hidden_only = options.loss == "masked_mse";
  const at::Tensor scored =
      scored_pixels(hidden_only ? mask_BL : real_leaves(batch.leaf_boxes), batch, options)
          .expand_as(batch.image);
  const at::Tensor pasted = paste_values(prediction_BLS.to(at::kFloat), batch.leaf_boxes,
                                         trees_of(batch, options), options);
  const at::Tensor error = at::where(scored, pasted - batch.image.to(at::kFloat), 0.0);
  return error.square().sum() / scored.sum().clamp_min(1);
}

}  // namespace

at::Tensor paste_leaves(const at::Tensor& leaves_BCLP, const at::Tensor& boxes,
                        const config::Model& options) {
  return patching::paste(leaves_BCLP, boxes, options.image_size,
                         patching::leaf_options(options).resample);
}

at::Tensor paste_values(const at::Tensor& tokens_BLS, const at::Tensor& boxes, int64_t trees,
                        const config::Model& options) {
  // Every tree is a sample of its own.
  const auto apart = [trees](const at::Tensor& x) {
    return x.unflatten(1, {trees, -1}).flatten(0, 1);
  };
  const at::Tensor leaves_BCLP =
      apart(tokens_BLS).unflatten(2, {patch_pixels(options), -1}).permute({0, 3, 1, 2});
  return paste_leaves(leaves_BCLP.contiguous(), apart(boxes).contiguous(), options)
      .unflatten(0, {-1, trees})
      .flatten(1, 2);
}

at::Tensor leaf_label_loss(const at::Tensor& prediction_BCLP, const at::Tensor& label,
                           const at::Tensor& boxes, const config::Model& options) {
  check_label(label, prediction_BCLP, options);
  at::Tensor weight_BL1;
  if (options.adaptive.area_weight)
    weight_BL1 = leaf_areas(boxes).unsqueeze(-1) / static_cast<double>(patch_pixels(options));
  if (options.loss == "mse")
    return values_loss(prediction_BCLP, values_on_leaves(label, boxes, options),
                       weight_BL1.defined() ? weight_BL1.unsqueeze(1) : weight_BL1);
  const at::Tensor label_BLP = patching::serialise_labels(label, boxes, options.patch_size,
                                                          patching::leaf_options(options).labels);
  return segmentation_loss(prediction_BCLP, label_BLP, options, weight_BL1);
}

at::Tensor leaf_values(const data::Batch& batch) {
  const at::Tensor& leaves_BCLP = batch.leaf_tokens;
  return leaves_BCLP.to(ops::statistics_type(leaves_BCLP.scalar_type()))
      .permute({0, 2, 3, 1})
      .flatten(2);
}

at::Tensor leaf_reconstruction_loss(const data::Batch& batch, const at::Tensor& prediction_BLS,
                                    const at::Tensor& mask_BL, const config::Model& options) {
  if (options.adaptive.loss_space == "image")
    return image_loss(batch, prediction_BLS, mask_BL, options);
  at::Tensor target_BLS = leaf_values(batch);
  if (options.norm_pix_loss) {
    const PatchScale scale = patch_scale(target_BLS);
    target_BLS = (target_BLS - scale.mean_BL1) / scale.deviation_BL1;
  }
  return reconstruction_loss(prediction_BLS, target_BLS, mask_BL, options,
                             counts_of(batch.leaf_boxes, options));
}

}  // namespace vitrail::models
