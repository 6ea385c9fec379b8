#include "vitrail/data/decoded.h"

#include <algorithm>

namespace vitrail::data {

std::shared_ptr<const Decoded> DecodedCache::get(const Key& key, const Decode& decode) {
  std::unique_lock lock(mutex_);
  if (const auto found = entries_.find(key); found != entries_.end())
    return wait(found->second, lock);
  const auto entry = std::make_shared<Entry>();
  entries_[key] = entry;
  ++decodes_;
  lock.unlock();
  std::shared_ptr<const Decoded> file;
  std::exception_ptr error;
  try {
    file = std::make_shared<const Decoded>(decode());
  } catch (...) {
    error = std::current_exception();
  }
  settle(key, entry, file, error);
  if (error) std::rethrow_exception(error);
  return file;
}

std::shared_ptr<const Decoded> DecodedCache::wait(std::shared_ptr<Entry> entry,
                                                  std::unique_lock<std::mutex>& lock) {
  const bool is_kept = entry->is_ready;
  ready_.wait(lock, [&] { return entry->is_ready; });
  if (entry->error) std::rethrow_exception(entry->error);
  if (is_kept) uses_.splice(uses_.begin(), uses_, entry->use);
  return entry->file;
}

void DecodedCache::settle(const Key& key, const std::shared_ptr<Entry>& entry,
                          std::shared_ptr<const Decoded> file, std::exception_ptr error) {
  {
    const std::lock_guard lock(mutex_);
    if (entry->is_ready) return;  // given up
    entry->file = std::move(file);
    entry->error = error;
    entry->is_ready = true;
    if (error || entry->file->bytes() > max_bytes_) {
      entries_.erase(key);  // those that wait hold the entry themselves
    } else {
      uses_.push_front(key);
      entry->use = uses_.begin();
      bytes_ += entry->file->bytes();
      shrink();
    }
  }
  ready_.notify_all();
}

void DecodedCache::give_up(const Key& key, std::exception_ptr error) {
  {
    const std::lock_guard lock(mutex_);
    const auto found = entries_.find(key);
    if (found == entries_.end() || found->second->is_ready) return;
    found->second->error = std::move(error);
    found->second->is_ready = true;
    entries_.erase(found);
  }
  ready_.notify_all();
}

void DecodedCache::limit(int64_t max_bytes) {
  const std::lock_guard lock(mutex_);
  max_bytes_ = std::min(max_bytes_, max_bytes);
  shrink();
}

int64_t DecodedCache::max_bytes() const {
  const std::lock_guard lock(mutex_);
  return max_bytes_;
}

void DecodedCache::shrink() {
  while (bytes_ > max_bytes_) {
    const auto oldest = entries_.find(uses_.back());
    bytes_ -= oldest->second->file->bytes();
    entries_.erase(oldest);
    uses_.pop_back();
  }
}

int64_t DecodedCache::bytes() const {
  const std::lock_guard lock(mutex_);
  return bytes_;
}

int64_t DecodedCache::decodes() const {
  const std::lock_guard lock(mutex_);
  return decodes_;
}

}  // namespace vitrail::data
