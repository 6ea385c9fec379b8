#include "vitrail/train/schedule.h"

#include <algorithm>
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

/// WarmupLR's gamma (spec 2.2): ln(t + 1) / ln(W) or t / W, then 1.
double warmup_gamma(int64_t t, int64_t warmup, bool log) {
  const int64_t whole = std::max<int64_t>(2, warmup);
  if (t >= whole) return 1.0;
  return log ? std::log(static_cast<double>(t + 1)) / std::log(static_cast<double>(whole))
             : static_cast<double>(t) / static_cast<double>(whole);
}

config::Schedule deepspeed(const char* kind, const char* rise, int64_t warmup, double start,
                           double end) {
  config::Schedule schedule = options(kind, warmup, start, end);
  schedule.counting.value = "deepspeed";
  schedule.warmup.value = rise;
  return schedule;
}

constexpr double kBase = 2e-4;
constexpr int64_t kWarmups[] = {0, 1, 2, 3, 100, 1000};

// The same formulas in another order of operations: a few roundings of fp64.
void expect_rate(double found, double expected, int64_t t) {
  EXPECT_NEAR(found, expected, 1e-15 * kBase) << "t = " << t;
}

TEST(Schedule, DeepSpeedsWarmupLrIsReproduced) {
  for (const char* rise : {"log", "linear"})
    for (const int64_t warmup : kWarmups) {
      const Schedule schedule(deepspeed("constant", rise, warmup, 1e-6, 0), kBase, 5000);
      for (int64_t t = 0; t < 6000; ++t)
        expect_rate(schedule.at(t), 1e-6 + (kBase - 1e-6) * warmup_gamma(t, warmup, rise[1] == 'o'),
                    t);
    }
}

TEST(Schedule, DeepSpeedsWarmupDecayLrIsReproduced) {
  for (const char* rise : {"log", "linear"})
    for (const int64_t warmup : kWarmups) {
      const int64_t total = 5000, whole = std::max<int64_t>(2, warmup);
      const Schedule schedule(deepspeed("linear", rise, warmup, 1e-6, 1e-6), kBase, total);
      for (int64_t t = 0; t < 6000; ++t) {
        const double gamma = t < whole ? warmup_gamma(t, warmup, rise[1] == 'o')
                                       : std::max(0.0, static_cast<double>(total - t) /
                                                           static_cast<double>(total - whole));
        expect_rate(schedule.at(t), 1e-6 + (kBase - 1e-6) * gamma, t);
      }
    }
}

TEST(Schedule, DeepSpeedsWarmupCosineLrIsReproduced) {
  const double least = 1e-4, first = 0.01;  // cos_min_ratio, warmup_min_ratio
  for (const char* rise : {"log", "linear"})
    for (const int64_t warmup : kWarmups) {
      const int64_t total = 5000, whole = std::max<int64_t>(2, warmup);
      const Schedule schedule(deepspeed("cosine", rise, warmup, first * kBase, least * kBase),
                              kBase, total);
      for (int64_t t = 0; t < total; ++t) {
        double ratio = first + (1 - first) * warmup_gamma(t, warmup, rise[1] == 'o');
        if (t >= whole)
          ratio = least + (1 - least) *
                              (1 + std::cos(std::numbers::pi * static_cast<double>(t - whole + 1) /
                                            static_cast<double>(total - whole))) /
                              2;
        expect_rate(schedule.at(t), ratio * kBase, t);
      }
      // Theirs rises again past the end.
      EXPECT_DOUBLE_EQ(schedule.at(total + 700), least * kBase);
    }
}

TEST(Schedule, ItsOwnLengthTakesThePlaceOfTheRuns) {
  config::Schedule options_of_100 = options("linear", 0, 0.0, 0.0);
  options_of_100.total_steps = 101;
  const Schedule schedule(options_of_100, 1.0, 7);
  EXPECT_DOUBLE_EQ(schedule.at(6), 0.94);
  EXPECT_DOUBLE_EQ(schedule.at(100), 0.0);
}

TEST(Schedule, AWarmUpByLogarithmRisesFast) {
  config::Schedule by_log = options("constant", 64);
  by_log.warmup.value = "log";
  const Schedule schedule(by_log, 1.0, 100);
  EXPECT_DOUBLE_EQ(schedule.at(0), 0.0);
  EXPECT_DOUBLE_EQ(schedule.at(7), 0.5);  // ln 8 / ln 64
  EXPECT_DOUBLE_EQ(schedule.at(63), 1.0);
  EXPECT_DOUBLE_EQ(schedule.at(64), 1.0);
}

}  // namespace
}  // namespace vitrail::train
