#pragma GCC optimize("O3,vect-cost-model=dynamic")
// Sums of importance of all cells of a tree.

#include <algorithm>

#include "vitrail/core/checked.h"
#include "vitrail/core/error.h"
#include "vitrail/kernels/vectorize.h"
#include "vitrail/patching/tree_division.h"

namespace vitrail::patching {
namespace {

constexpr int64_t kMostRows = 256;  // whose bytes fit in a sum of 16 bits

/// Rows of bytes, `stride` apart, in planes likewise.
struct Block {
  const uint8_t* first;
  int64_t rows, stride, planes, plane_stride;
};

/// sums = the sum of the rows.
VT_VECTORIZED void sum_rows(Block block, uint16_t* __restrict sums, int64_t width) {
  for (int64_t i = 0; i < width; ++i) sums[i] = 0;
  for (int64_t p = 0; p < block.planes; ++p) {
    const uint8_t* __restrict row = block.first + p * block.plane_stride;
    int64_t r = 0;
    for (; r + 4 <= block.rows; r += 4, row += 4 * block.stride) {
      const uint8_t *__restrict row1 = row + block.stride, *__restrict row2 = row1 + block.stride,
                    *__restrict row3 = row2 + block.stride;
      for (int64_t i = 0; i < width; ++i)
        sums[i] = static_cast<uint16_t>(sums[i] + row[i] + row1[i] + row2[i] + row3[i]);
    }
    for (; r < block.rows; ++r, row += block.stride)
      for (int64_t i = 0; i < width; ++i) sums[i] = static_cast<uint16_t>(sums[i] + row[i]);
  }
}

/// out[i] = in[2i] + in[2i + 1], as one number of two halves.
VT_VECTORIZED void add_pairs(const uint32_t* __restrict pairs, uint32_t* __restrict out,
                             int64_t count) {
  for (int64_t i = 0; i < count; ++i) out[i] = (pairs[i] & 0xFFFF) + (pairs[i] >> 16);
}

/// In place: values[i] = values[2i] + values[2i + 1].
void halve(uint32_t* values, int64_t count) {
  for (int64_t i = 0; i < count; ++i) values[i] = values[2 * i] + values[2 * i + 1];
}

/// sums += of each `edge` neighbours.
void add_runs(const uint32_t* values, int64_t edge, int64_t* sums, int64_t count) {
  for (int64_t i = 0; i < count; ++i)
    for (int64_t j = 0; j < edge; ++j) sums[i] += values[i * edge + j];
}

/// Adds rows of bytes to a row of cells.
class CellRow {
 public:
  CellRow(int64_t width, int64_t edge, int64_t cells)
      : width_(width),
        edge_(edge),
        cells_(cells),
        columns_(static_cast<size_t>(cells * edge), 0),
        pairs_(static_cast<size_t>(cells * edge / 2)) {}

  /// One plane of any height, or planes of kMostRows rows in all.
  void add(Block block, int64_t* sums) {
    for (int64_t rows = block.rows; rows > 0; rows -= kMostRows) {
      block.rows = std::min(kMostRows, rows);
      sum_rows(block, columns_.data(), width_);
      block.first += block.rows * block.stride;
      int64_t run = edge_ / 2, count = cells_ * run;
      // Two sums beside each other are read as one number; which comes first does not matter.
      add_pairs(reinterpret_cast<const Pairs*>(columns_.data()), pairs_.data(), count);
      for (; run % 2 == 0; run /= 2) halve(pairs_.data(), count /= 2);
      add_runs(pairs_.data(), run, sums, cells_);
    }
  }

 private:
  using Pairs [[gnu::may_alias]] = uint32_t;
  int64_t width_, edge_, cells_;
  std::vector<uint16_t> columns_;  // beyond the image's end 0
  std::vector<uint32_t> pairs_;
};

/// The first level of cells that are worth a sum whether or not it is asked for.
int32_t finest_level(const TreeShape& shape) {
  constexpr int64_t kFewPixels = 256;
  int32_t level = 1;
  const auto pixels = [&] {
    const int64_t edge = shape.min_leaf << level;
    return edge >= kFewPixels ? kFewPixels : shape.axes == 3 ? edge * edge * edge : edge * edge;
  };
  while (level < shape.top && pixels() < kFewPixels) ++level;
  return level;
}

/// A level of 1 or above, whose cells have an even edge.
std::vector<int64_t> finest_sums(std::span<const uint8_t> importance, const TreeShape& shape,
                                 int32_t level) {
  const int64_t edge = shape.min_leaf << level, depth = shape.sides[0], height = shape.sides[1],
                width = shape.sides[2];
  const int32_t* grid = shape.grid[level];
  const int64_t planes = edge <= kMostRows / edge ? edge : 1;
  std::vector<int64_t> sums(static_cast<size_t>(shape.cells(level)), 0);
  CellRow cells(width, edge, grid[2]);
  for (int64_t z = 0; z < depth; z += planes)
    for (int64_t y = 0; y < grid[1]; ++y)
      cells.add(
          {importance.data() + (z * height + y * edge) * width, std::min(edge, height - y * edge),
           width, std::min(planes, depth - z), height * width},
          sums.data() + (z / edge * grid[1] + y) * grid[2]);
  return sums;
}

std::vector<int64_t> coarser_sums(const std::vector<int64_t>& fine, const TreeShape& shape,
                                  int32_t level) {
  const int32_t* grid = shape.grid[level];
  const int32_t* fine_grid = shape.grid[level - 1];
  std::vector<int64_t> sums(static_cast<size_t>(shape.cells(level)), 0);
  const int64_t* value = fine.data();
  for (int64_t z = 0; z < fine_grid[0]; ++z)
    for (int64_t y = 0; y < fine_grid[1]; ++y) {
      int64_t* row = sums.data() + (z / 2 * grid[1] + y / 2) * grid[2];
      for (int64_t x = 0; x < fine_grid[2]; ++x) row[x / 2] += *value++;
    }
  return sums;
}

}  // namespace

SumPyramid::SumPyramid(std::span<const uint8_t> importance, const TreeShape& shape)
    : importance_(importance) {
  VT_CHECK(std::ssize(importance) == core::checked_product(shape.sides, "pixels of an image"),
           "[patching] an image of {} x {} x {} needs as many importance values but got {}",
           shape.sides[0], shape.sides[1], shape.sides[2], importance.size());
  if (shape.top == 0) return;
  finest_ = finest_level(shape);
  levels_[static_cast<size_t>(finest_)] = finest_sums(importance, shape, finest_);
  for (int32_t level = finest_ + 1; level <= shape.top; ++level)
    levels_[static_cast<size_t>(level)] =
        coarser_sums(levels_[static_cast<size_t>(level - 1)], shape, level);
}

int64_t SumPyramid::pixel_sum(const TreeShape& shape, const Cell& cell) const {
  const int64_t edge = shape.min_leaf << cell.level;
  int64_t low[3], high[3];
  for (int axis = 0; axis < 3; ++axis) {
    low[axis] = cell.at[axis] * edge;
    high[axis] = std::min(low[axis] + edge, shape.sides[axis]);
  }
  uint32_t sum = 0;  // of few pixels
  for (int64_t z = low[0]; z < high[0]; ++z)
    for (int64_t y = low[1]; y < high[1]; ++y) {
      const uint8_t* row = importance_.data() + (z * shape.sides[1] + y) * shape.sides[2];
      for (int64_t x = low[2]; x < high[2]; ++x) sum += row[x];
    }
  return sum;
}

SumPyramid::Scores SumPyramid::scores() const { return Scores(*this); }

}  // namespace vitrail::patching
