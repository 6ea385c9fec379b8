#pragma once
/// Which cells a group sees when it looks only around itself, and which groups see a cell.
///
/// Group g (one index per axis) stands at cell stride * g and sees the width^k cells around it; at a border the window
/// moves inward, so that it always has as many (all of an axis shorter than the window).
/// Shapes   G groups, W cells a group sees, L cells, M groups that see a cell at the most.

#include <cstdint>

#include <ATen/core/Tensor.h>

namespace vitrail::ops {

struct Neighbourhood {
  at::Tensor cells_GW;  // int64: the cells of each group, in raster order
  at::Tensor seen_LM;   // int64: places g W + w in cells_GW that name the cell, then G W to the end
  int64_t groups() const { return cells_GW.size(0); }
  int64_t window() const { return cells_GW.size(1); }
  int64_t cells() const { return seen_LM.size(0); }
};

/// On the CPU. throws Error when a grid is empty or their numbers of axes differ.
Neighbourhood make_neighbourhood(at::IntArrayRef cells, at::IntArrayRef groups, int64_t stride,
                                 int64_t width);

}  // namespace vitrail::ops
