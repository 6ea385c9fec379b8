#include "vitrail/patching/tree.h"

#include <algorithm>
#include <numeric>
#include <queue>

#include <fmt/ranges.h>

#include "vitrail/core/error.h"
#include "vitrail/patching/filters.h"
#include "vitrail/patching/pixel_rows.h"

namespace vitrail::patching {
namespace {

constexpr int64_t kMostCells = int64_t{1} << 20;  // along an axis: three times 20 bits make a code

template <int K>
using Place = std::array<int64_t, K>;

/// Last axis lowest.
template <int K>
uint64_t morton_code(const Place<K>& place) {
  uint64_t code = 0;
  for (int bit = 0; bit < 21; ++bit)
    for (int axis = 0; axis < K; ++axis)
      code |= (static_cast<uint64_t>(place[axis]) >> bit & 1) << (bit * K + K - 1 - axis);
  return code;
}

/// Importance sums of all cells of all levels. A summed-area table gives the same sums for any box;
/// trees only ask for cells, of which there are few.
template <int K>
class Pyramid {
 public:
  Pyramid(std::span<const uint8_t> importance, const Place<K>& sides, int64_t edge) {
    Place<K> grid;
    for (int axis = 0; axis < K; ++axis) grid[axis] = (sides[axis] + edge - 1) / edge;
    add_finest(importance, sides, edge, grid);
    while (pixels_of(grids_.back()) > 1) add_coarser();
  }

  int top() const { return static_cast<int>(grids_.size()) - 1; }
  const Place<K>& grid(int level) const { return grids_[static_cast<size_t>(level)]; }
  int64_t sum(int level, const Place<K>& cell) const {
    return sums_[static_cast<size_t>(level)][index(grid(level), cell)];
  }

 private:
  static size_t index(const Place<K>& grid, const Place<K>& cell) {
    int64_t place = 0;
    for (int axis = 0; axis < K; ++axis) place = place * grid[axis] + cell[axis];
    return static_cast<size_t>(place);
  }

  /// Rows that share a row of cells are added up first, then cut into cells.
  void add_finest(std::span<const uint8_t> importance, const Place<K>& sides, int64_t edge,
                  const Place<K>& grid) {
    std::vector<int64_t> sums(static_cast<size_t>(pixels_of(grid)), 0);
    const int64_t width = sides[K - 1], height = sides[K - 2], depth = K == 3 ? sides[0] : 1;
    std::vector<uint32_t> columns(static_cast<size_t>(width));
    for (int64_t z = 0; z < depth; ++z)
      for (int64_t cell_y = 0; cell_y < grid[K - 2]; ++cell_y) {
        std::fill(columns.begin(), columns.end(), 0);
        for (int64_t y = cell_y * edge; y < std::min((cell_y + 1) * edge, height); ++y)
          add_bytes(importance.data() + (z * height + y) * width, columns.data(), width);
        Place<K> cell{};
        if (K == 3) cell[0] = z / edge;
        cell[K - 2] = cell_y;
        int64_t* row = sums.data() + index(grid, cell);
        for (int64_t x = 0, cell_x = 0; x < width; x += edge, ++cell_x)
          row[cell_x] = std::accumulate(columns.begin() + x,
                                        columns.begin() + std::min(x + edge, width), row[cell_x]);
      }
    grids_.push_back(grid);
    sums_.push_back(std::move(sums));
  }

  void add_coarser() {
    const Place<K> fine = grids_.back();
    Place<K> grid;
    for (int axis = 0; axis < K; ++axis) grid[axis] = (fine[axis] + 1) / 2;
    std::vector<int64_t> sums(static_cast<size_t>(pixels_of(grid)), 0);
    Place<K> cell{};
    for (const int64_t value : sums_.back()) {
      Place<K> parent;
      for (int axis = 0; axis < K; ++axis) parent[axis] = cell[axis] / 2;
      sums[index(grid, parent)] += value;
      for (int axis = K - 1; axis >= 0 && ++cell[axis] == fine[axis]; --axis) cell[axis] = 0;
    }
    grids_.push_back(grid);
    sums_.push_back(std::move(sums));
  }

  std::vector<Place<K>> grids_;
  std::vector<std::vector<int64_t>> sums_;
};

template <int K>
struct Node {
  int64_t sum = 0;
  int level = 0;
  uint64_t code = 0;  // of the low corner
  Place<K> cell{};

  /// For a heap with what is split first on top.
  bool operator<(const Node& other) const {
    if (sum != other.sum) return sum < other.sum;
    if (level != other.level) return level < other.level;
    return code > other.code;
  }
};

template <int K>
class Tree {
 public:
  Tree(std::span<const uint8_t> importance, const Place<K>& sides, const TreeOptions& options)
      : pyramid_(importance, sides, options.min_leaf), sides_(sides), options_(options) {
    place(node_at(pyramid_.top(), {}));
    while (!heap_.empty()) {
      const Node<K> node = heap_.top();
      heap_.pop();
      split(node);
    }
  }

  std::vector<Box<K>> boxes() {
    std::sort(leaves_.begin(), leaves_.end(),
              [](const Node<K>& a, const Node<K>& b) { return a.code < b.code; });
    std::vector<Box<K>> boxes;
    for (const Node<K>& leaf : leaves_) boxes.push_back(box_of(leaf));
    if (options_.order == Order::raster)
      std::sort(boxes.begin(), boxes.end(),
                [](const Box<K>& a, const Box<K>& b) { return a.low < b.low; });
    return boxes;
  }

 private:
  Node<K> node_at(int level, const Place<K>& cell) const {
    Place<K> corner = cell;
    for (int64_t& i : corner) i <<= level;
    return {pyramid_.sum(level, cell), level, morton_code<K>(corner), cell};
  }

  /// At the image's end there may be one alone, of the same pixels: its split costs no room.
  std::vector<Node<K>> children(const Node<K>& node) const {
    std::vector<Node<K>> found;
    for (int corner = 0; corner < 1 << K; ++corner) {
      Place<K> cell;
      bool exists = true;
      for (int axis = 0; axis < K; ++axis) {
        cell[axis] = 2 * node.cell[axis] + (corner >> axis & 1);
        exists = exists && cell[axis] < pyramid_.grid(node.level - 1)[axis];
      }
      if (exists) found.push_back(node_at(node.level - 1, cell));
    }
    return found;
  }

  void split(const Node<K>& node) {
    const std::vector<Node<K>> parts = children(node);
    // Room never grows, so what does not fit now never will.
    if (count_ + std::ssize(parts) - 1 > options_.fixed_length) return leaves_.push_back(node);
    --count_;
    for (const Node<K>& part : parts) place(part);
  }

  /// A new leaf, which may still be split.
  void place(const Node<K>& node) {
    ++count_;
    if (node.level == 0 || node.sum <= options_.value_floor)
      leaves_.push_back(node);
    else
      heap_.push(node);
  }

  Box<K> box_of(const Node<K>& node) const {
    const int64_t edge = options_.min_leaf << node.level;
    Box<K> box;
    for (int axis = 0; axis < K; ++axis) {
      box.low[axis] = node.cell[axis] * edge;
      box.high[axis] = std::min(box.low[axis] + edge, sides_[axis]);
    }
    return box;
  }

  Pyramid<K> pyramid_;
  Place<K> sides_;
  TreeOptions options_;
  std::priority_queue<Node<K>> heap_;
  std::vector<Node<K>> leaves_;  // not to be split any more
  int64_t count_ = 0;            // of both
};

}  // namespace

template <int K>
std::vector<Box<K>> grow_tree(std::span<const uint8_t> importance,
                              const std::array<int64_t, K>& sides, const TreeOptions& options) {
  VT_CHECK(options.fixed_length >= 1 && options.min_leaf >= 1,
           "[patching] fixed_length and the smallest leaf must be at least 1 but got {} and {}",
           options.fixed_length, options.min_leaf);
  for (const int64_t side : sides)
    VT_CHECK(
        side >= 1 && (side - 1) / options.min_leaf < kMostCells,
        "[patching] every side must be at least 1 and at most 2^20 leaves of edge {} but got {}",
        options.min_leaf, fmt::join(sides, " x "));
  VT_CHECK(std::ssize(importance) == pixels_of(sides),
           "[patching] an image of {} needs as many importance values but got {}",
           fmt::join(sides, " x "), importance.size());
  return Tree<K>(importance, sides, options).boxes();
}

template std::vector<Box<2>> grow_tree<2>(std::span<const uint8_t>, const std::array<int64_t, 2>&,
                                          const TreeOptions&);
template std::vector<Box<3>> grow_tree<3>(std::span<const uint8_t>, const std::array<int64_t, 3>&,
                                          const TreeOptions&);

}  // namespace vitrail::patching
