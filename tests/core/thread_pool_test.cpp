#include "vitrail/core/thread_pool.h"

#include <atomic>
#include <chrono>
#include <memory>
#include <numeric>
#include <stdexcept>

#include <gtest/gtest.h>

#include "vitrail/core/error.h"

namespace vitrail::core {
namespace {

using namespace std::chrono_literals;

TEST(BoundedQueue, KeepsTheOrder) {
  BoundedQueue<int> queue(3);
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(queue.push(i));
  for (int i = 0; i < 3; ++i) EXPECT_EQ(queue.pop(), i);
  EXPECT_EQ(queue.try_pop(), std::nullopt);
}

TEST(BoundedQueue, HoldsTheProducerBackWhenFull) {
  BoundedQueue<int> queue(2);
  std::atomic<int> pushed{0};
  std::jthread producer([&] {
    for (int i = 0; i < 5; ++i) queue.push(i), ++pushed;
  });
  std::this_thread::sleep_for(30ms);
  EXPECT_EQ(pushed, 2);
  for (int i = 0; i < 5; ++i) EXPECT_EQ(queue.pop(), i);
}

TEST(BoundedQueue, CloseWakesThoseWhoWaitAndLetsTheRestBeDrained) {
  BoundedQueue<std::unique_ptr<int>> queue(1);
  queue.push(std::make_unique<int>(1));
  std::atomic<bool> refused{false};
  std::jthread producer([&] { refused = !queue.push(std::make_unique<int>(2)); });
  std::this_thread::sleep_for(10ms);
  queue.close();
  producer.join();
  EXPECT_TRUE(refused);
  EXPECT_EQ(**queue.pop(), 1);
  EXPECT_EQ(queue.pop(), std::nullopt);
  EXPECT_FALSE(queue.push(nullptr));

  BoundedQueue<int> empty(1);
  std::jthread consumer([&] { EXPECT_EQ(empty.pop(), std::nullopt); });
  std::this_thread::sleep_for(10ms);
  empty.close();
}

TEST(BoundedQueue, PassesEveryItemOnceBetweenManyThreads) {
  BoundedQueue<int> queue(4);
  std::atomic<int64_t> sum{0};
  {
    std::vector<std::jthread> consumers, producers;
    for (int i = 0; i < 3; ++i)
      consumers.emplace_back([&] {
        while (const auto item = queue.pop()) sum += *item;
      });
    for (int i = 0; i < 3; ++i)
      producers.emplace_back([&] {
        for (int item = 1; item <= 1000; ++item) queue.push(item);
      });
    producers.clear();
    queue.close();
  }
  EXPECT_EQ(sum, 3 * 500'500);
}

TEST(ThreadPool, RunsWhatIsSubmittedAndPassesResultsAndExceptions) {
  ThreadPool pool(2);
  auto value = pool.submit([] { return 42; });
  auto error = pool.submit([]() -> int { throw std::runtime_error("broken"); });
  EXPECT_EQ(value.get(), 42);
  EXPECT_THROW(error.get(), std::runtime_error);
}

TEST(ThreadPool, FinishesEverythingBeforeItEnds) {
  std::atomic<int> done{0};
  {
    ThreadPool pool(3);
    for (int i = 0; i < 100; ++i) pool.submit([&] { ++done; });
  }
  EXPECT_EQ(done, 100);
}

TEST(ThreadPool, RefusesToHaveNoThreads) { EXPECT_THROW(ThreadPool(0), Error); }

void expect_every_index_once(
    const std::function<void(const std::function<void(int64_t, int64_t)>&)>& loop, int64_t begin,
    int64_t end) {
  std::vector<std::atomic<int>> visits(static_cast<size_t>(end));
  loop([&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) ++visits[static_cast<size_t>(i)];
  });
  for (int64_t i = 0; i < end; ++i)
    ASSERT_EQ(visits[static_cast<size_t>(i)], i >= begin ? 1 : 0) << i;
}

TEST(ParallelFor, VisitsEveryIndexOnce) {
  ThreadPool pool(3);
  for (const int64_t end : {6, 7, 31, 32, 33, 1000})
    for (const int64_t grain : {1, 2, 5, 1000}) {
      expect_every_index_once([&](const auto& fn) { parallel_for(pool, 5, end, grain, fn); }, 5,
                              end);
      expect_every_index_once([&](const auto& fn) { parallel_for(3, 5, end, grain, fn); }, 5, end);
      expect_every_index_once([&](const auto& fn) { parallel_for(1, 5, end, grain, fn); }, 5, end);
    }
}

TEST(ParallelFor, DoesNothingForAnEmptyRange) {
  parallel_for(2, 5, 5, 1, [](int64_t, int64_t) { FAIL(); });
  parallel_for(2, 5, 4, 1, [](int64_t, int64_t) { FAIL(); });
}

TEST(ParallelFor, RethrowsTheFirstExceptionAndDropsTheRest) {
  ThreadPool pool(2);
  std::atomic<int> runs{0};
  const auto loop = [&](int64_t first, int64_t) {
    ++runs;
    if (first == 0) throw DataError("broken");
    std::this_thread::sleep_for(1ms);
  };
  EXPECT_THROW(parallel_for(pool, 0, 1000, 1, loop), DataError);
  EXPECT_LT(runs, 1000);
  EXPECT_THROW(parallel_for(2, 0, 1000, 1, loop), DataError);
}

TEST(ParallelFor, MayBeNestedInTasksOfTheSamePool) {
  ThreadPool pool(2);
  std::atomic<int> sum{0};
  parallel_for(pool, 0, 8, 1, [&](int64_t, int64_t) {
    parallel_for(pool, 0, 10, 1, [&](int64_t, int64_t) { ++sum; });
  });
  EXPECT_EQ(sum, 80);
}

}  // namespace
}  // namespace vitrail::core
