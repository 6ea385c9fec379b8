#pragma once
/// Quadtree (K = 2) or octree (K = 3) over an image: small leaves where importance lies, large ones
/// elsewhere.
///
/// Paper    Zhang et al. 2024, arXiv:2404.09707 (adaptive patch framework).
/// Cells    of level l have edge min_leaf * 2^l and lie on a grid from the image's first pixel. The
///          root is the smallest cell that covers the image; cells end where the image ends, and cells
///          without a pixel do not exist. So an image may have any sides; where each side is min_leaf *
///          2^l, one l for all, leaves are squares or cubes.
/// Split    the leaf of the largest importance sum goes first; of equals the larger cell, of those the
///          first in Morton order. Leaves of edge min_leaf, of a sum up to value_floor, or whose split
///          would make too many leaves are passed over. It ends when none is left.
/// Count    a split of a cell inside the image adds 2^K - 1 leaves, so 1 + 3 n (K = 2) or 1 + 7 n (K =
///          3) leaves are reached exactly where the image has as many cells.
/// Time     O(pixels) for the sums, then O(leaves log leaves); small cells are summed when they are asked for.
/// Memory   8 bytes for each cell of 256 pixels or more.
/// Differs  UCF-VIT: goes on when the most important leaf is minimal, leaves the uniform tree to a
///          constant image, min_leaf is free (2 there).

#include <array>
#include <cstdint>
#include <span>
#include <vector>

namespace vitrail::patching {

/// morton: by the interleaved bits of the low corner, last axis lowest: depth first, low to high.
/// raster: by the low corner, first axis first.
enum class Order { morton, raster };

struct TreeOptions {
  int64_t fixed_length = 0;  // most leaves
  int64_t min_leaf = 16;
  int64_t value_floor = -1;  // -1: leaves without importance are split too, when room is left
  Order order = Order::morton;
};

/// Pixels low (included) to high (not included).
template <int K>
struct Box {
  std::array<int64_t, K> low{}, high{};
  bool operator==(const Box&) const = default;
};

/// importance [sides...], 0 ... 255 a pixel -> leaves in order, at least one, at most fixed_length.
/// throws   Error for sides below 1, a span of another size, more than 2^20 cells along an axis,
///          fixed_length or min_leaf below 1.
template <int K>
std::vector<Box<K>> grow_tree(std::span<const uint8_t> importance,
                              const std::array<int64_t, K>& sides, const TreeOptions& options);

extern template std::vector<Box<2>> grow_tree<2>(std::span<const uint8_t>,
                                                 const std::array<int64_t, 2>&, const TreeOptions&);
extern template std::vector<Box<3>> grow_tree<3>(std::span<const uint8_t>,
                                                 const std::array<int64_t, 3>&, const TreeOptions&);

}  // namespace vitrail::patching
