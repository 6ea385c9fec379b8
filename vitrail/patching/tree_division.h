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

/// Sums of importance of the cells of the levels that may be divided, 1 to shape.top.
class SumPyramid {
 public:
  /// importance [sides...].
  SumPyramid(std::span<const uint8_t> importance, const TreeShape& shape);
  LevelScores<int64_t> scores() const;

 private:
  std::array<std::vector<int64_t>, kMostLevels> levels_;
};

/// Divides from the cells of shape.top until `count` leaves are reached or none is left that may be
/// divided. Returns the keys of the leaves in order (tree_cells.h).
template <class Score>
std::vector<int64_t> divided(const TreeShape& shape, const LevelScores<Score>& scores,
                             int64_t count, int64_t value_floor, Order order);

extern template std::vector<int64_t> divided(const TreeShape&, const LevelScores<int64_t>&, int64_t,
                                             int64_t, Order);
extern template std::vector<int64_t> divided(const TreeShape&, const LevelScores<float>&, int64_t,
                                             int64_t, Order);

/// Boxes [L, 2k] of keys; what is left of `boxes` becomes padding.
void write_boxes(const TreeShape& shape, Order order, std::span<const int64_t> keys,
                 std::span<float> boxes);

}  // namespace vitrail::patching
