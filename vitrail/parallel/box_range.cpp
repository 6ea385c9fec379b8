#include "vitrail/parallel/box_range.h"

#include <algorithm>

#include "vitrail/core/error.h"

namespace vitrail::parallel {
namespace {

/// Walks the axes of two boxes together, outermost first, and only into indices that both ranges reach.
class CommonRuns {
 public:
  using Visit = std::function<void(int64_t, int64_t, int64_t)>;

  CommonRuns(const BoxRange& a, const BoxRange& b, const Visit& visit)
      : a_(a), b_(b), axes_(a.box.shape.size()), visit_(visit) {
    tail_.assign(axes_, true);
    size_.assign(2 * axes_, 1);
    for (size_t axis = axes_; axis-- > 1;) {
      const Box &p = a.box, &q = b.box;
      tail_[axis - 1] =
          tail_[axis] && p.start[axis] == q.start[axis] && p.shape[axis] == q.shape[axis];
      size_[axis - 1] = size_[axis] * p.shape[axis];
      size_[axes_ + axis - 1] = size_[axes_ + axis] * q.shape[axis];
    }
  }

  void walk() const {
    if (axes_ == 0)
      emit(0, 0, 1);
    else
      walk(0, 0, 0);
  }

 private:
  /// Indices of an axis, half open, whose elements can lie in the range.
  static void narrow(const BoxRange& range, size_t axis, int64_t base, int64_t size, int64_t& low,
                     int64_t& high) {
    const int64_t first = range.start - base, last = range.start + range.count - 1 - base;
    if (last < 0) high = low;
    if (high <= low) return;
    const int64_t begin = range.box.start[axis];
    low = std::max(low, begin + std::max<int64_t>(first, 0) / size);
    high = std::min(high, begin + last / size + 1);
  }

  /// `base_a`, `base_b`: elements of the boxes before the indices chosen so far.
  void walk(size_t axis, int64_t base_a, int64_t base_b) const {
    const Box &p = a_.box, &q = b_.box;
    int64_t low = std::max(p.start[axis], q.start[axis]);
    int64_t high = std::min(p.start[axis] + p.shape[axis], q.start[axis] + q.shape[axis]);
    const int64_t size_a = size_[axis], size_b = size_[axes_ + axis];
    if (size_a == 0 || size_b == 0) return;
    narrow(a_, axis, base_a, size_a, low, high);
    narrow(b_, axis, base_b, size_b, low, high);
    if (low >= high) return;
    const auto at_a = [&](int64_t i) { return base_a + (i - p.start[axis]) * size_a; };
    const auto at_b = [&](int64_t i) { return base_b + (i - q.start[axis]) * size_b; };
    if (tail_[axis])
      emit(at_a(low), at_b(low), (high - low) * size_a);
    else
      for (int64_t i = low; i < high; ++i) walk(axis + 1, at_a(i), at_b(i));
  }

  /// `count` elements from here in both boxes: the part inside both ranges.
  void emit(int64_t at_a, int64_t at_b, int64_t count) const {
    const int64_t in_a = at_a - a_.start, in_b = at_b - b_.start;
    const int64_t first = std::max<int64_t>({0, -in_a, -in_b});
    const int64_t last = std::min({count, a_.count - in_a, b_.count - in_b});
    if (first < last) visit_(in_a + first, in_b + first, last - first);
  }

  const BoxRange &a_, &b_;
  size_t axes_;
  const Visit& visit_;
  std::vector<bool> tail_;     // all of both boxes after this axis is the same
  std::vector<int64_t> size_;  // elements of one index of an axis: of a, then of b
};

}  // namespace

Box whole_box(const std::vector<int64_t>& shape) {
  return {std::vector<int64_t>(shape.size(), 0), shape};
}

bool is_whole(const Box& box, const std::vector<int64_t>& shape) {
  return box.shape == shape &&
         std::all_of(box.start.begin(), box.start.end(), [](int64_t start) { return start == 0; });
}

std::vector<BoxRange> split_run(const std::vector<Box>& held, int64_t start, int64_t count) {
  std::vector<BoxRange> ranges;
  int64_t before = 0;
  for (const Box& box : held) {
    const int64_t size = box.count();
    const int64_t first = std::max(start - before, int64_t{0});
    const int64_t last = std::min(start + count - before, size);
    if (first < last) ranges.push_back({box, first, last - first});
    before += size;
  }
  VT_CHECK(start >= 0 && count >= 0 && start + count <= before,
           "[boxes] a run must lie in the {} elements of its tensor but is [{}, {})", before, start,
           start + count);
  return ranges;
}

void for_each_common_run(const BoxRange& a, const BoxRange& b,
                         const std::function<void(int64_t, int64_t, int64_t)>& visit) {
  VT_CHECK(a.box.shape.size() == b.box.shape.size(),
           "[boxes] boxes must have the same axes but have {} and {}", a.box.shape.size(),
           b.box.shape.size());
  if (a.count > 0 && b.count > 0) CommonRuns(a, b, visit).walk();
}

}  // namespace vitrail::parallel
