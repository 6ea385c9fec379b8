// Processes in a queue: order, places, failures, and what a stop does.

#include "vitrail/train/child_queue.h"

#include <csignal>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "vitrail/core/clock.h"
#include "vitrail/core/error.h"

namespace vitrail::train {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;

class ChildQueue : public testing::Test {
 protected:
  ChildQueue() : folder_(fs::temp_directory_path() / fmt::format("children-{}", ::getpid())) {
    fs::create_directories(folder_);
  }
  ~ChildQueue() override { fs::remove_all(folder_); }

  ChildCommand shell(const std::string& text, const std::string& output) const {
    return {{"/bin/sh", "-c", text}, (folder_ / output).string()};
  }
  std::string printed(const std::string& output) const {
    std::ifstream file(folder_ / output);
    std::ostringstream text;
    text << file.rdbuf();
    return text.str();
  }
  /// Runs them; remembers how each ended.
  int run(const std::vector<ChildJob>& jobs, const std::vector<ChildSlot>& slots,
          std::function<int()> stop = {}, double grace = 60.0) {
    ChildEvents events;
    events.started = [this](size_t job, size_t) { started_.push_back(job); };
    events.ended = [this](const ChildEnd& end) { ends_[end.job] = end; };
    events.stop = std::move(stop);
    return run_children(jobs, slots, events, grace);
  }

  fs::path folder_;
  std::vector<size_t> started_;
  std::map<size_t, ChildEnd> ends_;
};

TEST_F(ChildQueue, RunsCommandsInOrderInThePlacesThereAre) {
  std::vector<ChildJob> jobs;
  for (int j = 0; j < 5; ++j) {
    const std::string out = fmt::format("{}", j);
    jobs.push_back({out, {shell("echo first in $PLACE", out), shell("echo second >&2", out)}});
  }
  EXPECT_EQ(run(jobs, {{"a", {{"PLACE", "a"}}}, {"b", {{"PLACE", "b"}}}}), 0);
  EXPECT_THAT(started_, ElementsAre(0, 1, 2, 3, 4));
  for (int j = 0; j < 5; ++j) {
    EXPECT_EQ(ends_[j].exit_code, 0);
    EXPECT_THAT(printed(fmt::format("{}", j)), testing::MatchesRegex("first in [ab]\nsecond\n"));
  }
  EXPECT_EQ(printed("0"), "first in a\nsecond\n");
  EXPECT_EQ(printed("1"), "first in b\nsecond\n");
}

TEST_F(ChildQueue, AFailureEndsItsJobAlone) {
  EXPECT_EQ(run({{"bad", {shell("exit 3", "0"), shell("echo never", "0")}},
                 {"killed", {shell("kill -9 $$", "1")}},
                 {"absent", {{{"/no/such/program"}, (folder_ / "2").string()}}},
                 {"good", {shell("echo well", "3")}}},
                {{"a", {}}}),
            0);
  EXPECT_EQ(ends_[0].exit_code, 3);
  EXPECT_EQ(ends_[0].command, 0u);
  EXPECT_EQ(ends_[1].exit_code, 128 + SIGKILL);
  EXPECT_EQ(ends_[2].exit_code, 127);
  EXPECT_EQ(printed("0"), "");
  EXPECT_EQ(printed("3"), "well\n");
}

TEST_F(ChildQueue, AStopIsHandedOnAndNothingElseBegins) {
  // exec: the shell itself waits, so that the signal ends it at once.
  const std::string waits =
      "trap 'echo saved; exit 75' TERM; echo ready; while :; do sleep 0.05; done";
  const auto stop = [this] { return printed("0") == "ready\n" ? SIGTERM : 0; };
  EXPECT_EQ(run({{"waits", {shell(waits, "0"), shell("echo never", "0")}},
                 {"never", {shell("echo never", "1")}}},
                {{"a", {}}}, stop),
            SIGTERM);
  EXPECT_EQ(ends_[0].exit_code, 75);
  EXPECT_EQ(printed("0"), "ready\nsaved\n");
  EXPECT_THAT(started_, ElementsAre(0));
  EXPECT_EQ(printed("1"), "");
}

TEST_F(ChildQueue, WhoeverDoesNotStopIsKilled) {
  const std::string deaf = "trap '' TERM; echo ready; while :; do sleep 0.05; done";
  const auto stop = [this] { return printed("0") == "ready\n" ? SIGTERM : 0; };
  const core::Stopwatch watch;
  EXPECT_EQ(run({{"deaf", {shell(deaf, "0")}}}, {{"a", {}}}, stop, 0.2), SIGTERM);
  EXPECT_EQ(ends_[0].exit_code, 128 + SIGKILL);
  EXPECT_LT(watch.seconds(), 30.0);
}

TEST_F(ChildQueue, AJobThatAStopKeptFromItsNextCommandHasNotEndedWell) {
  const std::string deaf = "trap '' TERM; echo ready; sleep 0.3; exit 0";
  const auto stop = [this] { return printed("0") == "ready\n" ? SIGTERM : 0; };
  run({{"two", {shell(deaf, "0"), shell("echo never", "0")}}}, {{"a", {}}}, stop);
  EXPECT_EQ(ends_[0].exit_code, static_cast<int>(core::ExitCode::preempted));
  EXPECT_EQ(printed("0"), "ready\n");
}

}  // namespace
}  // namespace vitrail::train
