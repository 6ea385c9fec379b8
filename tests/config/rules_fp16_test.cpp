#include <gtest/gtest.h>

#include "vitrail/config/recipe.h"
#include "vitrail/core/error.h"

namespace vitrail::config {
namespace {

std::string refusal(const std::vector<std::string>& overrides) {
  try {
    parse_recipe("run: {name: x}\n", "r.yaml", overrides);
  } catch (const core::ConfigError& error) {
    return error.what();
  }
  return "";
}

TEST(LossScaleRules, RefuseWhatMakesNoSense) {
  const std::string fp16 = "train.precision=fp16";
  EXPECT_EQ(refusal({fp16, "train.loss_scale.window=0"}),
            "[config] train.loss_scale.window must be at least 1 but got 0  (command line: "
            "train.loss_scale.window=0)");
  EXPECT_EQ(refusal({fp16, "train.loss_scale.hysteresis=0"}),
            "[config] train.loss_scale.hysteresis must be at least 1 but got 0  (command line: "
            "train.loss_scale.hysteresis=0)");
  EXPECT_EQ(refusal({fp16, "train.loss_scale.initial_power=101"}),
            "[config] train.loss_scale.initial_power must be at most 100 but got 101  (command "
            "line: train.loss_scale.initial_power=101)");
  EXPECT_EQ(refusal({fp16, "train.loss_scale.minimum=0"}),
            "[config] train.loss_scale.minimum must be above 0 but got 0  (command line: "
            "train.loss_scale.minimum=0)");
  EXPECT_EQ(refusal({fp16, "train.loss_scale={minimum: 32, initial_power: 4}"}),
            "[config] train.loss_scale.minimum must be at most 2^initial_power but got 32 and 2^4  "
            "(command line: train.loss_scale={minimum: 32, initial_power: 4})");
  EXPECT_EQ(refusal({"train.precision=bf16", "train.loss_scale.fixed=8"}),
            "[config] train.loss_scale is for train.precision fp16 but that is bf16; leave one of "
            "them out  (command line: train.loss_scale.fixed=8, command line: "
            "train.precision=bf16)");
  EXPECT_EQ(refusal({fp16, "train.loss_scale.fixed=8"}), "");
  EXPECT_EQ(refusal({fp16, "train.loss_scale={minimum: 32, fixed: 8, initial_power: 4}"}), "");
}

TEST(ScheduleRules, RefuseWhatMakesNoSense) {
  EXPECT_EQ(refusal({"train.schedule={kind: constant, total_steps: 10}"}),
            "[config] train.schedule.total_steps is where kind cosine or linear ends but the kind "
            "is constant; set it to null  (command line: train.schedule={kind: constant, "
            "total_steps: 10})");
  EXPECT_EQ(refusal({"train.schedule={total_steps: 10, warmup_steps: 10}"}),
            "[config] train.schedule.total_steps must be above warmup_steps but got 10 and 10  "
            "(command line: train.schedule={total_steps: 10, warmup_steps: 10})");
  EXPECT_EQ(refusal({"train.schedule={warmup: log}"}),
            "[config] train.schedule.warmup log needs warmup_steps of at least 2 but got 0  "
            "(command line: train.schedule={warmup: log})");
  EXPECT_EQ(refusal({"train.schedule={warmup: log, counting: deepspeed}"}), "");
  EXPECT_EQ(refusal({"train.schedule={total_steps: 0}"}),
            "[config] train.schedule.total_steps must be at least 1 but got 0  (command line: "
            "train.schedule={total_steps: 0})");
}

}  // namespace
}  // namespace vitrail::config
