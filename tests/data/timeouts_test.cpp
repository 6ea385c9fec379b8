// Reads that fail for a while, or never return: a FIFO without a writer blocks who opens it.

#include <algorithm>
#include <chrono>
#include <set>
#include <thread>

#include <ATen/ops/equal.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "test_data.h"
#include "vitrail/core/clock.h"
#include "vitrail/core/error.h"
#include "vitrail/data/loader.h"

namespace vitrail::data {
namespace {

using testing::AllOf;
using testing::HasSubstr;

constexpr double kTimeout = 0.25;

std::vector<int64_t> to_vector(const at::Tensor& tensor) {
  const int64_t* values = tensor.const_data_ptr<int64_t>();
  return {values, values + tensor.numel()};
}

/// A class folder of images of which some are FIFOs.
class StuckFiles : public testing::Test {
 protected:
  void write(int64_t files, const std::set<int64_t>& stuck) {
    for (int64_t i = 0; i < files; ++i) {
      test::write_image(path(i), {6, 6}, 3, static_cast<uint64_t>(i));
      if (stuck.count(i) == 0) continue;
      std::filesystem::remove(path(i));
      ASSERT_EQ(::mkfifo(path(i).c_str(), 0600), 0);
    }
    stuck_ = stuck;
    options_.global_batch = 4;
    options_.seed = 11;
    options_.workers = 2;
    options_.prefetch = 1;  // else the next epochs wait for the same files meanwhile
    options_.read_timeout_s = kTimeout;
    options_.read_retries = 0;
  }
  void TearDown() override {
    for (const int64_t i : stuck_) release(path(i));
    release(folder_.path("set/fifo"));
  }
  /// Gives whoever waits for a FIFO the bytes of an image.
  void release(const std::string& fifo) const {
    if (!std::filesystem::is_fifo(fifo)) return;
    for (int waiting = 0; waiting < 20; ++waiting) {
      const int file = ::open(fifo.c_str(), O_WRONLY | O_NONBLOCK);
      if (file < 0) return;  // nobody waits
      test::write_image(folder_.path("other.png"), {6, 6}, 3, 1000);
      std::ifstream image(folder_.path("other.png"), std::ios::binary);
      const std::string bytes((std::istreambuf_iterator<char>(image)), {});
      EXPECT_EQ(::write(file, bytes.data(), bytes.size()), static_cast<ssize_t>(bytes.size()));
      ::close(file);
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
  }
  std::string path(int64_t i) const { return folder_.path(fmt::format("set/a/{:04}.png", i)); }
  Loader open(LoaderState start = {}) const {
    return Loader({test::folder_source(folder_.path("set"))}, test::model_of({6, 6}, 3, 1),
                  options_, start);
  }

  test::TemporaryFolder folder_;
  LoaderOptions options_;
  std::set<int64_t> stuck_;
};

TEST_F(StuckFiles, AreNamedWithTheirSecondsAndStopTheRun) {
  write(4, {2});
  Loader loader = open();
  const core::Stopwatch watch;
  const std::string message = test::message_of<core::DataError>([&] { loader.next(); });
  EXPECT_THAT(message, AllOf(HasSubstr("0002.png"), HasSubstr("read_timeout_s = 0.25 s")));
  EXPECT_GE(watch.seconds(), kTimeout);
  EXPECT_LT(watch.seconds(), 4 * kTimeout) << "looked at four times in that time";
  EXPECT_EQ(loader.timed_out(), 1);
}

TEST_F(StuckFiles, AreTriedAgain) {
  write(4, {2});
  options_.read_retries = 2;
  Loader loader = open();
  const core::Stopwatch watch;
  EXPECT_THAT(test::message_of<core::DataError>([&] { loader.next(); }), HasSubstr("attempt 3"));
  EXPECT_GE(watch.seconds(), 3 * kTimeout);
  EXPECT_EQ(loader.timed_out(), 3);
}

TEST_F(StuckFiles, AreReadWhenTheyAnswerTheSecondTime) {
  write(4, {2});
  options_.read_retries = 1;
  Loader loader = open();
  std::this_thread::sleep_for(std::chrono::duration<double>(kTimeout / 2));
  // Who waits at the old file goes on waiting; the name now leads to a sound one.
  std::filesystem::rename(path(2), folder_.path("set/fifo"));
  test::write_image(folder_.path("other.png"), {6, 6}, 3, 2);
  std::filesystem::rename(folder_.path("other.png"), path(2));
  Batch batch;
  EXPECT_NO_THROW(batch = loader.next());
  EXPECT_EQ(loader.timed_out(), 1);
  EXPECT_EQ(loader.skipped(), 0);
  ASSERT_TRUE(batch.image.defined());
  EXPECT_EQ(std::ranges::count(to_vector(batch.sample_ids), 2), 1);
}

TEST_F(StuckFiles, AreReplacedTheSameWayForAnyNumberOfWorkersAndRanks) {
  write(24, {3, 9, 10});
  options_.skip_errors = true;
  std::vector<int64_t> expected;
  const Sequence sequence(24, 11, true);
  for (int64_t slot = 0; slot < 24; ++slot) {
    int64_t next = slot;
    while (stuck_.count(sequence.sample_at(0, next % 24)) > 0) ++next;
    expected.push_back(sequence.sample_at(0, next % 24));
  }
  for (const int64_t ranks : {1, 2}) {
    std::vector<int64_t> found(24, -2);
    for (int64_t rank = 0; rank < ranks; ++rank) {
      options_.data_rank = rank;
      options_.data_ranks = ranks;
      options_.workers = 1 + 2 * ranks;
      options_.prefetch = 1 + rank;
      Loader loader = open();
      for (int64_t b = 0; b < 6; ++b) {
        const Batch batch = loader.next();
        const std::vector<int64_t> ids = to_vector(batch.sample_ids);
        std::ranges::copy(ids, found.begin() + batch.slot);
      }
      for (int64_t b = 0; b < 6; ++b) loader.next();  // a stuck file is not waited for again
      EXPECT_LE(loader.timed_out(), 6) << "at most by a few at once";
    }
    EXPECT_EQ(found, expected);
  }
}

TEST_F(StuckFiles, ThatAnswerLateWriteIntoNoBatch) {
  write(4, {2});
  options_.skip_errors = true;
  Loader loader = open();
  const Batch batch = loader.next();
  const at::Tensor before = batch.image.clone();
  release(path(2));
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  EXPECT_TRUE(at::equal(batch.image, before));
  EXPECT_EQ(std::ranges::count(to_vector(batch.sample_ids), 2), 0);
  EXPECT_EQ(std::ranges::count(to_vector(loader.next().sample_ids), 2), 0);
}

TEST_F(StuckFiles, DoNotHoldUpTheEnd) {
  write(8, {0, 1, 2, 3, 4, 5, 6, 7});
  options_.read_timeout_s = 0;  // never
  const core::Stopwatch watch;
  {
    Loader loader = open();
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  EXPECT_LT(watch.seconds(), 6.0) << "5 s are given to reads that are only slow";
}

TEST_F(StuckFiles, WhenTheyAreCachedFailForAllThatWaitForThem) {
  write(2, {1});
  config::Source source = test::source_of("images", folder_.path("set/a"));
  source.random_crop.per_epoch = 4;  // several samples a file: decoded files are kept
  source.random_crop.size = {4, 4};
  options_.workers = 4;
  options_.skip_errors = true;
  Loader loader({source}, test::model_of({4, 4}, 3, 1), options_);
  for (int64_t b = 0; b < 4; ++b)
    for (const int64_t id : to_vector(loader.next().sample_ids)) EXPECT_LT(id, 4);
  EXPECT_LE(loader.timed_out(), 4);
}

TEST(Retries, ReadAFileThatComesBack) {
  const test::TemporaryFolder folder;
  test::write_bytes(folder.path("set/a/0.png"), "not yet");
  LoaderOptions options;
  options.global_batch = 1;
  options.read_retries = 200;  // 20 ms apart
  Loader loader({test::folder_source(folder.path("set"))}, test::model_of({6, 6}, 3, 1), options);
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  test::write_image(folder.path("other.png"), {6, 6}, 3, 5);
  std::filesystem::rename(folder.path("other.png"), folder.path("set/a/0.png"));
  EXPECT_EQ(loader.next().sample_ids.item<int64_t>(), 0);
}

TEST(Retries, GoOnAfterTheLastOneWithTheError) {
  const test::TemporaryFolder folder;
  test::write_bytes(folder.path("set/a/0.png"), "broken");
  for (const int64_t workers : {0, 1}) {
    LoaderOptions options;
    options.global_batch = 1;
    options.read_retries = 2;
    options.workers = workers;
    const core::Stopwatch watch;
    Loader loader({test::folder_source(folder.path("set"))}, test::model_of({6, 6}, 3, 1), options);
    EXPECT_THAT(test::message_of<core::DataError>([&] { loader.next(); }), HasSubstr("a/0.png"));
    EXPECT_GE(watch.ms(), 40) << "two pauses of 20 ms";
  }
}

}  // namespace
}  // namespace vitrail::data
