// The kernels of patch.h on the CPU against the plain loops.

#include "vitrail/kernels/patch.h"

#include <gtest/gtest.h>

#include "emulator.h"
#include "tests/kernels/patch_cases.h"

namespace vitrail::testing {
namespace {

PatchCandidate emulated() {
  return {[](const TokenShape& shape, const uint16_t* all, const int64_t* keep, uint16_t* kept) {
            kernels::keep_tokens(shape, all, keep, kept, nullptr);
          },
          [](const RestoreTokens& task) { kernels::restore_tokens(task, nullptr); },
          [](const RestoreTokensSums& task) { kernels::restore_tokens_sums(task, nullptr); },
          kernels::restore_tokens_partials};
}

TEST(EmulatedPatch, TokensAreKeptAndRestoredAsByThePlainLoop) {
  Worst worst;
  for (const PatchCase& c : patch_cases()) {
    HostMemory memory;
    check_patch(emulated(), c, memory, worst);
    if (HasFailure()) return;
  }
  worst.print("patch");
}

TEST(EmulatedPatch, IsTheSameInEveryOrderOfThreads) {
  const PatchCase c{.shape = {2, 49, 12, 1, 264}};
  const PatchInputs in(c);
  HostMemory memory;
  const PatchResult once = run(emulated(), c, in, memory);
  emulation::in_every_order(2, [&] {
    const PatchResult again = run(emulated(), c, in, memory);
    EXPECT_EQ(again.all, once.all);
    EXPECT_EQ(again.dmask_token, once.dmask_token);
  });
}

}  // namespace
}  // namespace vitrail::testing
