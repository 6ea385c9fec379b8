// The kernels of residual_norm.h on the CPU against the plain loops.

#include "vitrail/kernels/residual_norm.h"

#include <gtest/gtest.h>

#include "emulator.h"
#include "tests/kernels/norm_cases.h"
#include "vitrail/core/error.h"

namespace vitrail::testing {
namespace {

NormCandidate emulated() {
  return {[](const ResidualNorm& task) { kernels::residual_norm(task, nullptr); },
          [](const ResidualNormBackward& task) { kernels::residual_norm_backward(task, nullptr); },
          kernels::residual_norm_partials};
}

TEST(EmulatedResidualNorm, EqualsThePlainLoopAtEveryWidthAndOption) {
  Worst worst;
  for (const NormCase& c : norm_cases()) {
    HostMemory memory;
    check_norm(emulated(), c, memory, worst);
    if (HasFatalFailure()) return;
  }
  worst.print("residual_norm");
}

TEST(EmulatedResidualNorm, EqualsThePlainLoopWithManyRowsOfOneTeam) {
  Worst worst;
  for (const NormCase& c : long_norm_cases()) {
    HostMemory memory;
    check_norm(emulated(), c, memory, worst);
    if (HasFatalFailure()) return;
  }
  worst.print("residual_norm, many rows");
}

TEST(EmulatedResidualNorm, IsTheSameInEveryOrderOfThreads) {
  for (const int64_t width : {64, 264, 1280, 2056, 4104}) {
    NormCase c{.shape = {3, 7, width}};
    c.gamma = true;
    const NormInputs in(c);
    HostMemory memory;
    const NormForward forward = run_forward(emulated(), c, in, memory);
    const NormBackward backward = run_backward(emulated(), c, in, memory);
    emulation::in_every_order(2, [&] {
      EXPECT_EQ(run_forward(emulated(), c, in, memory).y, forward.y);
      const NormBackward again = run_backward(emulated(), c, in, memory);
      EXPECT_EQ(again.dx, backward.dx);
      EXPECT_EQ(again.dweight, backward.dweight);
      EXPECT_EQ(again.dgamma, backward.dgamma);
    });
  }
}

TEST(EmulatedResidualNorm, RefusesWidthsThatDoNotFit) {
  for (const int64_t width : {0, 12, 16392}) {
    const ResidualNorm task{.shape = {1, 1, width}};
    EXPECT_THROW(kernels::residual_norm(task, nullptr), core::Error) << width;
    EXPECT_THROW(kernels::residual_norm_plain(task), core::Error) << width;
  }
}

}  // namespace
}  // namespace vitrail::testing
