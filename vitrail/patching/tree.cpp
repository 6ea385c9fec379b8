#include "vitrail/patching/tree.h"

#include <algorithm>

#include "vitrail/core/error.h"
#include "vitrail/patching/tree_division.h"

namespace vitrail::patching {

template <int K>
std::vector<Box<K>> grow_tree(std::span<const uint8_t> importance,
                              const std::array<int64_t, K>& sides, const TreeOptions& options) {
  VT_CHECK(options.fixed_length >= 1, "[patching] fixed_length must be at least 1 but got {}",
           options.fixed_length);
  const TreeShape shape = tree_shape(sides, options.min_leaf);
  const SumPyramid sums(importance, shape);
  const std::vector<int64_t> keys =
      divided(shape, sums.scores(), options.fixed_length, options.value_floor, options.order);
  std::vector<Box<K>> boxes;
  boxes.reserve(keys.size());
  for (const int64_t key : keys) {
    int64_t corners[2 * K];
    write_box(shape, options.order, key, corners);
    Box<K>& box = boxes.emplace_back();
    std::copy_n(corners, K, box.low.begin());
    std::copy_n(corners + K, K, box.high.begin());
  }
  return boxes;
}

template std::vector<Box<2>> grow_tree<2>(std::span<const uint8_t>, const std::array<int64_t, 2>&,
                                          const TreeOptions&);
template std::vector<Box<3>> grow_tree<3>(std::span<const uint8_t>, const std::array<int64_t, 3>&,
                                          const TreeOptions&);

}  // namespace vitrail::patching
