// Rules of the loss scale and of the schedule's form.

#include <cmath>

#include <fmt/format.h>

#include "vitrail/config/rules.h"

namespace vitrail::config {

namespace {

constexpr int64_t kMaxPower = 100;  // 2^100 times any loss is still an fp32 number
constexpr int64_t kMaxCount = int64_t{1} << 31;

}  // namespace

void check_loss_scale(const Train& train, RuleBook& rules) {
  const LossScale& scale = train.loss_scale;
  if (!(train.precision == "fp16")) {
    if (!(scale == LossScale{}))
      rules.add({"train.loss_scale", "train.precision"},
                fmt::format("train.loss_scale is for train.precision fp16 but that is {}; leave "
                            "one of them out",
                            train.precision.value));
    return;
  }
  rules.at_least("train.loss_scale.fixed", scale.fixed, 0);
  rules.within("train.loss_scale.window", scale.window, 1, kMaxCount);
  rules.within("train.loss_scale.hysteresis", scale.hysteresis, 1, kMaxCount);
  const bool power =
      rules.within("train.loss_scale.initial_power", scale.initial_power, 0, kMaxPower);
  const bool minimum = rules.above("train.loss_scale.minimum", scale.minimum, 0);
  if (power && minimum && scale.fixed == 0 &&
      scale.minimum > std::exp2(static_cast<double>(scale.initial_power)))
    rules.add({"train.loss_scale.minimum", "train.loss_scale.initial_power"},
              fmt::format("train.loss_scale.minimum must be at most 2^initial_power but got {} and "
                          "2^{}",
                          scale.minimum, scale.initial_power));
}

void check_schedule_form(const Schedule& schedule, RuleBook& rules) {
  constexpr int64_t kMaxSteps = INT32_MAX;
  if (schedule.total_steps &&
      rules.within("train.schedule.total_steps", *schedule.total_steps, 1, kMaxSteps)) {
    if (schedule.kind == "constant")
      rules.add({"train.schedule.total_steps", "train.schedule.kind"},
                "train.schedule.total_steps is where kind cosine or linear ends but the kind is "
                "constant; set it to null");
    else if (*schedule.total_steps <= schedule.warmup_steps)
      rules.add({"train.schedule.total_steps", "train.schedule.warmup_steps"},
                fmt::format("train.schedule.total_steps must be above warmup_steps but got {} and "
                            "{}",
                            *schedule.total_steps, schedule.warmup_steps));
  }
  if (schedule.warmup == "log" && schedule.counting == "vitrail" && schedule.warmup_steps < 2)
    rules.add({"train.schedule.warmup", "train.schedule.warmup_steps"},
              fmt::format("train.schedule.warmup log needs warmup_steps of at least 2 but got {}",
                          schedule.warmup_steps));
}

}  // namespace vitrail::config
