#pragma once
/// Maps divided into tiles, of which each of several ranks holds one: what the layers of a convolutional end need of the
/// rest of a map. Layers take a null pointer where maps are whole.
///
/// Tiles     the sides of every map are multiples of one grid's; a rank's tile covers the same cells of it in every map.
///           Convolutions whose kernel is 1, transposed ones whose kernel is their stride and activations need nothing
///           of other tiles and are not here.
/// Gradients enter and leave scale as the border of a trunk does (parallel/token_border.h): gradients of weights used
///           between them are right once they are averaged over the ranks. All functions are differentiable.
/// Order     every rank calls the same functions in the same order, backward included.
/// Shapes    B batch, C channels, k axes.

#include <ATen/core/Tensor.h>

namespace vitrail::nn {

class Tiles {
 public:
  virtual ~Tiles() = default;
  /// The whole [B, C, sides...], or [B, sides...], equal on all ranks -> this rank's tile of it.
  virtual at::Tensor enter(const at::Tensor& whole) = 0;
  /// This rank's tile [B, C, sides...] -> the whole.
  virtual at::Tensor leave(const at::Tensor& tile) = 0;

  /// The tile of the convolution of the whole map: stride 1, sides kept, weight [out, in, K...] with K odd, bias [out]
  /// or undefined.
  virtual at::Tensor conv(const at::Tensor& tile, const at::Tensor& weight,
                          const at::Tensor& bias) = 0;
  /// The tile of nn::instance_norm of the whole map.
  virtual at::Tensor instance_norm(const at::Tensor& tile) = 0;
  /// The tile of ops::resize_linear of the whole map to `sides`, the whole's.
  virtual at::Tensor resize(const at::Tensor& tile, at::IntArrayRef sides) = 0;
  /// Sums over tiles -> sums over whole maps.
  virtual at::Tensor sum(const at::Tensor& of_tile) = 0;
};

}  // namespace vitrail::nn
