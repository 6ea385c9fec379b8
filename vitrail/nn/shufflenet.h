#pragma once
/// ShuffleNetV2 x0.5 without its classifier, frozen: a cheap source of image features.
///
/// Paper    Ma et al. 2018, arXiv:1807.11164; layers and names of torchvision's shufflenet_v2_x0_5.
/// Differs  batch norms always use the running statistics and are folded into the convolutions before them (in fp64);
///          nothing is trained, so its tensors are no parameters.
/// Shapes   B batch; the image's sides are divided by 32, rounded up.
/// Threads  the copy on the device of the last use is a cache: one network per thread.

#include <cstdint>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "vitrail/nn/module.h"

namespace vitrail::nn {

class ShuffleNet {
 public:
  static constexpr int64_t kStride = 32, kFeatures = 1024;

  /// Tensors of torchvision's names (conv1.0.weight, stage2.0.branch1.0.weight, ..., conv5.1.running_var); others, such
  /// as fc.* and num_batches_tracked, are ignored. `source` is for messages.
  /// throws CheckpointError naming the tensors that are missing or of another shape, one line each.
  ShuffleNet(const std::vector<NamedTensor>& tensors, const std::string& source);

  /// image float [B, 3, H, W] in ImageNet's normalisation -> fp32 [B, 1024, H / 32, W / 32], no gradient.
  at::Tensor features(const at::Tensor& image) const;

 private:
  struct Convolution {
    at::Tensor weight, bias;
    int64_t stride = 1, groups = 1;
    bool relu = true;
  };
  /// The two branches of one unit; without a left one, half of the channels pass unchanged.
  struct Unit {
    std::vector<Convolution> left, right;
  };
  class Reader;

  static at::Tensor run(const Convolution& convolution, const at::Tensor& x);
  static at::Tensor run(const std::vector<Convolution>& branch, at::Tensor x);
  static at::Tensor run(const Unit& unit, const at::Tensor& x);
  void move_to(at::Device device) const;

  mutable Convolution first_, last_;
  mutable std::vector<Unit> units_;
};

}  // namespace vitrail::nn
