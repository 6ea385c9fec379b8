#pragma once
/// The blocks of UNETR's decoder, with MONAI's names.
///
/// Paper    Hatamizadeh et al. 2021, arXiv:2103.10504; the residual block: Isensee et al. 2019, arXiv:1904.08128.
/// Shapes   B batch, k axes; tensors are [B, channels, sides...].
/// Tiles    with `tiles` all maps are this rank's parts of them (nn/tiles.h).

#include <cstdint>
#include <memory>
#include <vector>

#include <ATen/core/Tensor.h>

#include "vitrail/nn/conv.h"
#include "vitrail/nn/module.h"

namespace vitrail::nn {

/// leaky(norm(conv2(leaky(norm(conv1(x))))) + shortcut(x)), kernels of edge 3, leaky ReLU of slope 0.01; the shortcut is
/// the identity, or norm(conv3(x)) with a kernel of edge 1 when the number of channels changes.
/// Names    conv1.conv, conv2.conv, conv3.conv.
class ResidualBlock : public Module {
 public:
  ResidualBlock(int64_t axes, int64_t in, int64_t out);
  /// x [B, in, sides...] -> [B, out, sides...]
  at::Tensor forward(const at::Tensor& x, Tiles* tiles = nullptr) const;
  double multiply_adds(int64_t places) const;

 private:
  std::shared_ptr<Conv> conv1_, conv2_, conv3_;
};

/// Takes tokens on their grid to a finer one: doubled by a convolution, then `more` times doubled again with a residual
/// block behind each.
/// Names    transp_conv_init.conv, blocks.I.0.conv, blocks.I.1.*.
class RaiseBlock : public Module {
 public:
  RaiseBlock(int64_t axes, int64_t in, int64_t out, int more);
  /// x [B, in, sides...] -> [B, out, 2^(1 + more) * sides...]
  at::Tensor forward(const at::Tensor& x, Tiles* tiles = nullptr) const;
  double multiply_adds(int64_t places) const;

 private:
  int64_t axes_;
  std::shared_ptr<UpConv> first_;
  std::vector<std::shared_ptr<UpConv>> ups_;
  std::vector<std::shared_ptr<ResidualBlock>> blocks_;
};

/// Doubles a map (or keeps its sides: factor 1) and merges it with the encoder's map of that size: the enlarged one's
/// channels first.
/// Names    transp_conv.conv, conv_block.*.
class MergeBlock : public Module {
 public:
  MergeBlock(int64_t axes, int64_t in, int64_t out, int64_t factor = 2);
  /// x [B, in, sides...], skip [B, out, factor * sides...] -> like skip
  at::Tensor forward(const at::Tensor& x, const at::Tensor& skip, Tiles* tiles = nullptr) const;
  /// `places` of x.
  double multiply_adds(int64_t places) const;

 private:
  int64_t growth_;
  std::shared_ptr<UpConv> up_;
  std::shared_ptr<ResidualBlock> block_;
};

}  // namespace vitrail::nn
