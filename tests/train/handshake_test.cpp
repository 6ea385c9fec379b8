#include "vitrail/train/handshake.h"

#include <mutex>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "vitrail/core/error.h"

namespace vitrail::train {
namespace {

using ::testing::HasSubstr;

/// What each of four ranks throws; `change` alters the identity of a rank.
template <class Error>
std::string message_of_all(const std::function<void(Identity&, int)>& change) {
  std::mutex mutex;
  std::multiset<std::string> messages;
  comm::run_thread_group(4, [&](comm::Communicator& world) {
    Identity mine{"1.2.3", "cpu", "run:\n  name: a\ntrain:\n  steps: 10\n"};
    change(mine, world.rank());
    try {
      handshake(world, mine);
    } catch (const Error& error) {
      const std::lock_guard lock(mutex);
      messages.insert(error.what());
    }
  });
  if (messages.empty()) return "";
  EXPECT_EQ(messages.count(*messages.begin()), 4u);
  return *messages.begin();
}

TEST(Handshake, RanksThatAgreeGoOn) {
  EXPECT_EQ(message_of_all<core::Error>([](Identity&, int) {}), "");
}

TEST(Handshake, NamesRanksAndTheFirstLineOfAnotherRecipe) {
  const std::string text = message_of_all<core::ConfigError>([](Identity& mine, int rank) {
    if (rank == 1 || rank == 3) mine.recipe = "run:\n  name: a\ntrain:\n  steps: 20\n";
  });
  EXPECT_THAT(text, HasSubstr("that of ranks 1, 3 differs"));
  EXPECT_THAT(text, HasSubstr("line 4: '  steps: 20' there, '  steps: 10' on rank 0"));
}

TEST(Handshake, NamesTheLineThatIsTooMany) {
  EXPECT_THAT(message_of_all<core::ConfigError>([](Identity& mine, int rank) {
                if (rank == 2) mine.recipe += "eval: {}\n";
              }),
              HasSubstr("line 5: 'eval: {}' there, '(end)' on rank 0"));
}

TEST(Handshake, NamesOtherVersionsAndDevices) {
  const std::string version = message_of_all<core::CommError>([](Identity& mine, int rank) {
    if (rank > 1) mine.version = "1.2.4";
  });
  EXPECT_THAT(version, HasSubstr("ranks 2, 3 run 1.2.4 and rank 0 1.2.3"));
  const std::string device = message_of_all<core::CommError>([](Identity& mine, int rank) {
    if (rank == 3) mine.device = "cuda";
  });
  EXPECT_THAT(device, HasSubstr("rank 3 on cuda and rank 0 on cpu"));
}

}  // namespace
}  // namespace vitrail::train
