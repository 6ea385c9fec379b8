// The kernels of heads.h on the CPU against the plain loops.

#include "vitrail/kernels/heads.h"

#include <gtest/gtest.h>

#include "emulator.h"
#include "tests/kernels/heads_cases.h"
#include "vitrail/core/error.h"

namespace vitrail::testing {
namespace {

HeadsCandidate emulated() {
  return {[](const Heads& task) { kernels::prepare_heads(task, nullptr); },
          [](const HeadsBackward& task) { kernels::prepare_heads_backward(task, nullptr); },
          kernels::heads_partials};
}

TEST(EmulatedHeads, EqualThePlainLoopForEveryWidthNormAndTurn) {
  Worst worst;
  for (const HeadsCase& c : heads_cases()) {
    HostMemory memory;
    check_heads(emulated(), c, memory, worst);
    if (HasFatalFailure()) return;
  }
  worst.print("prepare_heads");
}

TEST(EmulatedHeads, AreTheSameInEveryOrderOfThreads) {
  const HeadsCase c{.shape = {2, 9, 4, 2, 80}};
  const HeadsInputs in(c);
  HostMemory memory;
  const HeadsGradients once = run_backward(emulated(), c, in, memory);
  emulation::in_every_order(2, [&] {
    const HeadsGradients again = run_backward(emulated(), c, in, memory);
    EXPECT_EQ(again.dqkv, once.dqkv);
    EXPECT_EQ(again.dq_weight, once.dq_weight);
    EXPECT_EQ(again.dk_bias, once.dk_bias);
  });
}

TEST(EmulatedHeads, RefuseWidthsThatDoNotFit) {
  for (const int64_t width : {12, 264}) {
    const Heads task{.shape = {1, 1, 1, 1, width}};
    EXPECT_THROW(kernels::prepare_heads(task, nullptr), core::Error) << width;
    EXPECT_THROW(kernels::prepare_heads_plain(task), core::Error) << width;
  }
}

}  // namespace
}  // namespace vitrail::testing
