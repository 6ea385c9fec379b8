#pragma once
/// Maps divided into tiles over ranks: convolutions borrow the rows next to a tile from its neighbours (its halo), norms
/// and losses add up over all of them.
///
/// Paper     tiles with halos: Wang et al. 2025, arXiv:2505.04802 (TILES).
/// Differs   there a tile is read with a halo that is cropped at the end, and tiles know nothing else of each other; here
///           rows are exchanged before each convolution and norms see the whole map, so the result is that of one rank.
/// Corners   axes are exchanged one after another, rows that were borrowed included, so corners arrive in two turns.
/// Memory    a convolution keeps its tile and the borrowed rows for backward; a norm its tile and two numbers a channel.
/// Sends     a convolution of K: 2 (K / 2) rows of the tile for each cut axis, forward and back; a norm 2 B C numbers.

#include <utility>

#include <ATen/core/Tensor.h>

#include "vitrail/comm/communicator.h"
#include "vitrail/nn/tiles.h"
#include "vitrail/parallel/tile_exchange.h"
#include "vitrail/parallel/tile_grid.h"

namespace vitrail::parallel {

class HaloTiles : public nn::Tiles {
 public:
  /// Rank r of `group` holds tile r of `grid`. The group outlives the tiles, they every pass that uses them.
  HaloTiles(comm::Communicator& group, TileGrid grid) : exchange_(group, std::move(grid)) {}
  HaloTiles(const HaloTiles&) = delete;
  HaloTiles& operator=(const HaloTiles&) = delete;

  /// throws Error for sides that are no multiples of the grid's.
  at::Tensor enter(const at::Tensor& whole) override;
  at::Tensor leave(const at::Tensor& tile) override;
  /// throws Error when a tile has fewer rows than its neighbours borrow.
  at::Tensor conv(const at::Tensor& tile, const at::Tensor& weight,
                  const at::Tensor& bias) override;
  at::Tensor instance_norm(const at::Tensor& tile) override;
  at::Tensor resize(const at::Tensor& tile, at::IntArrayRef sides) override;
  at::Tensor sum(const at::Tensor& of_tile) override;

  /// The tile with `width` rows of the neighbours on either side along `axis`; zeros beyond the ends of the map.
  at::Tensor with_halo(const at::Tensor& tile, int axis, int64_t width);

  const TileGrid& grid() const { return exchange_.grid(); }

 private:
  TileExchange exchange_;
};

}  // namespace vitrail::parallel
