#pragma once
/// Adaptive leaves back in their places on a regular grid.

#include <cstdint>

#include <ATen/core/Tensor.h>

namespace vitrail::models {

/// Shares of the leaves in the cells of a grid over an image of `sides`: fp32 [B, cells, L], rows in raster order. A
/// cell inside a leaf belongs to it; a cell that holds several is divided among them by their volumes; one that no leaf
/// meets has a row of zeros, and so has padding a column.
/// boxes_BLx2k: as data::Batch::leaf_boxes.
at::Tensor leaf_shares(const at::Tensor& boxes, at::IntArrayRef sides, at::IntArrayRef grid);

}  // namespace vitrail::models
