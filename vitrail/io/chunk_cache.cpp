#include "vitrail/io/chunk_cache.h"

#include <exception>

namespace vitrail::io {

size_t LruCache::Hash::operator()(const ChunkKey& key) const {
  // splitmix64's mixing after each part.
  uint64_t mixed = 0;
  for (const uint64_t part : {key.array, key.chunk, key.inner, key.level}) {
    mixed += part + 0x9E3779B97F4A7C15u;
    mixed = (mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9u;
    mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EBu;
    mixed ^= mixed >> 31;
  }
  return mixed;
}

std::shared_ptr<const void> LruCache::get(const ChunkKey& key, const Make& make) {
  std::unique_lock lock(mutex_);
  if (const auto found = entries_.find(key); found != entries_.end()) {
    const std::shared_ptr<Entry> entry = found->second;
    ++hits_;
    if (entry->is_ready) {
      uses_.splice(uses_.begin(), uses_, entry->use);
      return entry->made.thing;
    }
    ++entry->waiting;
    ready_.wait(lock, [&] { return entry->is_ready; });
    if (entry->error) std::rethrow_exception(entry->error);
    return entry->made.thing;
  }
  const auto entry = std::make_shared<Entry>();
  entries_.emplace(key, entry);
  ++made_;
  lock.unlock();
  Made made;
  std::exception_ptr error;
  try {
    made = make();
  } catch (...) {
    error = std::current_exception();
  }
  lock.lock();
  entry->made = made;
  entry->error = error;
  settle(key, entry);
  lock.unlock();
  if (entry->waiting > 0) ready_.notify_all();
  if (error) std::rethrow_exception(error);
  return made.thing;
}

void LruCache::settle(const ChunkKey& key, const std::shared_ptr<Entry>& entry) {
  entry->is_ready = true;
  if (entry->error || entry->made.thing == nullptr || entry->made.bytes > max_bytes_) {
    entries_.erase(key);  // those that wait hold the entry themselves
    return;
  }
  uses_.push_front(key);
  entry->use = uses_.begin();
  bytes_ += entry->made.bytes;
  shrink();
}

void LruCache::shrink() {
  while (bytes_ > max_bytes_) {
    const auto oldest = entries_.find(uses_.back());
    bytes_ -= oldest->second->made.bytes;
    entries_.erase(oldest);
    uses_.pop_back();
  }
}

int64_t LruCache::bytes() const {
  const std::lock_guard lock(mutex_);
  return bytes_;
}

int64_t LruCache::made() const {
  const std::lock_guard lock(mutex_);
  return made_;
}

int64_t LruCache::hits() const {
  const std::lock_guard lock(mutex_);
  return hits_;
}

uint64_t ChunkCache::array_id(const std::string& identity) {
  const std::lock_guard lock(mutex_);
  return arrays_.emplace(identity, arrays_.size()).first->second;
}

}  // namespace vitrail::io
