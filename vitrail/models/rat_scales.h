#pragma once
/// The scales of the resolution-aware transformer: one image at several sizes, and where its cells lie.

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "vitrail/config/recipe.h"
#include "vitrail/nn/grouping_block.h"

namespace vitrail::models {

/// x [B, C, sides...] -> [B, C, new sides...], axis by axis: where it shrinks, means over equal parts of the axis; where
/// it grows, linear between pixel centres (torch's align_corners=False). Products with small matrices, so that backward
/// adds in a fixed order on every device.
class Resizer {
 public:
  at::Tensor operator()(const at::Tensor& x, at::IntArrayRef sides) const;

 private:
  mutable std::map<std::string, at::Tensor> known_;  // weights by sides, device and type, a cache
};

/// The grids of model.rat.scales, a cell for every pixel; spacing in pixels of the image, or 1.
/// throws ConfigError for sides below one.
std::vector<nn::CellGrid> scale_grids(const config::Model& options);

/// Sin-cos positions of the cells' coordinates (index times spacing), [L, width] fp32: ops::sincos_table's formula.
/// throws ConfigError when the width is no multiple of twice the axes.
at::Tensor sincos_of_cells(const nn::CellGrid& grid, int64_t width);

}  // namespace vitrail::models
