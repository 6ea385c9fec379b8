#include "vitrail/ops/patch.h"

#include <cmath>
#include <numeric>

#include <fmt/ranges.h>

#include "vitrail/core/error.h"

namespace vitrail::ops {
namespace {

int64_t product(at::IntArrayRef values) {
  return std::accumulate(values.begin(), values.end(), int64_t{1}, std::multiplies<int64_t>());
}

int64_t patch_volume(size_t axes, int64_t patch) {
  int64_t volume = 1;
  for (size_t axis = 0; axis < axes; ++axis) volume *= patch;
  return volume;
}

}  // namespace

std::vector<int64_t> patch_grid(at::IntArrayRef image_size, int64_t patch) {
  VT_CHECK(patch > 0, "[patch] patch_size must be positive but got {}", patch);
  std::vector<int64_t> grid;
  for (const int64_t side : image_size) {
    VT_CHECK(side > 0 && side % patch == 0,
             "[patch] every side must be a multiple of patch_size but got {} and {}",
             fmt::join(image_size, "x"), patch);
    grid.push_back(side / patch);
  }
  return grid;
}

at::Tensor patchify(const at::Tensor& image, int64_t patch, PatchOrder order) {
  VT_CHECK(image.dim() >= 3,
           "[patch] an image must have batch, channel and space axes but got {} axes", image.dim());
  const std::vector<int64_t> grid = patch_grid(image.sizes().slice(2), patch);
  const int64_t axes = static_cast<int64_t>(grid.size());
  std::vector<int64_t> split{image.size(0), image.size(1)};  // [B, C, g0, P, g1, P, ...]
  std::vector<int64_t> order_of_axes{0};
  for (int64_t axis = 0; axis < axes; ++axis) {
    split.insert(split.end(), {grid[axis], patch});
    order_of_axes.push_back(2 + 2 * axis);
  }
  if (order == PatchOrder::channel_first) order_of_axes.push_back(1);
  for (int64_t axis = 0; axis < axes; ++axis) order_of_axes.push_back(3 + 2 * axis);
  if (order == PatchOrder::channel_last) order_of_axes.push_back(1);
  return image.reshape(split)
      .permute(order_of_axes)
      .reshape({image.size(0), product(grid), image.size(1) * patch_volume(grid.size(), patch)});
}

at::Tensor unpatchify(const at::Tensor& tokens, at::IntArrayRef grid, int64_t patch,
                      PatchOrder order) {
  const int64_t volume = patch_volume(grid.size(), patch);
  VT_CHECK(tokens.dim() == 3 && tokens.size(1) == product(grid) && tokens.size(2) % volume == 0,
           "[patch] tokens must be [B, {}, multiple of {}] but got [{}]", product(grid), volume,
           fmt::join(tokens.sizes(), ", "));
  const int64_t axes = static_cast<int64_t>(grid.size());
  const int64_t channels = tokens.size(2) / volume;
  const bool first = order == PatchOrder::channel_first;
  std::vector<int64_t> split{tokens.size(0)};  // [B, g0, g1, ..., (C,) P, P, ... (, C)]
  split.insert(split.end(), grid.begin(), grid.end());
  if (first) split.push_back(channels);
  split.insert(split.end(), grid.size(), patch);
  if (!first) split.push_back(channels);
  std::vector<int64_t> order_of_axes{0, first ? 1 + axes : 1 + 2 * axes};
  std::vector<int64_t> size{tokens.size(0), channels};
  for (int64_t axis = 0; axis < axes; ++axis) {
    order_of_axes.insert(order_of_axes.end(), {1 + axis, 1 + axes + axis + (first ? 1 : 0)});
    size.push_back(grid[axis] * patch);
  }
  return tokens.reshape(split).permute(order_of_axes).reshape(size);
}

}  // namespace vitrail::ops
