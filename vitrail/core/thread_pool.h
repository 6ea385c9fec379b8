#pragma once
/// Threads: a fixed pool, a bounded queue between threads, a parallel loop.

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

namespace vitrail::core {

/// A queue of at most `capacity` items between producers and consumers; push() and pop() wait.
/// Threads  any number on either side.
template <class T>
class BoundedQueue {
 public:
  explicit BoundedQueue(size_t capacity) : capacity_(capacity > 0 ? capacity : 1) {}

  /// Waits for room. False, and `item` dropped, once the queue is closed.
  bool push(T item) {
    std::unique_lock lock(mutex_);
    room_.wait(lock, [&] { return closed_ || items_.size() < capacity_; });
    if (closed_) return false;
    items_.push_back(std::move(item));
    lock.unlock();
    filled_.notify_one();
    return true;
  }

  /// Waits for an item. Empty once the queue is closed and drained.
  std::optional<T> pop() {
    std::unique_lock lock(mutex_);
    filled_.wait(lock, [&] { return closed_ || !items_.empty(); });
    return take(lock);
  }

  /// The item at hand, or empty.
  std::optional<T> try_pop() {
    std::unique_lock lock(mutex_);
    return take(lock);
  }

  /// No more pushes; what is queued can still be popped. Wakes everyone.
  void close() {
    {
      const std::lock_guard lock(mutex_);
      closed_ = true;
    }
    room_.notify_all();
    filled_.notify_all();
  }

  size_t size() const {
    const std::lock_guard lock(mutex_);
    return items_.size();
  }
  size_t capacity() const { return capacity_; }
  bool closed() const {
    const std::lock_guard lock(mutex_);
    return closed_;
  }

 private:
  std::optional<T> take(std::unique_lock<std::mutex>& lock) {
    if (items_.empty()) return std::nullopt;
    std::optional<T> item(std::move(items_.front()));
    items_.pop_front();
    lock.unlock();
    room_.notify_one();
    return item;
  }

  const size_t capacity_;
  mutable std::mutex mutex_;
  std::condition_variable room_, filled_;
  std::deque<T> items_;
  bool closed_ = false;
};

/// A fixed number of threads that run what is submitted, oldest first. The destructor finishes what
/// was submitted.
class ThreadPool {
 public:
  /// threads >= 1.
  /// throws   Error for fewer.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return static_cast<int>(workers_.size()); }

  /// Runs `work` on some thread; the future holds its result or exception. A task must not wait for
  /// a later one.
  template <class Work>
  std::future<std::invoke_result_t<Work>> submit(Work work) {
    auto task = std::make_shared<std::packaged_task<std::invoke_result_t<Work>()>>(std::move(work));
    auto future = task->get_future();
    enqueue([task] { (*task)(); });
    return future;
  }

 private:
  void enqueue(std::function<void()> task);
  void run();
  void finish();

  std::mutex mutex_;
  std::condition_variable filled_;
  std::deque<std::function<void()>> tasks_;
  bool closing_ = false;
  std::vector<std::jthread> workers_;
};

/// fn(first, last) over [begin, end) cut into runs of at most `grain`, on the pool's threads and
/// the caller's; returns when all are done and rethrows the first exception (the remaining runs are
/// then dropped). May be called from a task of the same pool: the caller does the work that no
/// thread is free for.
void parallel_for(ThreadPool& pool, int64_t begin, int64_t end, int64_t grain,
                  const std::function<void(int64_t first, int64_t last)>& fn);

/// The same on `threads` threads made for this call (the caller's included); 1 runs here.
void parallel_for(int threads, int64_t begin, int64_t end, int64_t grain,
                  const std::function<void(int64_t first, int64_t last)>& fn);

}  // namespace vitrail::core
