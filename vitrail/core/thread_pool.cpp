#include "vitrail/core/thread_pool.h"

#include <algorithm>
#include <atomic>
#include <exception>

#include "vitrail/core/error.h"

namespace vitrail::core {
namespace {

/// A loop that several threads walk together. Lives until the last helper has looked at it, which
/// may be after the call has returned: hence shared, and hence `fn` is touched only while runs are
/// left.
class SharedLoop {
 public:
  SharedLoop(int64_t begin, int64_t end, int64_t grain,
             const std::function<void(int64_t, int64_t)>& fn)
      : begin_(begin), end_(end), grain_(grain), runs_((end - begin - 1) / grain + 1), fn_(fn) {}

  int64_t runs() const { return runs_; }

  void work() {
    for (int64_t run = next_++; run < runs_; run = next_++) {
      do_run(run);
      if (++done_ == runs_) {
        const std::lock_guard lock(mutex_);
        finished_.notify_all();
      }
    }
  }

  void wait() {
    std::unique_lock lock(mutex_);
    finished_.wait(lock, [&] { return done_ == runs_; });
    if (error_) std::rethrow_exception(error_);
  }

 private:
  void do_run(int64_t run) {
    if (failed_) return;
    const int64_t first = begin_ + run * grain_;
    try {
      fn_(first, grain_ < end_ - first ? first + grain_ : end_);
    } catch (...) {
      const std::lock_guard lock(mutex_);
      if (!error_) error_ = std::current_exception();
      failed_ = true;
    }
  }

  const int64_t begin_, end_, grain_, runs_;
  const std::function<void(int64_t, int64_t)>& fn_;
  std::atomic<int64_t> next_{0}, done_{0};
  std::atomic<bool> failed_{false};
  std::mutex mutex_;
  std::condition_variable finished_;
  std::exception_ptr error_;
};

}  // namespace

ThreadPool::ThreadPool(int threads) {
  VT_CHECK(threads >= 1, "[threads] a pool must have at least 1 thread but got {}", threads);
  try {
    for (int i = 0; i < threads; ++i) workers_.emplace_back([this] { run(); });
  } catch (...) {  // the system gives no more threads
    finish();
    throw;
  }
}

ThreadPool::~ThreadPool() { finish(); }

void ThreadPool::finish() {
  {
    const std::lock_guard lock(mutex_);
    closing_ = true;
  }
  filled_.notify_all();
  workers_.clear();
}

void ThreadPool::enqueue(std::function<void()> task) {
  {
    const std::lock_guard lock(mutex_);
    tasks_.push_back(std::move(task));
  }
  filled_.notify_one();
}

void ThreadPool::run() {
  for (;;) {
    std::unique_lock lock(mutex_);
    filled_.wait(lock, [&] { return closing_ || !tasks_.empty(); });
    if (tasks_.empty()) return;
    const std::function<void()> task = std::move(tasks_.front());
    tasks_.pop_front();
    lock.unlock();
    task();
  }
}

void parallel_for(ThreadPool& pool, int64_t begin, int64_t end, int64_t grain,
                  const std::function<void(int64_t, int64_t)>& fn) {
  VT_CHECK(grain >= 1, "[threads] grain must be at least 1 but got {}", grain);
  if (begin >= end) return;
  const auto loop = std::make_shared<SharedLoop>(begin, end, grain, fn);
  const int64_t helpers = std::min<int64_t>(pool.threads(), loop->runs() - 1);
  for (int64_t i = 0; i < helpers; ++i) pool.submit([loop] { loop->work(); });
  loop->work();
  loop->wait();
}

void parallel_for(int threads, int64_t begin, int64_t end, int64_t grain,
                  const std::function<void(int64_t, int64_t)>& fn) {
  VT_CHECK(threads >= 1, "[threads] a loop must have at least 1 thread but got {}", threads);
  VT_CHECK(grain >= 1, "[threads] grain must be at least 1 but got {}", grain);
  if (begin >= end) return;
  SharedLoop loop(begin, end, grain, fn);
  std::vector<std::jthread> helpers;
  for (int64_t i = 1; i < std::min<int64_t>(threads, loop.runs()); ++i)
    helpers.emplace_back([&loop] { loop.work(); });
  loop.work();
  helpers.clear();
  loop.wait();
}

}  // namespace vitrail::core
