#pragma once
/// The greedy division on the CPU, over sums of importance or over given scores, one sample a call.

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "vitrail/patching/tree_cells.h"

namespace vitrail::patching {

/// The tree over an image of 2 or 3 sides: one cell at the top, the smallest that covers it.
/// throws   Error for other sides, sides or min_leaf below 1, more than 2^20 cells along an axis.
TreeShape tree_shape(std::span<const int64_t> sides, int64_t min_leaf);

/// Trees over a grid of `coarsest` cells of edge min_leaf << top; they fill the image.
/// throws   Error as above.
TreeShape forest_shape(std::span<const int64_t> coarsest, int64_t min_leaf, int32_t top);

/// Sums of importance of the cells of the levels that may be divided, 1 to shape.top: of large cells all at once, of
/// small ones when they are asked for, because few are.
class SumPyramid {
 public:
  /// importance [sides...], which is read later too.
  SumPyramid(std::span<const uint8_t> importance, const TreeShape& shape);

  class Scores;
  Scores scores() const;

 private:
  int64_t pixel_sum(const TreeShape& shape, const Cell& cell) const;

  std::span<const uint8_t> importance_;
  int32_t finest_ = 0;  // level whose sums are kept
  std::array<std::vector<int64_t>, kMostLevels> levels_;
};

/// A view of a pyramid, of the shape it was made for.
class SumPyramid::Scores {
 public:
  explicit Scores(const SumPyramid& sums) : sums_(&sums) {}

  int64_t sum(const TreeShape& shape, const Cell& cell) const {
    if (cell.level < sums_->finest_) return sums_->pixel_sum(shape, cell);
    return sums_
        ->levels_[static_cast<size_t>(cell.level)][static_cast<size_t>(index_of(shape, cell))];
  }
  /// As LevelScores.
  uint64_t rank(const TreeShape& shape, int64_t, const Cell& cell, int64_t value_floor) const {
    return cell.level == 0 ? 0 : rank_of(sum(shape, cell), value_floor);
  }

 private:
  const SumPyramid* sums_;
};

/// Divides from the cells of shape.top until `count` leaves are reached or none is left that may be
/// divided. Returns the keys of the leaves in order (tree_cells.h).
/// Scores: LevelScores<float> or SumPyramid::Scores.
template <class Scores>
std::vector<int64_t> divided(const TreeShape& shape, const Scores& scores, int64_t count,
                             int64_t value_floor, Order order);

extern template std::vector<int64_t> divided(const TreeShape&, const SumPyramid::Scores&, int64_t,
                                             int64_t, Order);
extern template std::vector<int64_t> divided(const TreeShape&, const LevelScores<float>&, int64_t,
                                             int64_t, Order);

/// Boxes [L, 2k] of keys; what is left of `boxes` becomes padding.
void write_boxes(const TreeShape& shape, Order order, std::span<const int64_t> keys,
                 std::span<float> boxes);

}  // namespace vitrail::patching
