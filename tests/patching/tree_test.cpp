// Trees against a brute force that scans all leaves and adds up all pixels at every step.

#include "vitrail/patching/tree.h"

#include <algorithm>
#include <bit>
#include <chrono>
#include <limits>
#include <map>
#include <numeric>

#include <fmt/ranges.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include "vitrail/core/error.h"
#include "vitrail/core/philox.h"
#include "vitrail/patching/tree_division.h"

namespace vitrail::patching {
namespace {

constexpr core::DrawKey kKey{5, core::Stream::test, 0, 1};

uint32_t draw_below(uint64_t sample, uint32_t element, uint32_t count) {
  return core::draw(kKey, sample, element) % count;
}

template <int K>
using Sides = std::array<int64_t, K>;

template <int K>
int64_t volume(const Sides<K>& sides) {
  return std::accumulate(sides.begin(), sides.end(), int64_t{1}, std::multiplies<>());
}

/// Calls body(index) for every pixel of a box.
template <int K, class Body>
void for_pixels(const Box<K>& box, const Sides<K>& sides, Body&& body) {
  Sides<K> place = box.low;
  for (;;) {
    int64_t index = 0;
    for (int axis = 0; axis < K; ++axis) index = index * sides[axis] + place[axis];
    body(static_cast<size_t>(index));
    int axis = K - 1;
    while (axis >= 0 && ++place[axis] == box.high[axis]) place[axis] = box.low[axis], --axis;
    if (axis < 0) return;
  }
}

/// Few bright spots on nothing, so that there are ties, zeros and deep branches.
template <int K>
std::vector<uint8_t> spots(const Sides<K>& sides, uint64_t sample) {
  std::vector<uint8_t> importance(static_cast<size_t>(volume<K>(sides)), 0);
  const uint32_t count = draw_below(sample, 0, 40);
  for (uint32_t i = 0; i < count; ++i)
    importance[draw_below(sample, i + 1, static_cast<uint32_t>(importance.size()))] =
        static_cast<uint8_t>(1 + draw_below(sample, 1000 + i, 3));
  return importance;
}

template <int K>
void expect_tiling(const std::vector<Box<K>>& leaves, const Sides<K>& sides) {
  std::vector<int> covered(static_cast<size_t>(volume<K>(sides)), 0);
  for (const Box<K>& leaf : leaves) for_pixels<K>(leaf, sides, [&](size_t i) { ++covered[i]; });
  EXPECT_EQ(std::count(covered.begin(), covered.end(), 1), std::ssize(covered));
}

/// A leaf of the brute force: the whole cell, of which only what is in the image counts.
template <int K>
struct PlainCell {
  Sides<K> low;
  int64_t edge;

  Box<K> box(const Sides<K>& sides) const {
    Box<K> box{low, low};
    for (int axis = 0; axis < K; ++axis) box.high[axis] = std::min(low[axis] + edge, sides[axis]);
    return box;
  }
};

/// Child cells with at least one pixel, the last axis changing fastest.
template <int K>
std::vector<PlainCell<K>> children(const PlainCell<K>& cell, const Sides<K>& sides) {
  std::vector<PlainCell<K>> found;
  for (int corner = 0; corner < 1 << K; ++corner) {
    PlainCell<K> child{cell.low, cell.edge / 2};
    bool exists = true;
    for (int axis = 0; axis < K; ++axis) {
      child.low[axis] += (corner >> (K - 1 - axis) & 1) * child.edge;
      exists = exists && child.low[axis] < sides[axis];
    }
    if (exists) found.push_back(child);
  }
  return found;
}

/// A cell with one child alone is that child.
template <int K>
PlainCell<K> shrunk(PlainCell<K> cell, const Sides<K>& sides, int64_t min_leaf) {
  while (cell.edge > min_leaf) {
    const std::vector<PlainCell<K>> parts = children<K>(cell, sides);
    if (parts.size() > 1) break;
    cell = parts[0];
  }
  return cell;
}

/// A list in which children take their parent's place: depth-first order, as in the definition.
template <int K>
std::vector<Box<K>> brute_force(const std::vector<uint8_t>& importance, const Sides<K>& sides,
                                const TreeOptions& options) {
  int64_t edge = options.min_leaf;
  while (edge < *std::max_element(sides.begin(), sides.end())) edge *= 2;
  std::vector<PlainCell<K>> leaves{shrunk<K>({{}, edge}, sides, options.min_leaf)};
  for (;;) {
    size_t best = leaves.size();
    int64_t best_sum = -1;
    for (size_t i = 0; i < leaves.size(); ++i) {
      int64_t sum = 0;
      for_pixels<K>(leaves[i].box(sides), sides, [&](size_t p) { sum += importance[p]; });
      const int64_t count = std::ssize(leaves) - 1 + std::ssize(children<K>(leaves[i], sides));
      if (leaves[i].edge == options.min_leaf || sum <= options.value_floor ||
          count > options.fixed_length)
        continue;
      if (sum > best_sum || (sum == best_sum && leaves[i].edge > leaves[best].edge))
        best = i, best_sum = sum;
    }
    if (best == leaves.size()) break;
    std::vector<PlainCell<K>> parts = children<K>(leaves[best], sides);
    for (PlainCell<K>& part : parts) part = shrunk<K>(part, sides, options.min_leaf);
    leaves.erase(leaves.begin() + static_cast<std::ptrdiff_t>(best));
    leaves.insert(leaves.begin() + static_cast<std::ptrdiff_t>(best), parts.begin(), parts.end());
  }
  std::vector<Box<K>> boxes;
  for (const PlainCell<K>& leaf : leaves) boxes.push_back(leaf.box(sides));
  return boxes;
}

/// Bits of the low corner interleaved one by one, the last axis lowest.
template <int K>
uint64_t plain_morton_code(const Box<K>& box) {
  uint64_t code = 0;
  for (int bit = 20; bit >= 0; --bit)
    for (int axis = 0; axis < K; ++axis)
      code = code << 1 | (static_cast<uint64_t>(box.low[axis]) >> bit & 1);
  return code;
}

template <int K>
void expect_morton_order(const std::vector<Box<K>>& leaves) {
  for (size_t i = 1; i < leaves.size(); ++i)
    EXPECT_LT(plain_morton_code<K>(leaves[i - 1]), plain_morton_code<K>(leaves[i]));
}

/// Every leaf is a cell or the part of it in the image, no smaller cell than min_leaf.
template <int K>
void expect_cells(const std::vector<Box<K>>& leaves, const Sides<K>& sides, int64_t min_leaf) {
  for (const Box<K>& leaf : leaves) {
    int64_t edge = min_leaf;
    for (int axis = 0; axis < K; ++axis)
      while (edge < leaf.high[axis] - leaf.low[axis]) edge *= 2;
    for (int axis = 0; axis < K; ++axis) {
      EXPECT_EQ(leaf.low[axis] % min_leaf, 0);
      EXPECT_TRUE(leaf.high[axis] == sides[axis] || leaf.high[axis] - leaf.low[axis] == edge);
    }
  }
}

template <int K>
void expect_brute_force(uint64_t samples, uint32_t largest_side, uint32_t most_leaves) {
  int64_t leaves = 0;
  for (uint64_t sample = 0; sample < samples; ++sample) {
    Sides<K> sides;
    for (int axis = 0; axis < K; ++axis)
      sides[axis] = 1 + draw_below(sample, 2000 + static_cast<uint32_t>(axis), largest_side);
    TreeOptions options;
    options.fixed_length = 1 + draw_below(sample, 2010, most_leaves);
    options.min_leaf = 1 + draw_below(sample, 2011, 4);
    options.value_floor = static_cast<int64_t>(draw_below(sample, 2012, 3)) - 1;
    const std::vector<uint8_t> importance = spots<K>(sides, sample);
    const auto boxes = grow_tree<K>(importance, sides, options);
    EXPECT_EQ(boxes, brute_force<K>(importance, sides, options)) << "sample " << sample;
    EXPECT_EQ(boxes, grow_tree<K>(importance, sides, options));
    EXPECT_LE(std::ssize(boxes), options.fixed_length);
    expect_tiling<K>(boxes, sides);
    if (std::has_single_bit(static_cast<uint64_t>(options.min_leaf))) expect_morton_order<K>(boxes);
    expect_cells<K>(boxes, sides, options.min_leaf);
    leaves += std::ssize(boxes);
    options.order = Order::raster;
    auto raster = grow_tree<K>(importance, sides, options);
    EXPECT_TRUE(std::is_sorted(raster.begin(), raster.end(),
                               [](const auto& a, const auto& b) { return a.low < b.low; }));
    EXPECT_TRUE(std::is_permutation(raster.begin(), raster.end(), boxes.begin(), boxes.end()));
  }
  std::printf("%llu trees, %lld leaves\n", static_cast<unsigned long long>(samples),
              static_cast<long long>(leaves));
}

TEST(Tree, OfRandomImagesIsTheBruteForcesAndTilesThem) { expect_brute_force<2>(300, 70, 60); }
TEST(Tree, OfRandomVolumesIsTheBruteForcesAndTilesThem) { expect_brute_force<3>(150, 24, 80); }

TEST(Tree, ReachesItsLengthExactly) {
  const Sides<2> image{64, 64};
  const Sides<3> cube{32, 32, 32};
  for (const int64_t splits : {0, 1, 5, 21, 85}) {
    TreeOptions options{1 + 3 * splits, 4};
    EXPECT_EQ(std::ssize(grow_tree<2>(spots<2>(image, 3), image, options)), 1 + 3 * splits);
    options.fixed_length = 1 + 7 * splits;
    options.min_leaf = 2;
    EXPECT_EQ(std::ssize(grow_tree<3>(spots<3>(cube, 3), cube, options)), 1 + 7 * splits);
  }
  // One and two places that no split fits stay empty.
  EXPECT_EQ(std::ssize(grow_tree<2>(spots<2>(image, 3), image, {99, 4})), 97);
}

TEST(Tree, OfAConstantImageIsUniform) {
  const Sides<2> sides{64, 64};
  const std::vector<uint8_t> nothing(64 * 64, 0);
  const auto leaves = grow_tree<2>(nothing, sides, {64, 4});
  ASSERT_EQ(leaves.size(), 64u);
  for (const Box<2>& leaf : leaves) EXPECT_EQ(leaf.high[0] - leaf.low[0], 8);
}

TEST(Tree, GoesOnWithTheNextBestLeafWhenTheBestIsMinimal) {
  const Sides<2> sides{64, 64};
  std::vector<uint8_t> importance(64 * 64, 0);
  importance[17 * 64 + 17] = 255;
  importance[40 * 64 + 40] = 1;
  const auto leaves = grow_tree<2>(importance, sides, {196, 2});
  EXPECT_EQ(leaves.size(), 196u);
  std::map<int64_t, int> sizes;
  for (const Box<2>& leaf : leaves) ++sizes[leaf.high[0] - leaf.low[0]];
  EXPECT_GE(sizes[2], 8);  // both spots were followed to the end
}

TEST(Tree, StopsAtTheValueFloor) {
  const Sides<2> sides{64, 64};
  std::vector<uint8_t> importance(64 * 64, 0);
  importance[0] = 1;
  TreeOptions options{196, 4};
  options.value_floor = 0;
  EXPECT_EQ(grow_tree<2>(importance, sides, options).size(), 13u);  // 64 -> 4 in four splits
}

TEST(Tree, NumbersLeavesInMortonOrder) {
  const Sides<2> sides{8, 8};
  std::vector<uint8_t> importance(64, 0);
  importance[5] = 9;  // row 0, column 5
  const std::vector<Box<2>> expected{{{0, 0}, {4, 4}}, {{0, 4}, {2, 6}}, {{0, 6}, {2, 8}},
                                     {{2, 4}, {4, 6}}, {{2, 6}, {4, 8}}, {{4, 0}, {8, 4}},
                                     {{4, 4}, {8, 8}}};
  EXPECT_EQ(grow_tree<2>(importance, sides, {7, 2}), expected);
}

TEST(Tree, CellsEndWhereTheImageEnds) {
  const std::vector<uint8_t> importance(5 * 9, 1);
  const std::vector<Box<2>> expected{{{0, 0}, {4, 4}}, {{0, 4}, {4, 8}}, {{4, 0}, {5, 4}},
                                     {{4, 4}, {5, 8}}, {{0, 8}, {4, 9}}, {{4, 8}, {5, 9}}};
  EXPECT_EQ(grow_tree<2>(importance, {5, 9}, {100, 4}), expected);
}

TEST(Tree, FollowsASingleBrightPixel) {
  for (const int64_t place : {0, 63, 64 * 31 + 17, 64 * 64 - 1}) {
    std::vector<uint8_t> importance(64 * 64, 0);
    importance[static_cast<size_t>(place)] = 255;
    TreeOptions options{1000, 1};
    options.value_floor = 0;
    const auto leaves = grow_tree<2>(importance, {64, 64}, options);
    EXPECT_EQ(leaves.size(), 19u);  // 64 to 1 in six splits
    const Box<2> pixel{{place / 64, place % 64}, {place / 64 + 1, place % 64 + 1}};
    EXPECT_EQ(std::count(leaves.begin(), leaves.end(), pixel), 1);
  }
}

TEST(Tree, DividesImagesOfOnePixelsWidth) {
  for (const Sides<3>& sides : {Sides<3>{1, 1, 300}, {1, 300, 1}, {300, 1, 1}, {1, 17, 1}}) {
    const std::vector<uint8_t> importance(static_cast<size_t>(volume<3>(sides)), 1);
    for (const int64_t length : {1, 2, 7, 64}) {
      const auto leaves = grow_tree<3>(importance, sides, {length, 4});
      expect_tiling<3>(leaves, sides);
      // Two children each: any number of leaves is reached, as long as there are cells.
      EXPECT_EQ(std::ssize(leaves), std::min(length, (volume<3>(sides) + 3) / 4));
    }
  }
}

TEST(Tree, NamesOfCellsGoByLevelAndMortonOrder) {
  TreeShape shape;
  shape.top = kMostLevels - 1;
  for (int32_t level = 0; level < kMostLevels; ++level)
    for (int32_t& cells : shape.grid[level]) cells = 1 << (shape.top - level);
  const int32_t last = (1 << 20) - 1;
  for (const Cell& cell : {Cell{0, {last, last, last}}, Cell{0, {last, 0, 12345}},
                           Cell{3, {7, last >> 3, 0}}, Cell{shape.top, {0, 0, 0}}}) {
    const Cell again = cell_of(shape, name_of(shape, cell));
    EXPECT_EQ(again.level, cell.level);
    const Cell leaf = leaf_of(shape, Order::morton, key_of(shape, Order::morton, cell));
    EXPECT_EQ(leaf.level, cell.level);
    for (int axis = 0; axis < 3; ++axis) {
      EXPECT_EQ(again.at[axis], cell.at[axis]);
      EXPECT_EQ(leaf.at[axis], cell.at[axis]);
    }
    EXPECT_LT(key_of(shape, Order::morton, cell), kNoKey);
  }
  EXPECT_LT(name_of(shape, {3, {last >> 3, last >> 3, last >> 3}}), name_of(shape, {2, {0, 0, 0}}));
  EXPECT_LT(name_of(shape, {3, {0, 0, 9}}), name_of(shape, {3, {0, 9, 0}}));
}

/// Sums of every cell of every level, from the pixels.
template <int K>
void expect_plain_sums(const Sides<K>& sides, int64_t min_leaf, bool is_bright) {
  std::vector<uint8_t> importance(static_cast<size_t>(volume<K>(sides)));
  for (size_t i = 0; i < importance.size(); ++i)
    importance[i] =
        static_cast<uint8_t>(is_bright ? 255 : core::draw(kKey, 3, static_cast<uint32_t>(i)));
  const TreeShape shape = tree_shape(sides, min_leaf);
  ASSERT_GE(shape.top, 1);
  const SumPyramid pyramid(importance, shape);
  const SumPyramid::Scores sums = pyramid.scores();
  for (int32_t level = 1; level <= shape.top; ++level)
    for (int64_t i = 0; i < shape.cells(level); ++i) {
      int64_t corners[2 * K], sum = 0;
      const Cell cell = cell_at(shape, level, i);
      write_box(shape, Order::morton, key_of(shape, Order::morton, cell), corners);
      Box<K> box;
      std::copy_n(corners, K, box.low.begin());
      std::copy_n(corners + K, K, box.high.begin());
      for_pixels<K>(box, sides, [&](size_t p) { sum += importance[p]; });
      EXPECT_EQ(sums.sum(shape, cell), sum) << "level " << level << " of edge " << min_leaf;
    }
}

TEST(Tree, SumsCellsOfAnyEdgeAndBrightness) {
  for (const bool is_bright : {false, true}) {
    for (const int64_t min_leaf : {1, 2, 3, 8, 64, 128, 129, 150, 257})
      expect_plain_sums<2>({601, 530}, min_leaf, is_bright);
    for (const int64_t min_leaf : {1, 3, 7, 8, 9, 16, 24})
      expect_plain_sums<3>({50, 61, 49}, min_leaf, is_bright);
    expect_plain_sums<3>({3, 700, 5}, 260, is_bright);
  }
}

TEST(Tree, RanksScoresAsNumbers) {
  const float infinity = std::numeric_limits<float>::infinity();
  const float ascending[] = {-infinity, -3e38f, -1.0f, -1e-45f, 0.0f, 1e-45f, 2.0f, infinity};
  for (size_t i = 1; i < std::size(ascending); ++i)
    EXPECT_LT(rank_of(ascending[i - 1], 0), rank_of(ascending[i], 0));
  EXPECT_EQ(rank_of(-0.0f, 0), rank_of(0.0f, 0));
  EXPECT_LT(rank_of(std::numeric_limits<float>::quiet_NaN(), 0), rank_of(-infinity, 0));
  EXPECT_GT(rank_of(std::numeric_limits<float>::quiet_NaN(), 0), 0u);
}

/// Noise with a few bright squares (cubes).
template <int K>
std::vector<uint8_t> busy_map(const Sides<K>& sides) {
  std::vector<uint8_t> importance(static_cast<size_t>(volume<K>(sides)), 0);
  for (size_t i = 0; i < importance.size(); i += 1 + (i * 2654435761u >> 7) % 97) importance[i] = 1;
  return importance;
}

template <int K>
void print_time(const Sides<K>& sides, const TreeOptions& options) {
  const std::vector<uint8_t> importance = busy_map<K>(sides);
  double best = 1e9;
  size_t count = 0;
  for (int i = 0; i < 5; ++i) {
    const auto start = std::chrono::steady_clock::now();
    count = grow_tree<K>(importance, sides, options).size();
    const std::chrono::duration<double, std::milli> time = std::chrono::steady_clock::now() - start;
    best = std::min(best, time.count());
  }
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  std::printf("%s -> %zu leaves of %lld and more: %.2f ms; at most %ld MiB until now\n",
              fmt::format("{}", fmt::join(sides, " x ")).c_str(), count,
              static_cast<long long>(options.min_leaf), best, usage.ru_maxrss / 1024);
  EXPECT_EQ(std::ssize(importance), volume<K>(sides));
  EXPECT_EQ(static_cast<int64_t>(count), options.fixed_length);
}

TEST(Tree, PrintsItsTimes) {
  print_time<2>({256, 256}, {196, 2});
  print_time<2>({512, 512}, {1024, 8});
  print_time<3>({64, 64, 64}, {512, 2});
  print_time<3>({128, 128, 128}, {4096, 8});
  print_time<3>({128, 128, 128}, {4096, 2});
  print_time<2>({4096, 4096}, {4096, 16});
  print_time<2>({4096, 4096}, {4096, 2});
}

TEST(Tree, DividesHugeImages) {
  print_time<2>({16384, 16384}, {4096, 16});
  print_time<2>({16384, 16384}, {32767, 2});
}

TEST(Tree, RefusesWhatItCannotDivide) {
  const std::vector<uint8_t> importance(16, 0);
  EXPECT_THROW(grow_tree<2>(importance, {4, 4}, {0, 4}), core::Error);
  EXPECT_THROW(grow_tree<2>(importance, {4, 4}, {4, 0}), core::Error);
  EXPECT_THROW(grow_tree<2>(importance, {4, 5}, {4, 4}), core::Error);
  EXPECT_THROW(grow_tree<2>(importance, {0, 4}, {4, 4}), core::Error);
  EXPECT_THROW(grow_tree<2>(importance, {1, int64_t{1} << 40}, {4, 1}), core::Error);
}

}  // namespace
}  // namespace vitrail::patching
