#pragma once
/// Transfers between the tiles of a map, without gradients: what halo.h makes layers of.
///
/// Order     every rank calls the same functions in the same order, with tiles of the same maps.
/// Shapes    R ranks; space axes are the last ones of a tensor, as many as the grid has.

#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>

#include "vitrail/comm/communicator.h"
#include "vitrail/parallel/tile_grid.h"

namespace vitrail::parallel {

/// Rows of the neighbours along one axis.
struct Halo {
  at::Tensor before, behind;
};

class TileExchange {
 public:
  /// Rank r of `group` holds tile r of `grid`. The group outlives the exchange.
  TileExchange(comm::Communicator& group, TileGrid grid);

  int ranks() const { return group_.size(); }
  const TileGrid& grid() const { return grid_; }

  /// Where a rank's tile lies in a map of these sides. throws Error for sides that are no multiples of the grid's.
  std::vector<TileSide> place(at::IntArrayRef whole_sides, int rank) const;
  std::vector<TileSide> own_place(at::IntArrayRef whole_sides) const {
    return place(whole_sides, group_.rank());
  }
  /// The sides of the map to which a tile belongs.
  std::vector<int64_t> whole_sides(const at::Tensor& tile) const;
  /// The dimension of a space axis, and all of them.
  int64_t dim_of(const at::Tensor& x, int axis) const { return x.dim() - grid_.axes() + axis; }
  std::vector<int64_t> space_dims(const at::Tensor& x) const;
  /// Each rank's share of the places of a map, [R], in type and place of `like`.
  at::Tensor shares(const at::Tensor& like) const;

  /// This rank's part of a whole map, a view.
  at::Tensor own_part(const at::Tensor& whole) const;
  /// The whole map of every rank's tile.
  at::Tensor whole_of(const at::Tensor& tile) const;
  /// x [...] of every rank -> [R, ...]
  at::Tensor gathered(const at::Tensor& x, const char* what) const;
  /// Sum over the ranks.
  at::Tensor summed(const at::Tensor& x) const;

  /// `width` rows of either neighbour along `axis`; zeros where the map ends.
  Halo borrowed(const at::Tensor& tile, int axis, int64_t width) const;
  at::Tensor extended(const at::Tensor& tile, int axis, const Halo& halo) const;
  /// The derivative of borrowing: gradients of borrowed rows go home and are added there.
  at::Tensor returned(const at::Tensor& gradient, int axis, int64_t width) const;

 private:
  at::Tensor part(const at::Tensor& whole, int rank) const;
  at::Tensor shifted(const at::Tensor& rows, int axis, int step) const;

  comm::Communicator& group_;
  TileGrid grid_;
  mutable at::Tensor shares_;  // of the last call
};

}  // namespace vitrail::parallel
