#pragma once
/// Where an image loses features when it is blurred: a frozen network's opinion of where detail matters.
///
/// Paper    Ronen et al. 2023, arXiv:2304.00287 ("feature-based" scorer).
/// Differs  the network sees ImageNet-normalised pixels whatever the source's normalisation, and its batch norms never
///          train.
/// Shapes   B batch; image float [B, 3, H, W] as in data::Batch, pixel_range [B, 3, 2] or undefined.
/// Threads  as nn::ShuffleNet.

#include <cstdint>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "vitrail/nn/shufflenet.h"

namespace vitrail::models {

class FeatureScorer {
 public:
  /// A safetensors file with torchvision's names of ShuffleNetV2 x0.5.
  /// throws CheckpointError naming file and tensor.
  explicit FeatureScorer(const std::string& weights);

  /// One map per blurred copy of the image (of its size): the mean over the features of the squared difference between
  /// the image's and the copy's, float [copies, B, H / 32, W / 32] (rounded up).
  /// throws Error when the image has not 3 channels.
  at::Tensor losses(const at::Tensor& image, const at::Tensor& pixel_range,
                    const std::vector<at::Tensor>& blurred) const;

  /// Importance of pixels, uint8 [B, H, W]: features lost by halving the resolution, the sample's largest as 255, the
  /// same over every square of 32 pixels.
  at::Tensor importance(const at::Tensor& image, const at::Tensor& pixel_range) const;

 private:
  nn::ShuffleNet network_;
  mutable at::Tensor statistics_;  // [2, 3] mean and deviation of ImageNet's pixels, 0 ... 1
};

}  // namespace vitrail::models
