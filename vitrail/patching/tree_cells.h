#pragma once
/// The cells of a tree as numbers: what CPU and GPU share, so that both divide alike.
///
/// Axes     those of a volume. An image is a volume of one plane: a quadtree is an octree half of whose
///          children do not exist.
/// Name     of a cell: 1, then three bits for each level from the coarsest down (first axis highest).
///          So of two cells the larger has the lesser name, and among equally large ones names go in
///          Morton order.
/// Key      of a leaf: leaves sorted by it are in order; it tells the leaf's place and level.

#include <cstdint>

#include "vitrail/core/philox.h"  // VT_HOST_DEVICE
#include "vitrail/patching/tree.h"

namespace vitrail::patching {

constexpr int32_t kMostLevels = 21;
constexpr int64_t kMostCells = int64_t{1}
                               << (kMostLevels - 1);  // along an axis: a name has 61 bits

struct TreeShape {
  int64_t sides[3] = {1, 1, 1};  // pixels
  int64_t min_leaf = 1;
  int32_t axes = 2;
  int32_t top = 0;                 // the level that division begins with
  int32_t root_bits = 0;           // of an axis, to number the cells of that level
  int32_t most_parts = 1;          // of a cell
  int32_t grid[kMostLevels][3]{};  // cells of each level; level l has edge min_leaf << l

  VT_HOST_DEVICE int64_t cells(int32_t level) const {
    return int64_t{grid[level][0]} * grid[level][1] * grid[level][2];
  }
};

struct Cell {
  int32_t level, at[3];
};

VT_HOST_DEVICE inline int64_t index_of(const TreeShape& shape, const Cell& cell) {
  const int32_t* grid = shape.grid[cell.level];
  return (int64_t{cell.at[0]} * grid[1] + cell.at[1]) * grid[2] + cell.at[2];
}

VT_HOST_DEVICE inline Cell cell_at(const TreeShape& shape, int32_t level, int64_t index) {
  const int32_t* grid = shape.grid[level];
  const int64_t row = index / grid[2];
  return {level,
          {static_cast<int32_t>(row / grid[1]), static_cast<int32_t>(row % grid[1]),
           static_cast<int32_t>(index % grid[2])}};
}

/// 21 bits, two empty ones between each.
VT_HOST_DEVICE constexpr uint64_t spread_bits(uint64_t bits) {
  bits = (bits | bits << 32) & 0x001F00000000FFFF;
  bits = (bits | bits << 16) & 0x001F0000FF0000FF;
  bits = (bits | bits << 8) & 0x100F00F00F00F00F;
  bits = (bits | bits << 4) & 0x10C30C30C30C30C3;
  return (bits | bits << 2) & 0x1249249249249249;
}
/// The inverse, for any bits in between.
VT_HOST_DEVICE constexpr int32_t gather_bits(uint64_t bits) {
  bits &= 0x1249249249249249;
  bits = (bits | bits >> 2) & 0x10C30C30C30C30C3;
  bits = (bits | bits >> 4) & 0x100F00F00F00F00F;
  bits = (bits | bits >> 8) & 0x001F0000FF0000FF;
  bits = (bits | bits >> 16) & 0x001F00000000FFFF;
  return static_cast<int32_t>((bits | bits >> 32) & 0x1FFFFF);
}

VT_HOST_DEVICE inline uint64_t morton_code(const Cell& cell) {
  return spread_bits(static_cast<uint64_t>(cell.at[0])) << 2 |
         spread_bits(static_cast<uint64_t>(cell.at[1])) << 1 |
         spread_bits(static_cast<uint64_t>(cell.at[2]));
}
VT_HOST_DEVICE inline Cell cell_of_code(int32_t level, uint64_t code) {
  return {level, {gather_bits(code >> 2), gather_bits(code >> 1), gather_bits(code)}};
}

VT_HOST_DEVICE inline uint64_t name_of(const TreeShape& shape, const Cell& cell) {
  return uint64_t{1} << 3 * (shape.root_bits + shape.top - cell.level) | morton_code(cell);
}
VT_HOST_DEVICE inline Cell cell_of(const TreeShape& shape, uint64_t name) {
#if defined(__CUDA_ARCH__)
  const int32_t depth = (63 - __clzll(static_cast<long long>(name))) / 3;
#else
  const int32_t depth = (63 - __builtin_clzll(name)) / 3;
#endif
  return cell_of_code(shape.root_bits + shape.top - depth, name ^ uint64_t{1} << 3 * depth);
}

/// Children along each axis: at the image's end there may be one alone. Not of level 0.
struct Parts {
  int32_t along[3];
  VT_HOST_DEVICE int32_t count() const { return along[0] * along[1] * along[2]; }
};

VT_HOST_DEVICE inline Parts parts_of(const TreeShape& shape, const Cell& cell) {
  Parts parts;
  for (int axis = 0; axis < 3; ++axis)
    parts.along[axis] = 2 * cell.at[axis] + 1 < shape.grid[cell.level - 1][axis] ? 2 : 1;
  return parts;
}

/// Child i of parts.count(), in Morton order.
VT_HOST_DEVICE inline Cell child_of(const Cell& cell, const Parts& parts, int32_t i) {
  Cell child{cell.level - 1, {}};
  for (int axis = 2; axis >= 0; --axis) {
    child.at[axis] = 2 * cell.at[axis] + i % parts.along[axis];
    i /= parts.along[axis];
  }
  return child;
}

/// How soon a leaf is divided: larger goes first, of equals the lesser name; 0 is never divided.
VT_HOST_DEVICE inline uint64_t rank_of(int64_t sum, int64_t value_floor) {
  return sum > value_floor ? static_cast<uint64_t>(sum) + 1 : 0;
}
/// Scores have no floor. NaN counts as the least.
VT_HOST_DEVICE inline uint64_t rank_of(float score, int64_t) {
  if (!(score == score)) return 1;
  union {
    float value;
    uint32_t bits;
  } pun;
  pun.value = score + 0.0f;  // -0 becomes 0
  return uint64_t{pun.bits & 0x80000000u ? ~pun.bits : pun.bits | 0x80000000u} + 2;
}

/// Scores of all cells, row-major; level 0 is not looked at. Sample b has its own row in each level.
template <class Score>
struct LevelScores {
  const Score* levels[kMostLevels]{};

  VT_HOST_DEVICE uint64_t rank(const TreeShape& shape, int64_t b, const Cell& cell,
                               int64_t value_floor) const {
    if (cell.level == 0) return 0;
    return rank_of(levels[cell.level][b * shape.cells(cell.level) + index_of(shape, cell)],
                   value_floor);
  }
};

/// Of no leaf.
constexpr int64_t kNoKey = INT64_MAX;

VT_HOST_DEVICE inline int64_t key_of(const TreeShape& shape, Order order, const Cell& cell) {
  // The lowest bit that is set tells the level: below it the code of a corner has only zeros.
  if (order == Order::morton)
    return static_cast<int64_t>((morton_code(cell) << 1 | 1) << 3 * cell.level);
  const Cell corner{0,
                    {cell.at[0] << cell.level, cell.at[1] << cell.level, cell.at[2] << cell.level}};
  return index_of(shape, corner) * 32 + cell.level;
}

VT_HOST_DEVICE inline Cell leaf_of(const TreeShape& shape, Order order, int64_t key) {
  if (order == Order::raster) {
    Cell leaf = cell_at(shape, 0, key / 32);
    leaf.level = static_cast<int32_t>(key % 32);
    for (int32_t& i : leaf.at) i >>= leaf.level;
    return leaf;
  }
  const auto bits = static_cast<uint64_t>(key);
  int32_t level = 0;
  while ((bits >> 3 * level & 1) == 0) ++level;
  return cell_of_code(level, bits >> (3 * level + 1));
}

/// Lows, then highs, of shape.axes axes; all 0 for kNoKey.
template <class Number>
VT_HOST_DEVICE void write_box(const TreeShape& shape, Order order, int64_t key, Number* box) {
  const int32_t axes = shape.axes;
  if (key == kNoKey) {
    for (int32_t i = 0; i < 2 * axes; ++i) box[i] = 0;
    return;
  }
  const Cell leaf = leaf_of(shape, order, key);
  const int64_t edge = shape.min_leaf << leaf.level;
  for (int32_t axis = 0; axis < axes; ++axis) {
    const int64_t low = leaf.at[3 - axes + axis] * edge, side = shape.sides[3 - axes + axis];
    box[axis] = static_cast<Number>(low);
    box[axes + axis] = static_cast<Number>(low + edge < side ? low + edge : side);
  }
}

}  // namespace vitrail::patching
