#pragma once
/// Rotary spatial embedding (RoSE): rotary positions of real coordinates, with frequencies of their own for every head
/// and plane, and learnable.
///
///   angle(head, plane, cell) = sum over the axes of w(head, plane, axis) * s(axis) * index(cell, axis)
///   w = theta^(-p / n), p counted over the planes of all turned heads, n of them; learnable: exp(clamp(log w + offset,
///   +-10)) with a learned offset that starts as jitter
///   s = spacing, or learned: a spacing^b + c log(spacing / max(d, 1e-8)), 1 where that is no number
/// The first of the heads are turned, by `ratio`; the others stay. Theta is the base by a law: none base; linear
/// base^(1 / axes); sqrt base^(1 / sqrt(axes)); adaptive base^(2 / (axes width)).
/// Differs  from the first program, unless equal_axes: axis a begins its frequencies a / axes of the way down the list
///          and goes round, so that cells of one anti-diagonal differ; there every axis has the same ones.
/// Shapes   N heads, T cells of a grid in raster order, E head width, P = E / 2 planes of neighbouring channels.

#include <cstdint>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "vitrail/nn/module.h"
#include "vitrail/ops/rotary.h"

namespace vitrail::nn {

enum class FrequencyLaw { none, linear, sqrt, adaptive };
/// What the learned spacing starts as: identity s = spacing (a = b = d = 1, c = 0); log a = 0, b = c = d = 1; rope a = b =
/// c = 0, d = 1, which is s = 0 everywhere; none: s is the spacing.
enum class SpacingScaling { none, identity, log, rope };

struct RoseOptions {
  int64_t axes = 2;
  int64_t width = 768;
  int64_t num_heads = 12;
  double ratio = 0.5;  // of the width that is turned, rounded down to whole heads
  double theta = 10000.0;
  FrequencyLaw law = FrequencyLaw::sqrt;
  bool equal_axes = false;
  bool learnable = true;
  SpacingScaling scaling = SpacingScaling::identity;
};

/// A regular grid of cells: sides, and the distance of neighbours along each axis.
struct CellGrid {
  std::vector<int64_t> sides;
  std::vector<double> spacing;
  int64_t cells() const;
};

/// Names    log_offset [turned heads, P, axes] (learnable); scaling [4, axes], rows a, b, c, d (scaling not none).
class Rose : public Module {
 public:
  /// throws ConfigError when the head width is odd.
  explicit Rose(const RoseOptions& options);
  /// Heads that are turned; 0: tables() is undefined.
  static int64_t turned_heads(const RoseOptions& options);
  /// [1, N, T, P] in the statistics type of `like`, on its device; differentiable in the parameters.
  ops::Rotary tables(const CellGrid& grid, const at::Tensor& like) const;

 private:
  at::Tensor frequencies(const at::Tensor& like) const;
  at::Tensor scaled_spacing(const CellGrid& grid, const at::Tensor& like) const;

  RoseOptions options_;
  int64_t turned_, planes_;
  at::Tensor log_start_;             // [turned, P, axes], fp64
  mutable at::Tensor start_here_;    // the same where and as it was used last, a cache
  at::Tensor log_offset_, scaling_;  // undefined: not learned
};

/// Tables of several grids, one after the other along T.
ops::Rotary joined(const std::vector<ops::Rotary>& tables);

}  // namespace vitrail::nn
