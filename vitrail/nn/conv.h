#pragma once
/// Convolutions over any number of space axes; 2-D and 3-D are one code path.
///
/// Shapes   B batch, k axes, K kernel edge; tensors are [B, channels, sides...].
/// Types    in the type of the parameters; statistics of norms in fp32 (fp64 for fp64).
/// Tiles    with `tiles` x is this rank's part of a map, and so is the result (nn/tiles.h).

#include <cstdint>

#include <ATen/core/Tensor.h>

#include "vitrail/nn/module.h"
#include "vitrail/nn/tiles.h"

namespace vitrail::nn {

/// Stride 1, sides kept (K odd).
/// Names    weight [out, in, K...], bias [out].
class Conv : public Module {
 public:
  Conv(int64_t axes, int64_t in, int64_t out, int64_t kernel, bool bias = false);
  /// x [B, in, sides...] -> [B, out, sides...]
  at::Tensor forward(const at::Tensor& x, Tiles* tiles = nullptr) const;
  /// Of one sample with this many places.
  double multiply_adds(int64_t places) const;

 private:
  int64_t axes_, padding_;
  at::Tensor weight_, bias_;
};

/// Transposed convolution whose kernel is its stride: every place becomes a block of `factor` per axis. No bias.
/// Names    weight [in, out, factor...].
class UpConv : public Module {
 public:
  UpConv(int64_t axes, int64_t in, int64_t out, int64_t factor = 2);
  /// x [B, in, sides...] -> [B, out, factor * sides...]
  at::Tensor forward(const at::Tensor& x) const;
  /// Of one sample with this many places before it.
  double multiply_adds(int64_t places) const;

 private:
  int64_t axes_, factor_;
  at::Tensor weight_;
};

constexpr double kInstanceNormEps = 1e-5;

/// (x - mean) / sqrt(variance + kInstanceNormEps) over the space axes of every sample and channel, biased variance, nothing learned.
/// Paper    Ulyanov et al. 2016, arXiv:1607.08022.
/// throws Error when there is but one place, whose variance is zero.
at::Tensor instance_norm(const at::Tensor& x, Tiles* tiles = nullptr);

}  // namespace vitrail::nn
