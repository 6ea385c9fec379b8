#include "vitrail/parallel/tile_exchange.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/tensor.h>
#include <fmt/ranges.h>

#include "vitrail/core/error.h"
#include "vitrail/parallel/device.h"
#include "vitrail/parallel/exchange.h"
#include "vitrail/parallel/timeline.h"

namespace vitrail::parallel {

TileExchange::TileExchange(comm::Communicator& group, TileGrid grid)
    : group_(group), grid_(std::move(grid)) {}

std::vector<TileSide> TileExchange::place(at::IntArrayRef whole_sides, int rank) const {
  std::vector<TileSide> place = grid_.tile(rank);
  for (size_t axis = 0; axis < place.size(); ++axis) {
    const int64_t cells = grid_.cells()[axis], scale = whole_sides[axis] / cells;
    VT_CHECK(scale > 0 && scale * cells == whole_sides[axis],
             "[halo] the sides of a map must be multiples of the grid {} but are {}",
             fmt::join(grid_.cells(), "x"), fmt::join(whole_sides, "x"));
    place[axis].first *= scale, place[axis].count *= scale;
  }
  return place;
}

std::vector<int64_t> TileExchange::whole_sides(const at::Tensor& tile) const {
  const at::IntArrayRef own = tile.sizes().slice(static_cast<size_t>(dim_of(tile, 0)));
  const std::vector<TileSide> cells = grid_.tile(group_.rank());
  std::vector<int64_t> sides;
  for (size_t axis = 0; axis < cells.size(); ++axis) {
    VT_CHECK(own[axis] > 0 && own[axis] % cells[axis].count == 0,
             "[halo] the sides {} of a tile must be multiples of its cells along axis {}, {}",
             fmt::join(own, "x"), axis, cells[axis].count);
    sides.push_back(own[axis] / cells[axis].count * grid_.cells()[axis]);
  }
  return sides;
}

std::vector<int64_t> TileExchange::space_dims(const at::Tensor& x) const {
  std::vector<int64_t> dims(static_cast<size_t>(grid_.axes()));
  std::iota(dims.begin(), dims.end(), dim_of(x, 0));
  return dims;
}

at::Tensor TileExchange::shares(const at::Tensor& like) const {
  if (shares_.defined() && shares_.device() == like.device() &&
      shares_.scalar_type() == like.scalar_type())
    return shares_;
  std::vector<double> shares;
  for (int rank = 0; rank < group_.size(); ++rank) {
    double share = 1.0;
    const std::vector<TileSide> tile = grid_.tile(rank);
    for (size_t axis = 0; axis < tile.size(); ++axis)
      share *= static_cast<double>(tile[axis].count) / static_cast<double>(grid_.cells()[axis]);
    shares.push_back(share);
  }
  shares_ = at::tensor(shares, at::kDouble).to(like.device(), like.scalar_type());
  return shares_;
}

at::Tensor TileExchange::part(const at::Tensor& whole, int rank) const {
  const std::vector<TileSide> place =
      this->place(whole.sizes().slice(static_cast<size_t>(dim_of(whole, 0))), rank);
  at::Tensor view = whole;
  for (int axis = 0; axis < grid_.axes(); ++axis) {
    const TileSide& side = place[static_cast<size_t>(axis)];
    view = view.narrow(dim_of(whole, axis), side.first, side.count);
  }
  return view;
}

at::Tensor TileExchange::own_part(const at::Tensor& whole) const {
  return part(whole, group_.rank());
}

at::Tensor TileExchange::gathered(const at::Tensor& x, const char* what) const {
  const at::Tensor in = x.contiguous();
  std::vector<int64_t> shape = in.sizes().vec();
  shape.insert(shape.begin(), group_.size());
  const at::Tensor out = at::empty(shape, in.options().requires_grad(false));
  void* stream = current_stream(in.device());
  const TimedScope timed(in.device(), Lane::blocking, stream, what);
  group_.all_gather(buffer_of(in), buffer_of(out), stream).wait();
  return out;
}

at::Tensor TileExchange::summed(const at::Tensor& x) const {
  const at::Tensor sum = x.clone(at::MemoryFormat::Contiguous);
  void* stream = current_stream(sum.device());
  const TimedScope timed(sum.device(), Lane::blocking, stream, "sum over tiles");
  group_.all_reduce(buffer_of(sum), comm::Reduce::sum, stream).wait();
  return sum;
}

at::Tensor TileExchange::whole_of(const at::Tensor& tile) const {
  const std::vector<int64_t> sides = whole_sides(tile);
  std::vector<int64_t> pad;  // to the largest tile, pairs from the last axis on
  for (int axis = grid_.axes() - 1; axis >= 0; --axis) {
    const auto a = static_cast<size_t>(axis);
    const int64_t cells = grid_.cells()[a], parts = grid_.parts()[a];
    const int64_t largest = (cells + parts - 1) / parts * (sides[a] / cells);
    pad.insert(pad.end(), {0, largest - tile.size(dim_of(tile, axis))});
  }
  const at::Tensor all = gathered(at::constant_pad_nd(tile, pad), "gather tiles");
  std::vector<int64_t> shape = tile.sizes().vec();
  std::ranges::copy(sides, shape.end() - grid_.axes());
  const at::Tensor whole = at::empty(shape, all.options());
  for (int rank = 0; rank < group_.size(); ++rank) {
    const at::Tensor place = part(whole, rank);
    at::Tensor from = all[rank];
    for (int64_t dim = 0; dim < place.dim(); ++dim) from = from.narrow(dim, 0, place.size(dim));
    place.copy_(from);
  }
  return whole;
}

/// What the neighbour `step` tiles before sends on along `axis`; zeros where the map ends.
at::Tensor TileExchange::shifted(const at::Tensor& rows, int axis, int step) const {
  const int rank = group_.rank();
  const at::Tensor out = rows.contiguous();
  at::Tensor in = at::empty_like(out);
  void* stream = current_stream(out.device());
  const TimedScope timed(out.device(), Lane::blocking, stream, "halo");
  // Round the ends too, so that all ranks do the same; what comes that way is thrown away.
  group_
      .send_receive(buffer_of(out), grid_.neighbour(rank, axis, step), buffer_of(in),
                    grid_.neighbour(rank, axis, -step), stream)
      .wait();
  const bool is_end = step > 0 ? grid_.is_first(rank, axis) : grid_.is_last(rank, axis);
  return is_end ? in.zero_() : in;
}

Halo TileExchange::borrowed(const at::Tensor& tile, int axis, int64_t width) const {
  const int64_t dim = dim_of(tile, axis), rows = tile.size(dim);
  return {shifted(tile.narrow(dim, rows - width, width), axis, 1),
          shifted(tile.narrow(dim, 0, width), axis, -1)};
}

at::Tensor TileExchange::extended(const at::Tensor& tile, int axis, const Halo& halo) const {
  return at::cat({halo.before, tile, halo.behind}, dim_of(tile, axis));
}

at::Tensor TileExchange::returned(const at::Tensor& gradient, int axis, int64_t width) const {
  const int64_t dim = dim_of(gradient, axis), rows = gradient.size(dim) - 2 * width;
  const at::Tensor own = gradient.narrow(dim, width, rows).clone(at::MemoryFormat::Contiguous);
  const at::Tensor of_last = shifted(gradient.narrow(dim, 0, width), axis, -1);
  const at::Tensor of_first = shifted(gradient.narrow(dim, width + rows, width), axis, 1);
  own.narrow(dim, rows - width, width).add_(of_last);
  own.narrow(dim, 0, width).add_(of_first);
  return own;
}

}  // namespace vitrail::parallel
