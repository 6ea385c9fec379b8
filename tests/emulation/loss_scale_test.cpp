// The scaler's kernel against the same function on the host.

#include "vitrail/kernels/loss_scale.h"

#include <cmath>
#include <limits>

#include <gtest/gtest.h>

#include "emulator.h"

namespace vitrail::kernels {
namespace {

TEST(EmulatedLossScale, DoesWhatTheHostDoes) {
  const LossScaleRules rules{.window = 3, .hysteresis = 2, .minimum = 1.0};
  LossScaleState on_host{.scale = 4}, on_device{.scale = 4};
  for (int step = 0; step < 40; ++step) {
    const double sum =
        step % 5 < 2 && step > 20 ? std::numeric_limits<double>::infinity() : 3.0 * step;
    float host[3], device[3];
    LossScaleReport host_report{}, device_report{};
    unscale(&sum, 1.0f, rules, &on_host, &host[0], &host[1], &host[2], &host_report);
    unscale_on_device(&sum, 1.0f, rules, &on_device, &device[0], &device[1], &device[2],
                      &device_report, nullptr);
    EXPECT_EQ(on_device, on_host) << step;
    for (int i = 0; i < 3; ++i) EXPECT_EQ(device[i], host[i]) << step << " " << i;
    EXPECT_EQ(device_report.scale, host_report.scale);
    EXPECT_EQ(device_report.failed, host_report.failed);
  }
}

}  // namespace
}  // namespace vitrail::kernels
