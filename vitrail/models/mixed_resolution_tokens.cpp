// What becomes of mixed-resolution patches: embeddings, and their way back to a grid.

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/log2.h>
#include <ATen/ops/matmul.h>
#include <fmt/ranges.h>

#include "vitrail/core/error.h"
#include "vitrail/models/mixed_resolution.h"
#include "vitrail/ops/masking.h"

namespace vitrail::models {

at::Tensor levels_of(const at::Tensor& boxes, int64_t patch) {
  const at::Tensor edges_BL = boxes.select(2, boxes.size(2) / 2) - boxes.select(2, 0);
  return (edges_BL / static_cast<double>(patch)).log2_().round_().to(at::kLong);
}

at::Tensor reverse(const at::Tensor& tokens, const at::Tensor& boxes, at::IntArrayRef sides,
                   at::IntArrayRef grid) {
  const auto axes = static_cast<int64_t>(grid.size());
  VT_CHECK(tokens.defined() && boxes.defined() && tokens.dim() == 3 && boxes.dim() == 3 &&
               tokens.size(1) == boxes.size(1) && boxes.size(2) == 2 * axes &&
               static_cast<int64_t>(sides.size()) == axes,
           "[model] tokens [B, n, D] must come with boxes [B, n, {}] and {} sides but got {} sides",
           2 * axes, axes, sides.size());
  at::Tensor inside;  // bool [B, cells so far, n]
  for (int64_t axis = 0; axis < axes; ++axis) {
    const double edge = static_cast<double>(sides[axis]) / static_cast<double>(grid[axis]);
    const at::Tensor centre_G1 =
        ((at::arange(grid[axis], boxes.options()) + 0.5) * edge).unsqueeze(-1);
    const at::Tensor low_B1n = boxes.select(2, axis).unsqueeze(1);
    const at::Tensor high_B1n = boxes.select(2, axes + axis).unsqueeze(1);
    const at::Tensor here = centre_G1.ge(low_B1n).logical_and_(centre_G1.lt(high_B1n));
    inside = axis == 0 ? here : inside.unsqueeze(2).logical_and(here.unsqueeze(1)).flatten(1, 2);
  }
  const at::Tensor owner_BG = inside.to(at::kByte).argmax(2);
  const at::Tensor painted_BGD =
      ops::gather_tokens(tokens, owner_BG) * inside.any(2, /*keepdim=*/true);
  return painted_BGD.transpose(1, 2).unflatten(2, grid);
}

MixedEmbed::MixedEmbed(const config::Model& options) : options_(options) {
  layer_ = register_module("", std::make_shared<ConvolutionLayer>(options, options.in_channels));
  if (options.mixed_resolution.size_embedding)
    size_embed_ = register_parameter("size_embed",
                                     {MixedResolution::count_levels(options), options.embed_dim});
}

at::Tensor MixedEmbed::forward(const data::Batch& batch, const at::Tensor& keep_BK) const {
  check_leaves(options_, options_.in_channels, batch);
  const auto kept = [&](const at::Tensor& x) {
    return keep_BK.defined() ? ops::gather_tokens(x, keep_BK) : x;
  };
  const at::Tensor patches_BLS = batch.leaf_tokens.to(dtype()).transpose(1, 2).flatten(2);
  const at::Tensor x_BKD = layer_->forward(kept(patches_BLS));
  if (!size_embed_.defined()) return x_BKD;
  const at::Tensor level_BK = levels_of(kept(batch.leaf_boxes), options_.patch_size);
  // As a product, whose gradient adds in a fixed order.
  const at::Tensor one_hot_BKS =
      level_BK.unsqueeze(-1).eq(at::arange(size_embed_.size(0), level_BK.options()));
  return x_BKD + at::matmul(one_hot_BKS.to(dtype()), size_embed_);
}

}  // namespace vitrail::models
