#include "vitrail/parallel/box_range.h"

#include <algorithm>
#include <map>

#include <gtest/gtest.h>

#include "tests/parallel/random_layout.h"
#include "vitrail/core/error.h"

namespace vitrail::parallel {
namespace {

using vitrail::testing::Random;
using vitrail::testing::whole_index;

BoxRange random_range(Random& random, const std::vector<int64_t>& shape) {
  BoxRange range;
  for (const int64_t extent : shape) {
    const int64_t start = random(3) ? 0 : random(extent);
    range.box.start.push_back(start);
    range.box.shape.push_back(random(3) ? extent - start : random.between(1, extent - start));
  }
  const int64_t count = range.box.count();
  range.start = random(3) ? random(count) : 0;
  range.count = random.between(0, count - range.start);
  return range;
}

TEST(BoxRange, CommonRunsAreExactlyTheCommonElementsInOrder) {
  int64_t runs = 0, elements = 0;
  for (uint32_t round = 0; round < 5000; ++round) {
    Random random(round);
    std::vector<int64_t> shape(static_cast<size_t>(random(5)));
    for (int64_t& extent : shape) extent = random.between(1, 5);
    const BoxRange a = random_range(random, shape), b = random_range(random, shape);
    std::map<int64_t, int64_t> in_a;  // element of the whole -> place in `a`
    for (int64_t i = 0; i < a.count; ++i) in_a[whole_index(a, shape, i)] = i;
    std::map<int64_t, int64_t> expected;
    for (int64_t i = 0; i < b.count; ++i)
      if (const auto found = in_a.find(whole_index(b, shape, i)); found != in_a.end())
        expected[found->second] = i;
    std::map<int64_t, int64_t> got;
    int64_t last = -1, last_b = -2;
    for_each_common_run(a, b, [&](int64_t to_a, int64_t to_b, int64_t count) {
      EXPECT_GT(to_a, last);
      EXPECT_GT(count, 0);
      EXPECT_FALSE(to_a == last + 1 && to_b == last_b + 1) << "runs must be joined";
      last = to_a + count - 1;
      last_b = to_b + count - 1;
      for (int64_t i = 0; i < count; ++i) EXPECT_TRUE(got.emplace(to_a + i, to_b + i).second);
      ++runs;
    });
    elements += static_cast<int64_t>(got.size());
    ASSERT_EQ(got, expected) << "round " << round;
  }
  std::printf("%ld elements in %ld runs\n", elements, runs);
}

TEST(BoxRange, RowsThatFollowOneAnotherAreOneRun) {
  const BoxRange whole{{{0, 0, 0}, {6, 4, 5}}, 0, 120}, rows{{{2, 0, 0}, {3, 4, 5}}, 7, 50};
  int runs = 0;
  for_each_common_run(whole, rows, [&](int64_t in_whole, int64_t in_rows, int64_t count) {
    EXPECT_EQ(in_whole, 47);
    EXPECT_EQ(in_rows, 0);
    EXPECT_EQ(count, 50);
    ++runs;
  });
  EXPECT_EQ(runs, 1);
}

TEST(BoxRange, ARunOfALocalTensorIsCutAtItsBoxes) {
  const Placement placement{.split = Split::rows, .parts = 2, .part = 1, .sections = {4, 4, 4}};
  const std::vector<Box> held = boxes({12, 3}, placement);  // rows 2-3, 6-7, 10-11
  const std::vector<BoxRange> ranges = split_run(held, 4, 10);
  ASSERT_EQ(ranges.size(), 3u);
  EXPECT_EQ(ranges[0].box.start, (std::vector<int64_t>{2, 0}));
  EXPECT_EQ(ranges[0].start, 4);
  EXPECT_EQ(ranges[0].count, 2);
  EXPECT_EQ(ranges[1].box.start, (std::vector<int64_t>{6, 0}));
  EXPECT_EQ(ranges[1].count, 6);
  EXPECT_EQ(ranges[2].start, 0);
  EXPECT_EQ(ranges[2].count, 2);
  EXPECT_THROW(split_run(held, 4, 15), core::Error);
}

}  // namespace
}  // namespace vitrail::parallel
