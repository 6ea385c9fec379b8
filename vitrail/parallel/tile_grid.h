#pragma once
/// A grid of cells cut into one tile a rank, and who lies beside whom; numbers only.
///
/// Tiles     axis a is cut into parts()[a] runs of floor or ceil of cells / parts cells; ranks lie on them in raster order.

#include <cstdint>
#include <optional>
#include <vector>

namespace vitrail::parallel {

/// Places [first, first + count) of one axis.
struct TileSide {
  int64_t first = 0, count = 0;
};

class TileGrid {
 public:
  /// The cut whose largest tile is smallest, then that of the fewest axes, then of the first axes. None when every cut
  /// would leave a rank without cells.
  static std::optional<TileGrid> cut(const std::vector<int64_t>& cells, int ranks);

  int axes() const { return static_cast<int>(cells_.size()); }
  const std::vector<int64_t>& cells() const { return cells_; }
  const std::vector<int>& parts() const { return parts_; }
  bool is_cut(int axis) const { return parts_[static_cast<size_t>(axis)] > 1; }
  int64_t largest_tile() const;

  /// Cells of a rank, each axis.
  std::vector<TileSide> tile(int rank) const;
  /// The rank `step` tiles further along `axis`, round the ends of the grid.
  int neighbour(int rank, int axis, int step) const;
  bool is_first(int rank, int axis) const { return place(rank, axis) == 0; }
  bool is_last(int rank, int axis) const {
    return place(rank, axis) + 1 == parts_[static_cast<size_t>(axis)];
  }

 private:
  TileGrid(std::vector<int64_t> cells, std::vector<int> parts)
      : cells_(std::move(cells)), parts_(std::move(parts)) {}
  /// Ranks between neighbours along an axis.
  int stride(int axis) const;
  int place(int rank, int axis) const {
    return rank / stride(axis) % parts_[static_cast<size_t>(axis)];
  }

  std::vector<int64_t> cells_;
  std::vector<int> parts_;
};

}  // namespace vitrail::parallel
