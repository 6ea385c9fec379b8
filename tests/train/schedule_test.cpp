#include "vitrail/train/schedule.h"

#include <cmath>
#include <numbers>

#include <gtest/gtest.h>

namespace vitrail::train {
namespace {

config::Schedule options(const char* kind, int64_t warmup, double start = 0.0, double end = 0.0) {
  config::Schedule schedule;
  schedule.kind.value = kind;
  schedule.warmup_steps = warmup;
  schedule.warmup_start_lr = start;
  schedule.min_lr = end;
  return schedule;
}

TEST(Schedule, RisesLinearlyThenFallsAsACosine) {
  const Schedule schedule(options("cosine", 10, 0.1, 0.2), 1.0, 111);
  EXPECT_DOUBLE_EQ(schedule.at(0), 0.1);
  EXPECT_DOUBLE_EQ(schedule.at(5), 0.1 + 0.5 * 0.9);
  EXPECT_DOUBLE_EQ(schedule.at(10), 1.0);
  EXPECT_DOUBLE_EQ(schedule.at(60), 0.6);  // half way: the mean of base and end
  EXPECT_DOUBLE_EQ(schedule.at(35), 0.2 + 0.8 * 0.5 * (1.0 + std::cos(std::numbers::pi * 0.25)));
  EXPECT_DOUBLE_EQ(schedule.at(110), 0.2);
}

TEST(Schedule, LinearAndConstantFollowTheirNames) {
  const Schedule linear(options("linear", 0, 0.0, 0.5), 1.0, 11);
  EXPECT_DOUBLE_EQ(linear.at(0), 1.0);
  EXPECT_DOUBLE_EQ(linear.at(4), 0.8);
  EXPECT_DOUBLE_EQ(linear.at(10), 0.5);
  const Schedule constant(options("constant", 4), 1.0, 11);
  EXPECT_DOUBLE_EQ(constant.at(1), 0.25);
  EXPECT_DOUBLE_EQ(constant.at(4), 1.0);
  EXPECT_DOUBLE_EQ(constant.at(1000), 1.0);
}

TEST(Schedule, KeepsItsLastValuePastTheEnd) {
  for (const char* kind : {"cosine", "linear"}) {
    const Schedule schedule(options(kind, 3, 0.0, 0.01), 1.0, 20);
    for (const int64_t step : {19, 20, 21, 1000})
      EXPECT_DOUBLE_EQ(schedule.at(step), 0.01) << kind << " " << step;
  }
}

TEST(Schedule, NeverLeavesTheRangeOfItsEnds) {
  for (const char* kind : {"cosine", "linear", "constant"})
    for (const int64_t total : {1, 2, 5, 6, 7, 100})
      for (int64_t step = 0; step < 2 * total + 10; ++step) {
        const double rate = Schedule(options(kind, 5), 1.0, total).at(step);
        EXPECT_GE(rate, 0.0);
        EXPECT_LE(rate, 1.0);
      }
}

TEST(Schedule, AWarmUpLongerThanTheRunOnlyRises) {
  const Schedule schedule(options("cosine", 100), 1.0, 10);
  for (int64_t step = 0; step < 10; ++step) EXPECT_DOUBLE_EQ(schedule.at(step), step / 100.0);
  EXPECT_DOUBLE_EQ(schedule.at(100), 1.0);
  EXPECT_DOUBLE_EQ(schedule.at(101), 0.0);
}

TEST(Schedule, ARunOfOneStepHasTheBaseRate) {
  EXPECT_DOUBLE_EQ(Schedule(options("cosine", 0), 1.0, 1).at(0), 1.0);
}

}  // namespace
}  // namespace vitrail::train
