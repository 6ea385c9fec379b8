#include "vitrail/models/matching.h"

#include <cmath>
#include <limits>

#include "vitrail/core/error.h"

namespace vitrail::models {
namespace {

constexpr int64_t kNobody = -1;
constexpr double kFar = std::numeric_limits<double>::infinity();

/// Fewer rows than columns, or as many. Rows enter one after another; each looks for the shortest alternating path
/// to a free column under reduced costs, which the potentials keep at least 0.
class Solver {
 public:
  Solver(std::span<const double> cost, int64_t rows, int64_t columns, bool is_transposed)
      : cost_(cost),
        rows_(rows),
        columns_(columns),
        row_step_(is_transposed ? 1 : columns),
        column_step_(is_transposed ? rows : 1),
        row_potential_(static_cast<size_t>(rows)),
        column_potential_(static_cast<size_t>(columns)),
        row_of_(static_cast<size_t>(columns), kNobody),
        before_(static_cast<size_t>(columns)),
        distance_(static_cast<size_t>(columns)),
        is_done_(static_cast<size_t>(columns)) {}

  /// The row of each column.
  std::vector<int64_t> solve() {
    for (int64_t row = 0; row < rows_; ++row) enter(row);
    return std::move(row_of_);
  }

 private:
  double reduced(int64_t row, int64_t column) const {
    return cost_[static_cast<size_t>(row * row_step_ + column * column_step_)] -
           row_potential_[row] - column_potential_[column];
  }

  void enter(int64_t row) {
    std::fill(distance_.begin(), distance_.end(), kFar);
    std::fill(is_done_.begin(), is_done_.end(), false);
    std::fill(before_.begin(), before_.end(), kNobody);
    const int64_t free = shortest_path(row);
    update_potentials(row, distance_[free]);
    for (int64_t column = free; column != kNobody; column = before_[column])
      row_of_[column] = before_[column] == kNobody ? row : row_of_[before_[column]];
  }

  /// Dijkstra over columns from `row`; before_ leads back from the free column that it returns.
  int64_t shortest_path(int64_t row) {
    double travelled = 0;
    for (int64_t at_row = row, from = kNobody;;) {
      int64_t nearest = kNobody;
      for (int64_t column = 0; column < columns_; ++column) {
        if (is_done_[column]) continue;
        const double length = travelled + reduced(at_row, column);
        if (length < distance_[column]) {
          distance_[column] = length;
          before_[column] = from;
        }
        if (nearest == kNobody || distance_[column] < distance_[nearest]) nearest = column;
      }
      is_done_[nearest] = true;
      if (row_of_[nearest] == kNobody) return nearest;
      travelled = distance_[nearest];
      at_row = row_of_[nearest];
      from = nearest;
    }
  }

  void update_potentials(int64_t row, double length) {
    row_potential_[row] += length;
    for (int64_t column = 0; column < columns_; ++column) {
      if (!is_done_[column] || row_of_[column] == kNobody) continue;
      row_potential_[row_of_[column]] += length - distance_[column];
      column_potential_[column] -= length - distance_[column];
    }
  }

  std::span<const double> cost_;
  int64_t rows_, columns_, row_step_, column_step_;
  std::vector<double> row_potential_, column_potential_;
  std::vector<int64_t> row_of_, before_;
  std::vector<double> distance_;
  std::vector<char> is_done_;
};

}  // namespace

std::vector<int64_t> assign(std::span<const double> cost, int64_t rows, int64_t columns) {
  VT_CHECK(rows >= 0 && columns >= 0 && static_cast<int64_t>(cost.size()) == rows * columns,
           "[matching] costs must be {} x {} numbers but are {}", rows, columns, cost.size());
  for (const double value : cost)
    VT_CHECK(std::isfinite(value), "[matching] a cost must be finite but got {}", value);
  const bool is_transposed = rows > columns;
  if (is_transposed) return Solver(cost, columns, rows, true).solve();
  const std::vector<int64_t> row_of = Solver(cost, rows, columns, false).solve();
  std::vector<int64_t> column_of(static_cast<size_t>(rows), kNobody);
  for (int64_t column = 0; column < columns; ++column)
    if (row_of[column] != kNobody) column_of[row_of[column]] = column;
  return column_of;
}

}  // namespace vitrail::models
