#include "vitrail/parallel/tile_grid.h"

#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace vitrail::parallel {
namespace {

using ::testing::ElementsAre;

TEST(TileGrid, EveryCellLiesInExactlyOneTile) {
  for (const std::vector<int64_t>& cells :
       std::vector<std::vector<int64_t>>{{7}, {4, 6}, {3, 2, 5}})
    for (int ranks = 1; ranks <= 12; ++ranks) {
      const std::optional<TileGrid> grid = TileGrid::cut(cells, ranks);
      if (!grid) continue;
      std::set<std::vector<int64_t>> seen;
      int64_t count = 0, all = 1, largest = 0;
      for (const int64_t side : cells) all *= side;
      for (int rank = 0; rank < ranks; ++rank) {
        const std::vector<TileSide> tile = grid->tile(rank);
        int64_t size = 1;
        std::vector<int64_t> first;
        for (const TileSide& side : tile) size *= side.count, first.push_back(side.first);
        EXPECT_GT(size, 0);
        EXPECT_TRUE(seen.insert(first).second);
        count += size, largest = std::max(largest, size);
      }
      EXPECT_EQ(count, all);
      EXPECT_EQ(largest, grid->largest_tile());
    }
}

TEST(TileGrid, TakesTheCutWithTheSmallestLargestTile) {
  EXPECT_THAT(TileGrid::cut({6, 6, 6}, 4)->parts(),
              ElementsAre(2, 2, 1));                                  // 54 cells; 4 x 1 x 1: 72
  EXPECT_THAT(TileGrid::cut({8, 8}, 4)->parts(), ElementsAre(4, 1));  // as 2 x 2, on one axis
  EXPECT_THAT(TileGrid::cut({2, 9}, 3)->parts(), ElementsAre(1, 3));
  EXPECT_THAT(TileGrid::cut({6, 6, 6}, 1)->parts(), ElementsAre(1, 1, 1));
  EXPECT_EQ(TileGrid::cut({4, 4}, 3)->tile(2)[0].count, 2);  // 1, 1, 2
}

TEST(TileGrid, IsNoneWhenARankWouldHaveNothing) {
  EXPECT_FALSE(TileGrid::cut({2, 2, 2}, 3));
  EXPECT_FALSE(TileGrid::cut({4}, 8));
  EXPECT_FALSE(TileGrid::cut({}, 2));
}

TEST(TileGrid, NeighboursFollowEachOtherAlongEachAxis) {
  const TileGrid grid = *TileGrid::cut({3, 2, 2}, 12);
  ASSERT_THAT(grid.parts(), ElementsAre(3, 2, 2));
  EXPECT_EQ(grid.neighbour(0, 0, 1), 4);
  EXPECT_EQ(grid.neighbour(0, 0, -1), 8);
  EXPECT_EQ(grid.neighbour(5, 1, 1), 7);
  EXPECT_EQ(grid.neighbour(5, 1, -1), 7);
  EXPECT_EQ(grid.neighbour(6, 2, 1), 7);
  EXPECT_TRUE(grid.is_first(3, 0));
  EXPECT_TRUE(grid.is_last(11, 0));
  EXPECT_FALSE(grid.is_last(7, 0));
}

}  // namespace
}  // namespace vitrail::parallel
