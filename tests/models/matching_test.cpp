#include "vitrail/models/matching.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>

#include <gtest/gtest.h>

#include "vitrail/core/error.h"
#include "vitrail/core/philox.h"

namespace vitrail::models {
namespace {

std::vector<double> random_costs(int64_t rows, int64_t columns, uint64_t seed, bool has_ties) {
  std::vector<double> cost;
  for (int64_t i = 0; i < rows * columns; ++i) {
    const double draw =
        core::uniform({seed, core::Stream::test, 0, 0}, 0, static_cast<uint32_t>(i)) - 0.5;
    cost.push_back(has_ties ? std::floor(draw * 4) : draw);
  }
  return cost;
}

double sum_of(const std::vector<double>& cost, const std::vector<int64_t>& column,
              int64_t columns) {
  double sum = 0;
  for (size_t row = 0; row < column.size(); ++row)
    if (column[row] >= 0)
      sum += cost[row * static_cast<size_t>(columns) + static_cast<size_t>(column[row])];
  return sum;
}

/// Every way to give the rows columns of their own; no more rows than columns.
double least_of_all(const std::vector<double>& cost, int64_t rows, int64_t columns) {
  std::vector<int64_t> order(static_cast<size_t>(columns));
  std::iota(order.begin(), order.end(), int64_t{0});
  double least = INFINITY;
  do {
    double sum = 0;
    for (int64_t row = 0; row < rows; ++row) sum += cost[row * columns + order[row]];
    least = std::min(least, sum);
  } while (std::next_permutation(order.begin(), order.end()));
  return least;
}

TEST(Assign, FindsTheLeastSumOfAllAssignments) {
  double worst = 0;
  for (uint64_t seed = 0; seed < 60; ++seed)
    for (const auto& [rows, columns] :
         {std::pair<int64_t, int64_t>{1, 1}, {3, 3}, {2, 6}, {6, 6}}) {
      const std::vector<double> cost = random_costs(rows, columns, seed, seed % 2 == 0);
      const std::vector<int64_t> column = assign(cost, rows, columns);
      ASSERT_EQ(std::set<int64_t>(column.begin(), column.end()).size(), column.size());
      worst = std::max(worst,
                       std::abs(sum_of(cost, column, columns) - least_of_all(cost, rows, columns)));
    }
  printf("assign: worst difference %.1e\n", worst);
  EXPECT_LE(worst, 1e-14);  // sums of six numbers of order 1, in another order
}

TEST(Assign, MoreRowsThanColumnsLeavesRowsWithoutOne) {
  const int64_t rows = 7, columns = 3;
  const std::vector<double> cost = random_costs(rows, columns, 5, false);
  std::vector<double> turned;
  for (int64_t c = 0; c < columns; ++c)
    for (int64_t r = 0; r < rows; ++r) turned.push_back(cost[r * columns + c]);
  const std::vector<int64_t> column = assign(cost, rows, columns),
                             row = assign(turned, columns, rows);
  EXPECT_EQ(std::count(column.begin(), column.end(), -1), rows - columns);
  for (int64_t c = 0; c < columns; ++c) EXPECT_EQ(column[row[c]], c);
}

TEST(Assign, NothingNeedsNothing) {
  EXPECT_TRUE(assign({}, 0, 5).empty());
  EXPECT_EQ(assign({}, 2, 0), (std::vector<int64_t>{-1, -1}));
}

TEST(Assign, RefusesWhatIsNoCost) {
  const std::vector<double> broken{1, NAN, 2, 3}, endless{1, INFINITY, 2, 3};
  EXPECT_THROW(assign(broken, 2, 2), core::Error);
  EXPECT_THROW(assign(endless, 2, 2), core::Error);
  EXPECT_THROW(assign(std::vector<double>{1, 2}, 2, 2), core::Error);
}

}  // namespace
}  // namespace vitrail::models
