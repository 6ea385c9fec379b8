#include "vitrail/nn/rose.h"

#include <cmath>

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/pow.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>

#include "vitrail/core/error.h"
#include "vitrail/ops/norm.h"

namespace vitrail::nn {
namespace {

constexpr double kLargestLog = 10.0;
constexpr double kSmallestScale = 1e-8;

double base_of(const RoseOptions& options) {
  const auto axes = static_cast<double>(options.axes);
  switch (options.law) {
    case FrequencyLaw::none:
      return options.theta;
    case FrequencyLaw::linear:
      return std::pow(options.theta, 1.0 / axes);
    case FrequencyLaw::sqrt:
      return std::pow(options.theta, 1.0 / std::sqrt(axes));
    case FrequencyLaw::adaptive:
      return std::pow(options.theta, 2.0 / (axes * static_cast<double>(options.width)));
  }
  core::fail("[rose] a law must be one of four but got {}", static_cast<int>(options.law));
}

/// log w as fp64 [turned, P, axes].
at::Tensor log_frequencies(const RoseOptions& options, int64_t turned, int64_t planes) {
  const int64_t all = turned * planes;
  const at::Tensor table = at::empty({turned, planes, options.axes}, at::kDouble);
  double* out = table.mutable_data_ptr<double>();
  const double log_base = std::log(base_of(options));
  for (int64_t p = 0; p < all; ++p)
    for (int64_t axis = 0; axis < options.axes; ++axis) {
      const int64_t place = options.equal_axes ? p : (p + axis * all / options.axes) % all;
      *out++ = -log_base * static_cast<double>(place) / static_cast<double>(all);
    }
  return table;
}

/// Rows a, b, c, d.
std::vector<double> scaling_start(SpacingScaling scaling) {
  if (scaling == SpacingScaling::log) return {0, 1, 1, 1};
  if (scaling == SpacingScaling::rope) return {0, 0, 0, 1};
  return {1, 1, 0, 1};
}

at::TensorOptions wide(const at::Tensor& like) {
  return like.options().dtype(ops::statistics_type(like.scalar_type())).requires_grad(false);
}

/// Of the cells along one axis, in raster order: [T].
at::Tensor indices(const std::vector<int64_t>& sides, size_t axis, const at::TensorOptions& like) {
  std::vector<int64_t> shape(sides.size(), 1);
  shape[axis] = sides[axis];
  return at::arange(sides[axis], like).view(shape).expand(sides).reshape({-1});
}

}  // namespace

int64_t CellGrid::cells() const {
  int64_t count = 1;
  for (const int64_t side : sides) count *= side;
  return count;
}

int64_t Rose::turned_heads(const RoseOptions& options) {
  const double width = std::floor(static_cast<double>(options.width) * options.ratio);
  return static_cast<int64_t>(width) / (options.width / options.num_heads);
}

Rose::Rose(const RoseOptions& options)
    : options_(options),
      turned_(turned_heads(options)),
      planes_(options.width / options.num_heads / 2) {
  VT_REQUIRE(ConfigError, options.width / options.num_heads % 2 == 0,
             "[config] the head width must be even for rotary positions but got {} / {}; change "
             "model.num_heads, or set model.rat.position to absolute or none",
             options.width, options.num_heads);
  if (turned_ == 0) return;
  log_start_ = log_frequencies(options, turned_, planes_);
  if (options.learnable)
    log_offset_ = register_parameter("log_offset", {turned_, planes_, options.axes});
  if (options.scaling == SpacingScaling::none) return;
  scaling_ = register_parameter("scaling", {4, options.axes});
  if (scaling_.is_meta()) return;
  const at::NoGradGuard no_grad;
  scaling_.copy_(at::tensor(scaling_start(options.scaling), at::kFloat)
                     .unsqueeze(1)
                     .expand({4, options.axes}));
}

at::Tensor Rose::frequencies(const at::Tensor& like) const {
  const at::TensorOptions here = wide(like);
  if (!start_here_.defined() || start_here_.device() != like.device() ||
      start_here_.dtype() != here.dtype())
    start_here_ = log_start_.to(here);
  if (!log_offset_.defined()) return start_here_.exp();
  return (start_here_ + log_offset_.to(wide(like))).clamp(-kLargestLog, kLargestLog).exp();
}

at::Tensor Rose::scaled_spacing(const CellGrid& grid, const at::Tensor& like) const {
  // Made on the device: a copy from the host would stop the queue at every pass.
  std::vector<at::Tensor> distances;
  for (const double distance : grid.spacing)
    distances.push_back(at::full({}, distance, wide(like)));
  const at::Tensor spacing = at::stack(distances);
  if (!scaling_.defined()) return spacing;
  const at::Tensor p = scaling_.to(wide(like));
  const at::Tensor scaled =
      p[0] * at::pow(spacing, p[1]) + p[2] * (spacing / p[3].clamp_min(kSmallestScale)).log();
  return at::where(scaled.isfinite(), scaled, 1.0);
}

ops::Rotary Rose::tables(const CellGrid& grid, const at::Tensor& like) const {
  if (turned_ == 0) return {};
  const at::Tensor w = frequencies(like), s = scaled_spacing(grid, like);
  at::Tensor angle;  // [turned, T, P]
  for (int64_t axis = 0; axis < options_.axes; ++axis) {
    const at::Tensor place_T = indices(grid.sides, static_cast<size_t>(axis), wide(like)) * s[axis];
    const at::Tensor part = place_T.view({1, -1, 1}) * w.select(2, axis).unsqueeze(1);
    angle = angle.defined() ? angle + part : part;
  }
  const at::Tensor cos = angle.cos().unsqueeze(0), sin = angle.sin().unsqueeze(0);
  const int64_t rest = options_.num_heads - turned_;
  if (rest == 0) return {cos, sin};
  const at::Tensor still =
      at::zeros_like(sin.select(1, 0)).unsqueeze(1).expand({1, rest, cos.size(2), planes_});
  return {at::cat({cos, at::ones_like(still)}, 1), at::cat({sin, still}, 1)};
}

ops::Rotary joined(const std::vector<ops::Rotary>& tables) {
  if (tables.empty() || !tables[0].defined()) return {};
  if (tables.size() == 1) return tables[0];
  std::vector<at::Tensor> cos, sin;
  for (const ops::Rotary& table : tables) cos.push_back(table.cos), sin.push_back(table.sin);
  return {at::cat(cos, 2), at::cat(sin, 2)};
}

}  // namespace vitrail::nn
