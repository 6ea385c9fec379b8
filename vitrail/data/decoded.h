#pragma once
/// A file as samples are cut from it, and the memory that keeps such files.

#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <utility>

#include "vitrail/data/pixels.h"
#include "vitrail/data/value_range.h"

namespace vitrail::data {

struct Decoded {
  Pixels image;      // in the model's channels
  Mask mask;         // empty = none
  ValueRange range;  // of the whole file
  Pixels values;     // an image to be learnt, floats; no sides = none

  int64_t bytes() const {
    return static_cast<int64_t>(image.values.size() + 4 * image.floats.size() +
                                4 * mask.classes.size() + 4 * values.floats.size());
  }
};

/// Decoded files, up to a number of bytes; those not asked for longest go first.
///
/// Memory   at most max_bytes, besides what callers still hold; a file above that is not kept.
/// Threads  any number; a file that several ask for at once is decoded once.
class DecodedCache {
 public:
  using Key = std::pair<int64_t, int64_t>;  // source, file
  using Decode = std::function<Decoded()>;

  explicit DecodedCache(int64_t max_bytes) : max_bytes_(max_bytes) {}

  /// What is kept under `key`, else decode(). When that throws, every caller that waits for it gets
  /// the exception, and the next call tries again.
  std::shared_ptr<const Decoded> get(const Key& key, const Decode& decode);
  /// For a decode() that does not come back: those that wait for it get `error`, its result will not
  /// be kept, and the next call tries again. Nothing happens when none is under way.
  void give_up(const Key& key, std::exception_ptr error);
  /// Never keeps more than this from now on.
  void limit(int64_t max_bytes);
  int64_t max_bytes() const;

  int64_t bytes() const;
  int64_t decodes() const;  // calls of decode so far

 private:
  struct Entry {
    std::shared_ptr<const Decoded> file;  // null while being decoded
    std::exception_ptr error;
    bool is_ready = false;
    std::list<Key>::iterator use;
  };
  std::shared_ptr<const Decoded> wait(std::shared_ptr<Entry> entry,
                                      std::unique_lock<std::mutex>& lock);
  void settle(const Key& key, const std::shared_ptr<Entry>& entry,
              std::shared_ptr<const Decoded> file, std::exception_ptr error);
  void shrink();

  int64_t max_bytes_;
  mutable std::mutex mutex_;
  std::condition_variable ready_;
  std::map<Key, std::shared_ptr<Entry>> entries_;
  std::list<Key> uses_;  // kept files, the last used in front
  int64_t bytes_ = 0, decodes_ = 0;
};

}  // namespace vitrail::data
