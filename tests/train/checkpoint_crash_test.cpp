// Faults while saving: operations that fail, and processes that die at every point of a save.

#include <atomic>
#include <chrono>
#include <csignal>
#include <set>
#include <thread>

#include <ATen/ops/zeros.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "checkpoint_sample.h"

namespace vitrail::train {

namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr int kRanks = 3;

/// Counts a rank's file operations of one save.
int count_operations(int rank) {
  const TemporaryFolder folder;
  std::atomic<int> count{0};
  comm::run_thread_group(kRanks, [&](comm::Communicator& group) {
    CheckpointOptions options{.folder = folder.path(), .async = false};
    if (group.rank() == rank)
      options.before_operation = [&](std::string_view, const std::string&) { ++count; };
    CheckpointWriter(group, options).save(sample_state(1), sample_info(2));
  });
  return count;
}

void save_with_failure(const std::string& folder, int failing_rank, int failing_operation,
                       bool async) {
  comm::run_thread_group(kRanks, [&](comm::Communicator& group) {
    int operation = 0;
    bool broken = true;
    CheckpointOptions options{.folder = folder, .keep = 0, .async = async};
    options.before_operation = [&](std::string_view, const std::string& path) {
      if (broken && group.rank() == failing_rank && operation++ == failing_operation)
        core::fail<core::CheckpointError>("[checkpoint] {}: cannot write: No space left on device",
                                          path);
    };
    CheckpointWriter writer(group, options);
    const std::string error = checkpoint_error([&] {
      writer.save(sample_state(2), sample_info(4));
      writer.finish();
    });
    EXPECT_THAT(error,
                HasSubstr("No space left on device (rank " + std::to_string(failing_rank) + ")"));
    EXPECT_THAT(error, HasSubstr("earlier checkpoints are unchanged"));
    EXPECT_EQ(writer.last().step, -1);
    broken = false;  // the disk has room again: the same writer goes on
    writer.save(sample_state(3), sample_info(6));
    writer.finish();
    EXPECT_EQ(writer.last().step, 6);
  });
}

TEST(CheckpointFaults, AFailureOfAnyOperationOnAnyRankIsThrownOnAllAndHarmsNothing) {
  int faults = 0;
  for (int rank = 0; rank < kRanks; ++rank) {
    const int operations = count_operations(rank);
    // The last operation of rank 0 flushes the parent after the rename: the checkpoint is then
    // already in place.
    const int before_publishing = operations - (rank == 0 ? 1 : 0);
    ASSERT_GE(before_publishing, 3);
    for (int operation = 0; operation < before_publishing; ++operation)
      for (bool async : {false, true}) {
        const TemporaryFolder folder;
        save_once(folder.path(), kRanks, 2, sample_state(1));
        save_with_failure(folder.path(), rank, operation, async);
        EXPECT_THAT(names_in(folder.path()), ElementsAre("step-00000002", "step-00000006"));
        auto loaded = sample_state(9);
        CheckpointReader(folder / "step-00000002").load(loaded);
        expect_same(sample_state(1), loaded);
        EXPECT_EQ(find_newest_valid(folder.path()).path, folder / "step-00000006");
        ++faults;
      }
  }
  fmt::print("{} injected faults\n", faults);
}

TEST(CheckpointFaults, AnUnwritableFolderIsNamedOnEveryRank) {
  const TemporaryFolder folder;
  write_bytes(folder / "file", "x");
  comm::run_thread_group(kRanks, [&](comm::Communicator& group) {
    EXPECT_THAT(checkpoint_error([&] { CheckpointWriter(group, {.folder = folder / "file"}); }),
                HasSubstr(folder / "file"));
  });
}

/// Runs `body` in a child process; its exit status as of waitpid.
template <class Body>
int in_child(Body&& body) {
  const pid_t child = ::fork();
  if (child == 0) {
    body();
    ::_exit(0);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return status;
}

TEST(CheckpointFaults, ARealLimitOnFileSizeIsReportedAndHarmsNothing) {
  const TemporaryFolder folder;
  save_once(folder.path(), kRanks, 2, sample_state(1));
  const int status = in_child([&] {
    std::signal(SIGXFSZ,
                SIG_IGN);  // then write() fails with EFBIG, as it does with ENOSPC on a full disk
    const rlimit limit{20000, 20000};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    std::atomic<int> good{0};
    comm::run_thread_group(kRanks, [&](comm::Communicator& group) {
      CheckpointWriter writer(group, {.folder = folder.path(), .async = group.size() > 1});
      const std::vector<TensorState> big{{"x", at::zeros({100000})}};
      writer.save(big, sample_info(4));
      const std::string error = checkpoint_error([&] { writer.finish(); });
      good += error.find("File too large; free space or lower checkpoint.keep (rank 0)") !=
              std::string::npos;
    });
    ::_exit(good == kRanks ? 42 : 1);
  });
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 42);
  EXPECT_THAT(names_in(folder.path()), ElementsAre("step-00000002"));
  EXPECT_EQ(find_newest_valid(folder.path()).path, folder / "step-00000002");
}

/// What a restart finds: a valid newest checkpoint, and no leftovers once a writer was opened.
void expect_survives(const std::string& folder, int64_t at_least) {
  const Newest newest = find_newest_valid(folder);
  ASSERT_NE(newest.path, "");
  EXPECT_THAT(newest.skipped, IsEmpty());
  const CheckpointReader reader(newest.path);
  EXPECT_GE(reader.info().step, at_least);
  auto loaded = sample_state(9999);
  reader.load(loaded);
  expect_same(sample_state(static_cast<uint64_t>(reader.info().step)), loaded);
  const auto group = comm::self_communicator();
  { const CheckpointWriter writer(*group, {.folder = folder}); }
  for (const std::string& name : names_in(folder))
    EXPECT_EQ(name.find(".tmp"), std::string::npos) << name;
}

TEST(CheckpointCrash, AProcessMayDieBeforeAnyOperation) {
  int deaths = 0;
  for (int rank = 0; rank < kRanks; ++rank)
    for (bool again : {false, true}) {  // again: the step exists already and is replaced
      for (int point = 0;; ++point) {
        const TemporaryFolder folder;
        save_once(folder.path(), kRanks, 2, sample_state(2));
        const int status = in_child([&] {
          comm::run_thread_group(kRanks, [&](comm::Communicator& group) {
            int operation = 0;
            CheckpointOptions options{.folder = folder.path(), .keep = 1, .async = true};
            options.before_operation = [&](std::string_view, const std::string&) {
              if (group.rank() == rank && operation++ == point) ::kill(::getpid(), SIGKILL);
            };
            CheckpointWriter writer(group, options);
            writer.save(sample_state(again ? 2 : 4), sample_info(again ? 2 : 4));
            writer.finish();
          });
        });
        expect_survives(folder.path(), 2);
        if (WIFEXITED(status)) break;  // past the last operation
        ++deaths;
      }
    }
  fmt::print("killed before each of {} operations\n", deaths);
  EXPECT_GE(deaths, 20);
}

TEST(CheckpointCrash, AProcessMayBeKilledAtAnyMoment) {
  const TemporaryFolder folder;
  int64_t acknowledged = 0;
  int saves = 0;
  constexpr unsigned kKills = 60;
  std::set<int64_t> resumed;
  for (uint32_t kill = 0; kill < kKills; ++kill) {
    int channel[2];
    ASSERT_EQ(::pipe(channel), 0);
    const pid_t child = ::fork();
    if (child == 0) {
      comm::run_thread_group(kRanks, [&](comm::Communicator& group) {
        const Newest newest = resolve_resume("auto", folder.path(), group);
        int64_t step = newest.path.empty() ? 0 : CheckpointReader(newest.path).info().step;
        CheckpointWriter writer(group, {.folder = folder.path(), .keep = 2, .start_step = step});
        while (true) {
          step += 2;
          writer.save(sample_state(static_cast<uint64_t>(step)), sample_info(step));
          const int64_t done = writer.last().step;
          if (done > 0 && group.rank() == 0 && ::write(channel[1], &done, sizeof done) < 0)
            ::_exit(1);
        }
      });
      ::_exit(1);
    }
    ::close(channel[1]);
    // Half of the kills come while it starts, half once it has saved again.
    int64_t done = 0;
    if (kill % 2 == 1 && ::read(channel[0], &done, sizeof done) == sizeof done)
      acknowledged = std::max(acknowledged, done);
    std::this_thread::sleep_for(std::chrono::microseconds(core::draw({7}, kill, 0) % 40000));
    ::kill(child, SIGKILL);
    int status = 0;
    ::waitpid(child, &status, 0);
    ASSERT_TRUE(WIFSIGNALED(status)) << "the child ended by itself, status " << status;
    for (; ::read(channel[0], &done, sizeof done) == sizeof done; ++saves)
      acknowledged = std::max(acknowledged, done);
    ::close(channel[0]);
    if (acknowledged > 0) expect_survives(folder.path(), acknowledged);
    resumed.insert(acknowledged);
  }
  fmt::print("{} kills, {} saves, last acknowledged step {}, {} different restart points\n", kKills,
             saves, acknowledged, resumed.size());
  EXPECT_GT(resumed.size(), kKills / 3);
}

}  // namespace

}  // namespace vitrail::train
