#include "vitrail/ops/neighbourhood.h"

#include <algorithm>
#include <vector>

#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <fmt/ranges.h>

#include "vitrail/core/error.h"

namespace vitrail::ops {
namespace {

int64_t product(at::IntArrayRef sides) {
  int64_t count = 1;
  for (const int64_t side : sides) count *= side;
  return count;
}

/// The cells that the groups of one axis see, group after group.
std::vector<int64_t> axis_cells(int64_t cells, int64_t groups, int64_t stride, int64_t window) {
  std::vector<int64_t> seen;
  for (int64_t g = 0; g < groups; ++g) {
    const int64_t first = std::clamp<int64_t>(g * stride - window / 2, 0, cells - window);
    for (int64_t w = 0; w < window; ++w) seen.push_back(first + w);
  }
  return seen;
}

/// `index` in base `sides`, last axis fastest; returns the place of the cell it names.
class Odometer {
 public:
  explicit Odometer(std::vector<int64_t> sides) : sides_(std::move(sides)), at_(sides_.size(), 0) {}
  void next() {
    for (size_t axis = sides_.size(); axis-- > 0;) {
      if (++at_[axis] < sides_[axis]) return;
      at_[axis] = 0;
    }
  }
  int64_t operator[](size_t axis) const { return at_[axis]; }

 private:
  std::vector<int64_t> sides_, at_;
};

}  // namespace

Neighbourhood make_neighbourhood(at::IntArrayRef cells, at::IntArrayRef groups, int64_t stride,
                                 int64_t width) {
  const int64_t L = product(cells), G = product(groups);
  VT_CHECK(cells.size() == groups.size() && L > 0 && G > 0 && stride > 0 && width > 0,
           "[neighbourhood] {} groups over {} cells with stride {} and width {} make no windows",
           fmt::join(groups, "x"), fmt::join(cells, "x"), stride, width);
  std::vector<int64_t> windows;
  std::vector<std::vector<int64_t>> seen;
  for (size_t axis = 0; axis < cells.size(); ++axis) {
    windows.push_back(std::min(width, cells[axis]));
    seen.push_back(axis_cells(cells[axis], groups[axis], stride, windows.back()));
  }
  const int64_t W = product(windows);
  Neighbourhood found;
  found.cells_GW = at::empty({G, W}, at::kLong);
  int64_t* out = found.cells_GW.mutable_data_ptr<int64_t>();
  std::vector<std::vector<int64_t>> places(static_cast<size_t>(L));
  Odometer group(groups.vec());
  for (int64_t g = 0; g < G; ++g, group.next()) {
    Odometer window(windows);
    for (int64_t w = 0; w < W; ++w, window.next()) {
      int64_t cell = 0;
      for (size_t axis = 0; axis < cells.size(); ++axis)
        cell = cell * cells[axis] +
               seen[axis][static_cast<size_t>(group[axis] * windows[axis] + window[axis])];
      out[g * W + w] = cell;
      places[static_cast<size_t>(cell)].push_back(g * W + w);
    }
  }
  size_t most = 1;
  for (const auto& of_cell : places) most = std::max(most, of_cell.size());
  found.seen_LM = at::full({L, static_cast<int64_t>(most)}, G * W, at::kLong);
  for (int64_t cell = 0; cell < L; ++cell)
    std::ranges::copy(places[static_cast<size_t>(cell)], found.seen_LM.mutable_data_ptr<int64_t>() +
                                                             cell * static_cast<int64_t>(most));
  return found;
}

}  // namespace vitrail::ops
