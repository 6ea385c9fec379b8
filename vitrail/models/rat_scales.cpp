#include "vitrail/models/rat_scales.h"

#include <algorithm>
#include <cmath>

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/zeros.h>
#include <fmt/ranges.h>

#include "vitrail/core/error.h"

namespace vitrail::models {
namespace {

/// [to, from], fp64 on the CPU: how much each old place enters each new one.
at::Tensor axis_weights(int64_t from, int64_t to) {
  const at::Tensor weights = at::zeros({to, from}, at::kDouble);
  double* out = weights.mutable_data_ptr<double>();
  const double step = static_cast<double>(from) / static_cast<double>(to);
  for (int64_t i = 0; i < to; ++i) {
    double* row = out + i * from;
    if (to <= from) {
      const double low = static_cast<double>(i) * step, high = low + step;
      for (auto j = static_cast<int64_t>(low); j < from && static_cast<double>(j) < high; ++j) {
        const double begin = std::max(low, static_cast<double>(j));
        const double end = std::min(high, static_cast<double>(j + 1));
        row[j] = std::max(0.0, end - begin) / step;
      }
    } else {
      const double centre = std::max(0.0, (static_cast<double>(i) + 0.5) * step - 0.5);
      const auto j = std::min(static_cast<int64_t>(centre), from - 1);
      const double share = centre - static_cast<double>(j);
      row[j] += 1.0 - share;
      row[std::min(j + 1, from - 1)] += share;
    }
  }
  return weights;
}

}  // namespace

at::Tensor Resizer::operator()(const at::Tensor& x, at::IntArrayRef sides) const {
  VT_CHECK(x.dim() == static_cast<int64_t>(sides.size()) + 2,
           "[resize] [{}] cannot be resized to sides {}", fmt::join(x.sizes(), ", "),
           fmt::join(sides, "x"));
  at::Tensor y = x;
  for (size_t axis = 0; axis < sides.size(); ++axis) {
    const auto place = static_cast<int64_t>(axis) + 2;
    if (y.size(place) == sides[axis]) continue;
    const auto like = y.options().requires_grad(false);
    at::Tensor& weights = known_[fmt::format("{} {} {} {}", y.size(place), sides[axis],
                                             like.device().str(), like.dtype().name())];
    if (!weights.defined()) weights = axis_weights(y.size(place), sides[axis]).to(like);
    y = at::matmul(y.movedim(place, -1), weights.t()).movedim(-1, place);
  }
  return y;
}

std::vector<nn::CellGrid> scale_grids(const config::Model& options) {
  std::vector<nn::CellGrid> grids;
  for (const double scale : options.rat.scales) {
    nn::CellGrid grid;
    for (const int64_t side : options.image_size) {
      const auto cells = static_cast<int64_t>(std::llround(static_cast<double>(side) * scale));
      VT_REQUIRE(
          ConfigError, cells >= 1,
          "[config] model.rat.scales {} leaves nothing of a side of {}; leave that scale out",
          scale, side);
      grid.sides.push_back(cells);
      grid.spacing.push_back(options.rat.spacing == "unit" || options.rat.position == "rope"
                                 ? 1.0
                                 : static_cast<double>(side) / static_cast<double>(cells));
    }
    grids.push_back(std::move(grid));
  }
  return grids;
}

at::Tensor sincos_of_cells(const nn::CellGrid& grid, int64_t width) {
  const auto axes = static_cast<int64_t>(grid.sides.size());
  VT_REQUIRE(ConfigError, width % (2 * axes) == 0,
             "[config] model.embed_dim must be a multiple of {} for model.rat.position absolute in "
             "{}-D but got {}",
             2 * axes, axes, width);
  const int64_t part = width / axes, half = part / 2;
  const at::Tensor table = at::empty({grid.cells(), width}, at::kFloat);
  for (int64_t cell = 0; cell < grid.cells(); ++cell) {
    float* row = table.mutable_data_ptr<float>() + cell * width;
    int64_t rest = cell;
    for (int64_t axis = axes - 1; axis >= 0; --axis) {
      const auto a = static_cast<size_t>(axis);
      const double place = static_cast<double>(rest % grid.sides[a]) * grid.spacing[a];
      rest /= grid.sides[a];
      float* out = row + (axes == 2 ? 1 - axis : axis) * part;  // the column first in 2-D
      for (int64_t j = 0; j < half; ++j) {
        const double angle =
            place / std::pow(10000.0, static_cast<double>(j) / static_cast<double>(half));
        out[j] = static_cast<float>(std::sin(angle));
        out[half + j] = static_cast<float>(std::cos(angle));
      }
    }
  }
  return table;
}

}  // namespace vitrail::models
