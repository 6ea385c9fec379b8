#include "vitrail/models/leaf_pictures.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>

#include "vitrail/models/losses.h"
#include "vitrail/models/losses_leaves.h"
#include "vitrail/models/parts.h"

namespace vitrail::models {
namespace {

/// Pasted masks are 0 and 1 up to rounding.
constexpr double kInside = 0.5;

}  // namespace

LeafPictures paste_prediction(const data::Batch& batch, const at::Tensor& prediction_BLS,
                              const at::Tensor& mask_BL, const config::Model& options) {
  const at::NoGradGuard no_grad;
  const int64_t trees = batch.image.size(1) / batch.leaf_tokens.size(1);
  at::Tensor predicted_BLS = prediction_BLS.to(at::kFloat);
  if (options.norm_pix_loss) {
    const PatchScale leaf = patch_scale(leaf_values(batch));
    predicted_BLS = predicted_BLS * leaf.deviation_BL1 + leaf.mean_BL1;
  }
  const at::Tensor hidden_BLP =
      mask_BL.to(at::kFloat).unsqueeze(-1).expand({-1, -1, patch_pixels(options)});
  const at::Tensor hidden = paste_values(hidden_BLP, batch.leaf_boxes, trees, options) > kInside;
  return {paste_values(predicted_BLS, batch.leaf_boxes, trees, options),
          hidden.expand_as(batch.image)};
}

}  // namespace vitrail::models
