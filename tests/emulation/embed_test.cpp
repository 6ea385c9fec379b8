// The kernels of embed.h on the CPU against the plain loops.

#include "vitrail/kernels/embed.h"

#include <gtest/gtest.h>

#include "emulator.h"
#include "tests/kernels/embed_cases.h"

namespace vitrail::testing {
namespace {

EmbedCandidate emulated() {
  return {[](const Patchify& task) { kernels::patchify(task, nullptr); },
          [](const JoinTokens& task) { kernels::join_tokens(task, nullptr); },
          [](const SplitTokens& task) { kernels::split_tokens(task, nullptr); }};
}

TEST(EmulatedEmbed, EqualsThePlainLoopToTheBit) {
  HostMemory memory;
  check_embed(emulated(), memory);
}

TEST(EmulatedEmbed, IsTheSameInEveryOrderOfThreads) {
  emulation::in_every_order(2, [] {
    HostMemory memory;
    check_embed(emulated(), memory);
  });
}

}  // namespace
}  // namespace vitrail::testing
