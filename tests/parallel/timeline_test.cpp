#include "vitrail/parallel/timeline.h"

#include <chrono>
#include <thread>

#include <gtest/gtest.h>

namespace vitrail::parallel {
namespace {

TEST(Timeline, RangesNestAndAreInOrder) {
  Timeline line(at::kCPU);
  {
    const Recording recording(line);
    const TimedScope outer(at::kCPU, Lane::compute, nullptr, "forward", "blocks.0");
    std::this_thread::sleep_for(std::chrono::milliseconds(3));
    const TimedScope inner(at::kCPU, Lane::gather, nullptr, "gather", "blocks.1");
    std::this_thread::sleep_for(std::chrono::milliseconds(3));
  }
  { const TimedScope after(at::kCPU, Lane::compute, nullptr, "nobody records"); }
  const std::vector<TimedRange> ranges = line.ranges();
  ASSERT_EQ(ranges.size(), 2u);
  EXPECT_EQ(ranges[0].name, "forward blocks.0");
  EXPECT_EQ(ranges[1].name, "gather blocks.1");
  EXPECT_GE(ranges[1].start_ms - ranges[0].start_ms, 3.0);
  EXPECT_GE(ranges[1].end_ms - ranges[1].start_ms, 3.0);
  EXPECT_GE(ranges[0].end_ms, ranges[1].end_ms);
}

TEST(Timeline, OfThreadsIsTheirOwn) {
  Timeline line(at::kCPU);
  const Recording recording(line);
  std::thread([] { EXPECT_EQ(timeline(at::kCPU), nullptr); }).join();
  EXPECT_EQ(timeline(at::kCPU), &line);
}

TEST(Timeline, UncoveredTimeIsWhatNothingRunsBeside) {
  const std::vector<TimedRange> ranges{{"g", Lane::gather, 0, 4},
                                       {"c", Lane::compute, 1, 3},
                                       {"r", Lane::reduce, 3.5, 6},
                                       {"c", Lane::compute, 5, 9},
                                       {"g", Lane::gather, 8, 10}};
  // [0, 1), [3, 5), [9, 10): overlapping exchanges count once.
  EXPECT_DOUBLE_EQ(uncovered_ms(ranges, {Lane::gather, Lane::reduce}, {Lane::compute}), 4.0);
  EXPECT_DOUBLE_EQ(uncovered_ms(ranges, {Lane::copy}, {Lane::compute}), 0.0);
  // Ranges that always count do so beside compute too: [3.5, 6) instead of [3.5, 5), besides [3, 3.5).
  EXPECT_DOUBLE_EQ(uncovered_ms(ranges, {Lane::gather}, {Lane::compute}, {Lane::reduce}), 5.0);
}

}  // namespace
}  // namespace vitrail::parallel
