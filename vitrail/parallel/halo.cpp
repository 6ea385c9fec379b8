#include "vitrail/parallel/halo.h"

#include <numeric>
#include <optional>
#include <utility>
#include <vector>

#include <ATen/TensorOperators.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/convolution.h>
#include <ATen/ops/convolution_backward.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/var_mean.h>
#include <fmt/ranges.h>
#include <torch/csrc/autograd/custom_function.h>

#include "vitrail/core/error.h"
#include "vitrail/nn/conv.h"
#include "vitrail/ops/norm.h"
#include "vitrail/ops/resample.h"

namespace vitrail::parallel {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// The tiles as a value that an autograd node can keep.
int64_t address(const TileExchange& tiles) { return reinterpret_cast<int64_t>(&tiles); }
const TileExchange& tiles_of(AutogradContext* node) {
  return *reinterpret_cast<const TileExchange*>(node->saved_data["tiles"].toInt());
}
const TileExchange& keep(AutogradContext* node, int64_t address) {
  node->saved_data["tiles"] = address;
  return *reinterpret_cast<const TileExchange*>(address);
}

int64_t product(at::IntArrayRef values) {
  return std::accumulate(values.begin(), values.end(), int64_t{1}, std::multiplies<int64_t>());
}

struct Enter : torch::autograd::Function<Enter> {
  static at::Tensor forward(AutogradContext* node, const at::Tensor& whole, int64_t tiles) {
    return keep(node, tiles).own_part(whole).clone(at::MemoryFormat::Contiguous);
  }
  static variable_list backward(AutogradContext* node, const variable_list& gradients) {
    const TileExchange& tiles = tiles_of(node);
    return {tiles.whole_of(gradients[0]) / tiles.ranks(), {}};
  }
};

struct Leave : torch::autograd::Function<Leave> {
  static at::Tensor forward(AutogradContext* node, const at::Tensor& tile, int64_t tiles) {
    return keep(node, tiles).whole_of(tile);
  }
  static variable_list backward(AutogradContext* node, const variable_list& gradients) {
    const TileExchange& tiles = tiles_of(node);
    return {tiles.own_part(gradients[0]) * tiles.ranks(), {}};
  }
};

struct WithHalo : torch::autograd::Function<WithHalo> {
  static at::Tensor forward(AutogradContext* node, const at::Tensor& x, int64_t axis, int64_t width,
                            int64_t tiles_address) {
    const TileExchange& tiles = keep(node, tiles_address);
    node->saved_data["axis"] = axis;
    node->saved_data["width"] = width;
    const auto a = static_cast<int>(axis);
    return tiles.extended(x, a, tiles.borrowed(x, a, width));
  }
  static variable_list backward(AutogradContext* node, const variable_list& gradients) {
    const auto axis = static_cast<int>(node->saved_data["axis"].toInt());
    return {
        tiles_of(node).returned(gradients[0], axis, node->saved_data["width"].toInt()), {}, {}, {}};
  }
};

/// How the convolution of an extended tile is called.
struct ConvCall {
  int64_t width;
  std::vector<int64_t> padding, ones, zeros;

  ConvCall(const at::Tensor& weight, const TileExchange& tiles)
      : width(weight.size(2) / 2),
        padding(static_cast<size_t>(tiles.grid().axes()), width),
        ones(padding.size(), 1),
        zeros(padding.size(), 0) {
    for (int axis = 0; axis < tiles.grid().axes(); ++axis)
      if (tiles.grid().is_cut(axis)) padding[static_cast<size_t>(axis)] = 0;
  }
};

/// Keeps the tile and the borrowed rows apart: the tile is the result of the layer before, which is kept anyway.
struct HaloConv : torch::autograd::Function<HaloConv> {
  static at::Tensor forward(AutogradContext* node, const at::Tensor& x, const at::Tensor& weight,
                            const std::optional<at::Tensor>& bias, int64_t tiles_address) {
    const TileExchange& tiles = keep(node, tiles_address);
    const ConvCall call(weight, tiles);
    variable_list saved{x, weight};
    at::Tensor whole = x;
    for (int axis = 0; axis < tiles.grid().axes(); ++axis) {
      if (!tiles.grid().is_cut(axis)) continue;
      const Halo halo = tiles.borrowed(whole, axis, call.width);
      whole = tiles.extended(whole, axis, halo);
      saved.insert(saved.end(), {halo.before, halo.behind});
    }
    node->save_for_backward(std::move(saved));
    node->saved_data["bias"] = bias.has_value();
    return at::convolution(whole, weight, bias, call.ones, call.padding, call.ones,
                           /*transposed=*/false, call.zeros, /*groups=*/1);
  }

  static variable_list backward(AutogradContext* node, const variable_list& gradients) {
    const TileExchange& tiles = tiles_of(node);
    const variable_list saved = node->get_saved_variables();
    const at::Tensor& weight = saved[1];
    const ConvCall call(weight, tiles);
    at::Tensor whole = saved[0];
    size_t next = 2;
    for (int axis = 0; axis < tiles.grid().axes(); ++axis) {
      if (!tiles.grid().is_cut(axis)) continue;
      whole = tiles.extended(whole, axis, {saved[next], saved[next + 1]});
      next += 2;
    }
    const bool has_bias = node->saved_data["bias"].toBool();
    const std::vector<int64_t> bias_shape{weight.size(0)};
    auto [dx, dweight, dbias] = at::convolution_backward(
        gradients[0], whole, weight,
        has_bias ? at::OptionalIntArrayRef(bias_shape) : at::OptionalIntArrayRef(), call.ones,
        call.padding, call.ones, /*transposed=*/false, call.zeros, /*groups=*/1,
        {node->needs_input_grad(0), true, has_bias});
    whole = at::Tensor();
    if (dx.defined())
      for (int axis = tiles.grid().axes() - 1; axis >= 0; --axis)
        if (tiles.grid().is_cut(axis)) dx = tiles.returned(dx, axis, call.width);
    return {dx, dweight, dbias, {}};
  }
};

/// Sum over the ranks, whose derivative is the sum of the ranks' gradients. Of a sum that all ranks go on with alike, each
/// has the whole gradient: the sum of them is that times the number of ranks, as leave() would make it.
struct SumOverTiles : torch::autograd::Function<SumOverTiles> {
  static at::Tensor forward(AutogradContext* node, const at::Tensor& x, int64_t tiles) {
    return keep(node, tiles).summed(x);
  }
  static variable_list backward(AutogradContext* node, const variable_list& gradients) {
    return {tiles_of(node).summed(gradients[0]), {}};
  }
};

/// Means and variances of tiles are put together in rank order: exact where sums of squares would cancel, the same bits on
/// every rank, one collective. Chan et al. 1979, "Updating formulae and a pairwise algorithm".
struct InstanceNorm : torch::autograd::Function<InstanceNorm> {
  static at::Tensor forward(AutogradContext* node, const at::Tensor& x, int64_t tiles_address) {
    const TileExchange& tiles = keep(node, tiles_address);
    const at::Tensor wide = x.to(ops::statistics_type(x.scalar_type()));
    const auto [own_variance, own_mean] =
        at::var_mean(wide, at::OptionalIntArrayRef(tiles.space_dims(x)), /*correction=*/0,
                     /*keepdim=*/true);
    const at::Tensor all = tiles.gathered(at::stack({own_mean, own_variance}), "moments of tiles");
    std::vector<int64_t> shape(static_cast<size_t>(all.dim() - 1), 1);
    shape[0] = tiles.ranks();
    const at::Tensor share = tiles.shares(wide).view(shape);
    const at::Tensor means = all.select(1, 0), variances = all.select(1, 1);
    const at::Tensor mean = (means * share).sum(0);
    const at::Tensor variance = ((variances + (means - mean).square()) * share).sum(0);
    const at::Tensor scale = (variance + nn::kInstanceNormEps).rsqrt();
    node->save_for_backward({x, mean, scale});
    return (wide - mean).mul_(scale).to(x.scalar_type());
  }

  static variable_list backward(AutogradContext* node, const variable_list& gradients) {
    const TileExchange& tiles = tiles_of(node);
    const variable_list saved = node->get_saved_variables();
    const at::Tensor &x = saved[0], &mean = saved[1], &scale = saved[2];
    const std::vector<int64_t> space = tiles.space_dims(x);
    const at::Tensor dy = gradients[0].to(mean.scalar_type());
    const at::Tensor normal = (x.to(mean.scalar_type()) - mean).mul_(scale);
    const at::Tensor sums = tiles.summed(
        at::stack({dy.sum(space, /*keepdim=*/true), (dy * normal).sum(space, /*keepdim=*/true)}));
    const at::Tensor means = sums / static_cast<double>(product(tiles.whole_sides(x)));
    const at::Tensor dx = (dy - means[0]).sub_(normal * means[1]).mul_(scale);
    return {dx.to(x.scalar_type()), {}};
  }
};

/// [to, from], the weights of ops::resize_linear: what it makes of the unit vectors.
at::Tensor resize_weights(int64_t from, int64_t to, const at::TensorOptions& like) {
  return ops::resize_linear(at::eye(from, like.requires_grad(false)).unsqueeze(0), {to})[0].t();
}

/// weight [N, M] times the axis `dim` of x, of M places.
at::Tensor along(int64_t dim, const at::Tensor& weight, const at::Tensor& x) {
  if (dim == x.dim() - 1) return at::matmul(x, weight.t());
  std::vector<int64_t> shape = x.sizes().vec();
  shape[static_cast<size_t>(dim)] = weight.size(0);
  return at::matmul(weight, x.flatten(dim + 1)).view(shape);
}

/// Rows of a cell are as many on every rank, so that all ranks throw or none.
void check_halo(const TileExchange& tiles, const at::Tensor& tile, int axis, int64_t width) {
  const auto a = static_cast<size_t>(axis);
  const int64_t rows = tiles.whole_sides(tile)[a] / tiles.grid().cells()[a];
  VT_CHECK(width <= rows,
           "[halo] a cell must have at least the {} rows that are borrowed but has {}", width,
           rows);
}

}  // namespace

at::Tensor HaloTiles::enter(const at::Tensor& whole) {
  return Enter::apply(whole, address(exchange_));
}
at::Tensor HaloTiles::leave(const at::Tensor& tile) {
  return Leave::apply(tile, address(exchange_));
}

at::Tensor HaloTiles::with_halo(const at::Tensor& tile, int axis, int64_t width) {
  if (width == 0 || !grid().is_cut(axis)) return tile;
  check_halo(exchange_, tile, axis, width);
  return WithHalo::apply(tile, int64_t{axis}, width, address(exchange_));
}

at::Tensor HaloTiles::conv(const at::Tensor& tile, const at::Tensor& weight,
                           const at::Tensor& bias) {
  for (int axis = 0; axis < grid().axes(); ++axis)
    if (grid().is_cut(axis)) check_halo(exchange_, tile, axis, weight.size(2 + axis) / 2);
  return HaloConv::apply(tile, weight, bias.defined() ? std::optional(bias) : std::nullopt,
                         address(exchange_));
}

at::Tensor HaloTiles::instance_norm(const at::Tensor& tile) {
  const std::vector<int64_t> sides = exchange_.whole_sides(tile);
  VT_CHECK(product(sides) > 1, "[halo] an instance norm needs more than one place but got {}",
           fmt::join(sides, "x"));
  return InstanceNorm::apply(tile, address(exchange_));
}

// Corners stay in place, so a new row lies less than one old row away from its tile: with s old and p new rows a cell,
// rows c p and c p - 1 at the two sides of a cell's end read less than (p - s) / p beyond s c.
at::Tensor HaloTiles::resize(const at::Tensor& tile, at::IntArrayRef sides) {
  at::Tensor y = tile;
  const std::vector<int64_t> old_sides = exchange_.whole_sides(tile);
  const std::vector<TileSide> from = exchange_.own_place(old_sides),
                              to = exchange_.own_place(sides);
  for (int axis = 0; axis < grid().axes(); ++axis) {
    const auto a = static_cast<size_t>(axis);
    if (old_sides[a] == sides[a]) continue;
    at::Tensor weight =
        resize_weights(old_sides[a], sides[a], y.options()).narrow(0, to[a].first, to[a].count);
    // Columns as rows of the extended tile; those beyond the map weigh nothing.
    if (grid().is_cut(axis))
      weight = at::constant_pad_nd(weight, {1, 1}).narrow(1, from[a].first, from[a].count + 2);
    y = along(exchange_.dim_of(y, axis), weight, with_halo(y, axis, 1));
  }
  return y;
}

at::Tensor HaloTiles::sum(const at::Tensor& of_tile) {
  return SumOverTiles::apply(of_tile, address(exchange_));
}

}  // namespace vitrail::parallel
