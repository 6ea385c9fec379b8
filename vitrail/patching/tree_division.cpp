#include "vitrail/patching/tree_division.h"

#include <algorithm>

#include <fmt/ranges.h>

#include "vitrail/core/error.h"

namespace vitrail::patching {
namespace {

/// Cells of the levels above 0 from those of level 0, up to `top` levels or until one cell is left.
void fill_levels(TreeShape& shape, int32_t most) {
  shape.top = 0;
  for (int32_t level = 0; level < most && shape.cells(level) > 1; ++level) {
    for (int axis = 0; axis < 3; ++axis)
      shape.grid[level + 1][axis] = (shape.grid[level][axis] + 1) / 2;
    shape.top = level + 1;
  }
  shape.most_parts = 1;
  for (int axis = 0; axis < 3; ++axis)
    if (shape.grid[0][axis] > 1) shape.most_parts *= 2;
}

class Division {
 public:
  Division(const TreeShape& shape, int64_t most) : shape_(shape), most_(most) {
    const auto room = static_cast<size_t>(std::min<int64_t>(most, int64_t{1} << 24));
    leaves_.reserve(room);
    heap_.reserve(room);
  }

  template <class Scores>
  void run(const Scores& scores, int64_t value_floor) {
    for (const uint64_t name : first_names()) {
      const Cell cell = cell_of(shape_, name);
      if (!leaves_.empty()) leaves_.back().next = leaves_.size();
      add(name, scores.rank(shape_, 0, cell, value_floor));
    }
    while (!heap_.empty() && count() < most_) {
      std::pop_heap(heap_.begin(), heap_.end());
      const Entry entry = heap_.back();
      heap_.pop_back();
      const Cell cell = cell_of(shape_, ~entry.place);
      const Parts parts = parts_of(shape_, cell);
      const int32_t n = parts.count();
      // Room never grows, so what does not fit now never will.
      if (count() + n - 1 > most_) continue;
      const uint64_t after = leaves_[entry.leaf].next;
      // The first child takes its parent's place in the list, the others come behind it.
      for (int32_t i = 0; i < n; ++i) {
        const Cell child = child_of(cell, parts, i);
        const uint64_t name = name_of(shape_, child);
        const uint64_t rank = scores.rank(shape_, 0, child, value_floor);
        if (i == 0) {
          leaves_[entry.leaf].name = name;
          push(rank, name, entry.leaf);
        } else {
          leaves_[i == 1 ? entry.leaf : leaves_.size() - 1].next = leaves_.size();
          add(name, rank);
        }
      }
      if (n > 1) leaves_.back().next = after;
    }
  }

  std::vector<int64_t> keys(Order order) const {
    std::vector<int64_t> keys;
    keys.reserve(leaves_.size());
    for (uint64_t leaf = 0; leaf != kEnd; leaf = leaves_[leaf].next)
      keys.push_back(key_of(shape_, order, cell_of(shape_, leaves_[leaf].name)));
    if (order == Order::raster) std::sort(keys.begin(), keys.end());
    return keys;
  }

 private:
  static constexpr uint64_t kEnd = UINT64_MAX;

  struct Leaf {
    uint64_t name, next;  // next: in Morton order
  };
  /// For a heap with what is divided first on top.
  struct Entry {
    uint64_t rank, place, leaf;  // place: ~name
    bool operator<(const Entry& other) const {
      return rank != other.rank ? rank < other.rank : place < other.place;
    }
  };

  int64_t count() const { return std::ssize(leaves_); }

  std::vector<uint64_t> first_names() const {
    std::vector<uint64_t> names(static_cast<size_t>(shape_.cells(shape_.top)));
    for (size_t i = 0; i < names.size(); ++i)
      names[i] = name_of(shape_, cell_at(shape_, shape_.top, static_cast<int64_t>(i)));
    std::sort(names.begin(), names.end());
    return names;
  }

  void add(uint64_t name, uint64_t rank) {
    push(rank, name, leaves_.size());
    leaves_.push_back({name, kEnd});
  }
  void push(uint64_t rank, uint64_t name, uint64_t leaf) {
    if (rank == 0) return;
    heap_.push_back({rank, ~name, leaf});
    std::push_heap(heap_.begin(), heap_.end());
  }

  const TreeShape& shape_;
  int64_t most_;
  std::vector<Leaf> leaves_;
  std::vector<Entry> heap_;
};

void check_cells(std::span<const int64_t> cells, std::span<const int64_t> sides, int64_t min_leaf) {
  for (const int64_t n : cells)
    VT_CHECK(n <= kMostCells,
             "[patching] every side must be at least 1 and at most 2^20 leaves of edge {} but got "
             "{}",
             min_leaf, fmt::join(sides, " x "));
}

}  // namespace

TreeShape tree_shape(std::span<const int64_t> sides, int64_t min_leaf) {
  VT_CHECK(sides.size() == 2 || sides.size() == 3,
           "[patching] an image must have 2 or 3 sides but got {}", sides.size());
  VT_CHECK(min_leaf >= 1, "[patching] the smallest leaf must be at least 1 but got {}", min_leaf);
  TreeShape shape;
  shape.axes = static_cast<int32_t>(sides.size());
  shape.min_leaf = min_leaf;
  for (int32_t& n : shape.grid[0]) n = 1;
  for (size_t axis = 0; axis < sides.size(); ++axis) {
    const size_t at = 3 - sides.size() + axis;
    VT_CHECK(sides[axis] >= 1, "[patching] every side must be at least 1 but got {}",
             fmt::join(sides, " x "));
    const int64_t cells = (sides[axis] - 1) / min_leaf + 1;
    check_cells(std::span(&cells, 1), sides, min_leaf);
    shape.sides[at] = sides[axis];
    shape.grid[0][at] = static_cast<int32_t>(cells);
  }
  fill_levels(shape, kMostLevels - 1);
  return shape;
}

TreeShape forest_shape(std::span<const int64_t> coarsest, int64_t min_leaf, int32_t top) {
  VT_CHECK(coarsest.size() == 2 || coarsest.size() == 3,
           "[patching] a grid must have 2 or 3 sides but got {}", coarsest.size());
  VT_CHECK(min_leaf >= 1 && top >= 0 && top < kMostLevels,
           "[patching] the smallest leaf must be at least 1 and levels at most {} but got {} and "
           "{}",
           kMostLevels, min_leaf, top + 1);
  TreeShape shape;
  shape.axes = static_cast<int32_t>(coarsest.size());
  shape.min_leaf = min_leaf;
  shape.top = top;
  for (auto& grid : shape.grid)
    for (int32_t& n : grid) n = 1;
  shape.most_parts = 1 << (top == 0 ? 0 : shape.axes);
  for (size_t axis = 0; axis < coarsest.size(); ++axis) {
    const size_t at = 3 - coarsest.size() + axis;
    VT_CHECK(coarsest[axis] >= 1 && coarsest[axis] <= kMostCells >> top,
             "[patching] every side must be at least 1 and at most 2^20 leaves of edge {} but got "
             "{} cells of level {}",
             min_leaf, fmt::join(coarsest, " x "), top);
    for (int32_t level = 0; level <= top; ++level)
      shape.grid[level][at] = static_cast<int32_t>(coarsest[axis] << (top - level));
    shape.sides[at] = shape.grid[0][at] * min_leaf;
    while (int64_t{1} << shape.root_bits < coarsest[axis]) ++shape.root_bits;
  }
  return shape;
}

template <class Scores>
std::vector<int64_t> divided(const TreeShape& shape, const Scores& scores, int64_t count,
                             int64_t value_floor, Order order) {
  VT_CHECK(count >= shape.cells(shape.top),
           "[patching] the number of leaves must be at least {} but got {}", shape.cells(shape.top),
           count);
  Division division(shape, count);
  division.run(scores, value_floor);
  return division.keys(order);
}

template std::vector<int64_t> divided(const TreeShape&, const SumPyramid::Scores&, int64_t, int64_t,
                                      Order);
template std::vector<int64_t> divided(const TreeShape&, const LevelScores<float>&, int64_t, int64_t,
                                      Order);

void write_boxes(const TreeShape& shape, Order order, std::span<const int64_t> keys,
                 std::span<float> boxes) {
  const auto row = static_cast<size_t>(2 * shape.axes);
  VT_CHECK(boxes.size() >= keys.size() * row && boxes.size() % row == 0,
           "[patching] {} leaves of {} axes cannot have {} values of boxes", keys.size(),
           shape.axes, boxes.size());
  for (size_t i = 0; i < keys.size(); ++i) write_box(shape, order, keys[i], boxes.data() + i * row);
  std::fill(boxes.begin() + static_cast<std::ptrdiff_t>(keys.size() * row), boxes.end(), 0.0f);
}

}  // namespace vitrail::patching
