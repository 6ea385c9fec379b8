#include <atomic>
#include <memory>
#include <stdexcept>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "vitrail/io/chunk_cache.h"

namespace vitrail::io {
namespace {

LruCache::Made number(int value, int64_t bytes) {
  return {std::make_shared<const int>(value), bytes};
}
int value_of(const std::shared_ptr<const void>& thing) {
  return *static_cast<const int*>(thing.get());
}

TEST(LruCache, KeepsWhatWasUsedLastWithinItsBytes) {
  LruCache cache(100);
  int made = 0;
  const auto get = [&](uint64_t key) {
    return value_of(cache.get({0, key}, [&] {
      ++made;
      return number(static_cast<int>(key), 40);
    }));
  };
  EXPECT_EQ(get(1), 1);
  EXPECT_EQ(get(2), 2);
  EXPECT_EQ(get(1), 1);  // kept, and now used after 2
  EXPECT_EQ(made, 2);
  EXPECT_EQ(get(3), 3);  // 2 goes
  EXPECT_EQ(cache.bytes(), 80);
  EXPECT_EQ(get(1), 1);
  EXPECT_EQ(made, 3);
  EXPECT_EQ(get(2), 2);
  EXPECT_EQ(made, 4);
  EXPECT_EQ(cache.made(), 4);
  EXPECT_EQ(cache.hits(), 2);
}

TEST(LruCache, KeepsNeitherTooLargeThingsNorNothing) {
  LruCache cache(100);
  EXPECT_EQ(value_of(cache.get({}, [] { return number(1, 101); })), 1);
  EXPECT_EQ(value_of(cache.get({}, [] { return number(2, 101); })), 2);
  EXPECT_EQ(cache.get({}, [] { return LruCache::Made{}; }), nullptr);
  EXPECT_EQ(cache.get({}, [] { return LruCache::Made{}; }), nullptr);
  EXPECT_EQ(cache.made(), 4);
  EXPECT_EQ(cache.bytes(), 0);
}

TEST(LruCache, MakesOnceWhatManyThreadsAskFor) {
  LruCache cache(1 << 20);
  std::atomic<int> made{0}, wrong{0};
  std::vector<std::jthread> threads;
  for (int t = 0; t < 8; ++t)
    threads.emplace_back([&] {
      for (uint64_t key = 0; key < 200; ++key) {
        const auto thing = cache.get({0, key}, [&] {
          ++made;
          std::this_thread::sleep_for(std::chrono::microseconds(50));
          return number(static_cast<int>(key), 8);
        });
        wrong += value_of(thing) != static_cast<int>(key);
      }
    });
  threads.clear();
  EXPECT_EQ(made, 200);
  EXPECT_EQ(wrong, 0);
}

TEST(LruCache, HandsAnErrorToAllWhoWaitAndTriesAgain) {
  LruCache cache(100);
  std::atomic<int> made{0}, threw{0};
  std::vector<std::jthread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&] {
      try {
        cache.get({}, [&]() -> LruCache::Made {
          ++made;
          std::this_thread::sleep_for(std::chrono::milliseconds(100));
          throw std::runtime_error("broken");
        });
      } catch (const std::runtime_error&) {
        ++threw;
      }
    });
  threads.clear();
  EXPECT_EQ(threw, 4);
  EXPECT_LE(made, 4);
  EXPECT_EQ(value_of(cache.get({}, [] { return number(5, 1); })), 5);
}

TEST(ChunkCache, NumbersArraysByIdentity) {
  ChunkCache cache(0);
  const uint64_t a = cache.array_id("a");
  EXPECT_NE(cache.array_id("b"), a);
  EXPECT_EQ(cache.array_id("a"), a);
}

}  // namespace
}  // namespace vitrail::io
