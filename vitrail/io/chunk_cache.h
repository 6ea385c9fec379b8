#pragma once
/// The memory that keeps decoded chunks of arrays, and the shards that are open.

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>

namespace vitrail::io {

struct ChunkKey {
  uint64_t array = 0;  // ChunkCache::array_id
  uint64_t chunk = 0;  // number in the array's grid, row-major
  uint64_t inner = 0;  // number inside a shard
  uint64_t level = 0;  // of nested shards

  bool operator==(const ChunkKey&) const = default;
};

/// Things that cost much to make, up to a number of bytes; those not asked for longest go first.
///
/// Memory   at most max_bytes, besides what callers still hold; a thing above that is not kept.
/// Threads  any number; a thing that several ask for at once is made once.
class LruCache {
 public:
  struct Made {
    std::shared_ptr<const void> thing;  // null is handed out, and not kept
    int64_t bytes = 0;
  };
  using Make = std::function<Made()>;

  explicit LruCache(int64_t max_bytes) : max_bytes_(max_bytes) {}

  /// What is kept under `key`, else make(). When that throws, every caller that waits for it gets
  /// the exception, and the next call tries again.
  std::shared_ptr<const void> get(const ChunkKey& key, const Make& make);

  int64_t max_bytes() const { return max_bytes_; }
  int64_t bytes() const;
  int64_t made() const;  // calls of make so far
  int64_t hits() const;  // calls of get that did not make

 private:
  struct Entry {
    Made made;
    std::exception_ptr error;
    bool is_ready = false;
    int waiting = 0;
    std::list<ChunkKey>::iterator use;
  };
  struct Hash {
    size_t operator()(const ChunkKey& key) const;
  };
  void settle(const ChunkKey& key, const std::shared_ptr<Entry>& entry);
  void shrink();

  const int64_t max_bytes_;
  mutable std::mutex mutex_;
  std::condition_variable ready_;
  std::unordered_map<ChunkKey, std::shared_ptr<Entry>, Hash> entries_;
  std::list<ChunkKey> uses_;  // kept things, the last used in front
  int64_t bytes_ = 0, made_ = 0, hits_ = 0;
};

/// One for all arrays of a process.
///
/// Memory   decoded chunks up to max_bytes (0: none are kept), indices of open shards up to
///          64 MiB, of which each open file counts 256 KiB: at most 256 files stay open.
class ChunkCache {
 public:
  explicit ChunkCache(int64_t max_bytes) : chunks_(max_bytes) {}

  LruCache& chunks() { return chunks_; }
  LruCache& shards() { return shards_; }

  /// A number for an array: the same for the same `identity`, so that an array opened twice is kept
  /// once.
  uint64_t array_id(const std::string& identity);

  static constexpr int64_t kOpenFileBytes = 256 << 10;

 private:
  LruCache chunks_;
  LruCache shards_{64 << 20};
  std::mutex mutex_;
  std::map<std::string, uint64_t> arrays_;
};

}  // namespace vitrail::io
