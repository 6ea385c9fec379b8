#pragma once
// Small segmentation models and their batches.

#include <algorithm>
#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/zeros.h>

#include "tests/models/tiny_models.h"
#include "vitrail/models/model.h"

namespace vitrail::models {

inline config::Model segmenter(const char* kind, std::vector<int64_t> sides, int64_t patch) {
  config::Model options;
  options.kind.value = kind;
  options.image_size = std::move(sides);
  options.patch_size = patch, options.in_channels = 2, options.num_classes = 3;
  options.embed_dim = 12, options.depth = 4, options.num_heads = 2, options.mlp_ratio = 2;
  options.class_token = false;
  options.feature_size = 4, options.decoder_embed_dim = 8;
  options.decoder.value = "conv", options.loss.value = "dice_ce";
  return options;
}

inline std::vector<int64_t> shape_of(int64_t batch, int64_t channels,
                                     const std::vector<int64_t>& sides) {
  std::vector<int64_t> shape{batch, channels};
  shape.insert(shape.end(), sides.begin(), sides.end());
  return shape;
}

/// Every class at random places.
inline at::Tensor labels(int64_t batch, const std::vector<int64_t>& sides, int64_t classes) {
  at::Tensor label = random(shape_of(batch, 1, sides), 5).squeeze(1);
  return ((label + 1.0) * (0.5 * static_cast<double>(classes)))
      .floor()
      .to(at::kLong)
      .clamp_max(classes - 1);
}

inline data::Batch images(const config::Model& options, int64_t size) {
  data::Batch batch;
  batch.image = random(shape_of(size, options.in_channels, options.image_size));
  batch.label = labels(size, options.image_size, options.num_classes);
  batch.sample_ids = at::arange(size, at::kLong);
  return batch;
}

/// The leaves of a regular grid of `grid` cells per axis in raster order, as adaptive tokens.
inline void add_leaves(data::Batch& batch, const config::Model& options, int64_t grid) {
  const auto axes = static_cast<int64_t>(options.image_size.size());
  const int64_t B = batch.size(), L = options.adaptive.fixed_length;
  int64_t pixels = 1;
  for (int64_t axis = 0; axis < axes; ++axis) pixels *= options.patch_size;
  batch.leaf_tokens = random({B, options.in_channels, L, pixels}, 6);
  batch.leaf_boxes = at::zeros({B, L, 2 * axes});
  at::Tensor place = at::arange(L, at::kLong);
  for (int64_t axis = axes - 1; axis >= 0; --axis) {
    const double edge = double(options.image_size[axis]) / double(grid);
    const at::Tensor low = place.remainder(grid).to(at::kFloat) * edge;
    batch.leaf_boxes.select(2, axis).copy_(low);
    batch.leaf_boxes.select(2, axes + axis).copy_(low + edge);
    place = place.floor_divide(grid);
  }
}

inline double worst(const at::Tensor& a, const at::Tensor& b) {
  return (a - b).abs().max().item<double>();
}

}  // namespace vitrail::models
