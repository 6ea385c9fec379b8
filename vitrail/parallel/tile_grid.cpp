#include "vitrail/parallel/tile_grid.h"

#include <algorithm>
#include <functional>
#include <tuple>

namespace vitrail::parallel {
namespace {

/// Every way to write `ranks` as a product of one number of parts an axis, more of them on the first axes first.
void for_each_cut(int ranks, size_t axes, std::vector<int>& parts,
                  const std::function<void()>& visit) {
  if (parts.size() + 1 == axes) {
    parts.push_back(ranks);
    visit();
    parts.pop_back();
    return;
  }
  for (int here = ranks; here >= 1; --here) {
    if (ranks % here != 0) continue;
    parts.push_back(here);
    for_each_cut(ranks / here, axes, parts, visit);
    parts.pop_back();
  }
}

}  // namespace

std::optional<TileGrid> TileGrid::cut(const std::vector<int64_t>& cells, int ranks) {
  std::optional<TileGrid> best;
  const auto cost = [](const TileGrid& grid) {
    return std::tuple(grid.largest_tile(),
                      std::ranges::count_if(grid.parts_, [](int parts) { return parts > 1; }));
  };
  std::vector<int> parts;
  if (cells.empty()) return best;
  for_each_cut(ranks, cells.size(), parts, [&] {
    for (size_t axis = 0; axis < cells.size(); ++axis)
      if (parts[axis] > cells[axis]) return;
    TileGrid grid(cells, parts);
    if (!best || cost(grid) < cost(*best)) best = std::move(grid);
  });
  return best;
}

int64_t TileGrid::largest_tile() const {
  int64_t size = 1;
  for (size_t axis = 0; axis < cells_.size(); ++axis)
    size *= (cells_[axis] + parts_[axis] - 1) / parts_[axis];
  return size;
}

std::vector<TileSide> TileGrid::tile(int rank) const {
  std::vector<TileSide> sides;
  for (int axis = 0; axis < axes(); ++axis) {
    const int64_t cells = cells_[static_cast<size_t>(axis)];
    const int64_t parts = parts_[static_cast<size_t>(axis)], own = place(rank, axis);
    const int64_t first = own * cells / parts;
    sides.push_back({first, (own + 1) * cells / parts - first});
  }
  return sides;
}

int TileGrid::neighbour(int rank, int axis, int step) const {
  const int parts = parts_[static_cast<size_t>(axis)], own = place(rank, axis);
  return rank + ((own + step % parts + parts) % parts - own) * stride(axis);
}

int TileGrid::stride(int axis) const {
  int ranks = 1;
  for (size_t behind = static_cast<size_t>(axis) + 1; behind < parts_.size(); ++behind)
    ranks *= parts_[behind];
  return ranks;
}

}  // namespace vitrail::parallel
