#pragma once
/// Segmentation of images and volumes of any size by a model of one size.

#include <cstdint>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "vitrail/config/recipe.h"
#include "vitrail/models/model.h"

namespace vitrail::train {

struct SlidingWindow {
  double overlap = 0.5;    // shared part of neighbouring windows, per axis, in [0, 1)
  int64_t batch_size = 8;  // windows per forward pass
  uint64_t seed = 0;
  std::vector<double> padding = {};         // of each channel, outside the image; empty = 0
  std::vector<std::string> variables = {};  // of the image's channels; empty = all of the model
  std::vector<float> pixel_range = {};      // a row of Batch::pixel_range [C, 2]; empty = none
};

/// Class probabilities (of a model that learns values, those) of every pixel, fp32 on the CPU: image [C, sides...] -> [classes, sides...].
///
/// Windows of model.image_size cover the image (data::tile_starts); an image
/// smaller than a window is padded behind its end. Where windows overlap, probabilities are averaged
/// with `window_weights`, so that their borders leave no seams.
/// Source   Isensee et al. 2021 (nnU-Net), doi:10.1038/s41592-020-01008-z; equals MONAI's
///          sliding_window_inference(mode="gaussian") of a predictor that ends in softmax, except
///          that MONAI pads a small image half before and half behind, and rounds strides down.
/// throws   Error when the image does not have the model's channels and number of sides.
at::Tensor segment(models::Model& model, const config::Model& options, const at::Tensor& image,
                   at::Device device, const SlidingWindow& window);

/// The weights of one window [sides...], fp32: a Gaussian around its centre (sigma an eighth of the
/// side), at least 1e-3. MONAI's compute_importance_map(mode="gaussian", sigma_scale=0.125).
at::Tensor window_weights(const std::vector<int64_t>& sides);

}  // namespace vitrail::train
