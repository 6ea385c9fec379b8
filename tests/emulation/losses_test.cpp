// The kernels of losses.h on the CPU against the plain loops.

#include "vitrail/kernels/losses.h"

#include <gtest/gtest.h>

#include "emulator.h"
#include "tests/kernels/losses_cases.h"

namespace vitrail::testing {
namespace {

LossCandidate emulated() {
  return {[](const CrossEntropy& task) { kernels::cross_entropy(task, nullptr); },
          [](const TokenError& task) { kernels::token_error(task, nullptr); }};
}

TEST(EmulatedLosses, CrossEntropyEqualsThePlainLoop) {
  Worst worst;
  for (const CrossEntropyCase& c : cross_entropy_cases()) {
    ASSERT_EQ(kernels::cross_entropy_partials(c.rows), c.rows + 1);
    HostMemory memory;
    check_loss(emulated(), c, memory, worst);
    if (HasFatalFailure()) return;
  }
  worst.print("cross_entropy");
}

TEST(EmulatedLosses, CrossEntropyIsZeroWhenNothingCounts) {
  const CrossEntropyCase c{.rows = 3, .classes = 5};
  CrossEntropyInputs in(c);
  in.label = {-1, -1, 5};
  HostMemory memory;
  const Scored scored = run(emulated(), c, in, memory);
  EXPECT_EQ(scored.loss[0], 0.0f);
  EXPECT_EQ(widened(scored.gradient), Floats(15, 0.0f));
}

TEST(EmulatedLosses, TokenErrorEqualsThePlainLoop) {
  Worst worst;
  for (const TokenErrorCase& c : token_error_cases()) {
    HostMemory memory;
    check_loss(emulated(), c, memory, kernels::token_error_partials(), worst);
    if (HasFatalFailure()) return;
  }
  worst.print("token_error");
}

TEST(EmulatedLosses, AreTheSameInEveryOrderOfThreads) {
  const CrossEntropyCase c{.rows = 3, .classes = 300, .smoothing = 0.1f, .in_place = true};
  const CrossEntropyInputs in(c);
  const TokenErrorCase e{2, 9, 1, 75, true, true, true};
  const TokenErrorInputs error_in(e);
  HostMemory memory;
  const Scored once = run(emulated(), c, in, memory);
  const Scored error = run(emulated(), e, error_in, memory, kernels::token_error_partials());
  emulation::in_every_order(2, [&] {
    const Scored again = run(emulated(), c, in, memory);
    EXPECT_EQ(again.loss, once.loss);
    EXPECT_EQ(again.gradient, once.gradient);
    const Scored error_again =
        run(emulated(), e, error_in, memory, kernels::token_error_partials());
    EXPECT_EQ(error_again.loss, error.loss);
    EXPECT_EQ(error_again.gradient, error.gradient);
  });
}

}  // namespace
}  // namespace vitrail::testing
