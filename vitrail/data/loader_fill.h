#pragma once
/// The threads that fill batches: in order, again after failures, past reads that never end.

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "vitrail/data/loader.h"
#include "vitrail/data/loader_batch.h"
#include "vitrail/data/mixing.h"
#include "vitrail/data/source_list.h"

namespace vitrail::data {

/// Fills the batches that it is given, by threads of its own, or without any inside wait().
///
/// Reads    go into memory of the thread that reads; only what was read in time is placed in the batch.
///          A read that takes longer than options.read_timeout_s is given up: its thread is left to
///          itself, may end whenever it likes, and touches nothing but this object, which it keeps
///          alive; a new thread takes its place. wait() is what looks at the clock.
/// Retries  a sample whose read failed or was given up is tried options.read_retries more times, then
///          it is broken; see Loader for what happens then. A file known to be broken is not read
///          again.
/// Threads  one consumer.
class Filler : public std::enable_shared_from_this<Filler> {
 public:
  Filler(const LoaderOptions& options, std::unique_ptr<const SourceList> list,
         std::unique_ptr<const Order> order, const config::Model& model);
  ~Filler();

  /// Once, before the rest.
  void start();
  /// Fills `pending` after those it was given before; it must live until is_done() or stop().
  void add(PendingBatch* pending);
  /// Until `pending` is done.
  void wait(PendingBatch& pending);
  /// Ends all threads; reads under way are waited for at most kGrace seconds.
  void stop();

  const SourceList& list() const { return *list_; }
  const Order& order() const { return *order_; }
  const BatchLayout& layout() const { return layout_; }
  /// Samples that may be broken; see LoaderOptions::max_broken.
  int64_t broken_limit() const;
  /// Reads given up so far.
  int64_t given_up() const { return given_up_; }

  static constexpr double kGrace = 5;

 private:
  /// Places p .. last - 1 of a batch, and how often the first of them was tried.
  struct Claim {
    PendingBatch* pending = nullptr;
    int64_t p = 0, last = 0;
    int64_t candidate = 0;  // samples skipped in favour of the next
    int64_t attempt = 0;    // failed reads of this one
  };
  /// A thread. Its claim is its own, but belongs to whoever gives its read up.
  struct Worker {
    Claim claim;
    // Nanoseconds of the clock at which its read began; kIdle between reads; kGivenUp for good.
    std::atomic<int64_t> reading_since{kIdle};
    bool has_ended = false;  // guarded by the mutex
    std::thread thread;
  };
  static constexpr int64_t kIdle = 0, kGivenUp = -1;

  void start_worker();
  static void work(const std::shared_ptr<Filler>& self, const std::shared_ptr<Worker>& me);
  bool take_claim(Claim& claim);
  /// False when a read of it was given up, after which nothing of the claim may be touched.
  bool fill(Worker& me);
  bool fill_place(Worker& me);
  /// The sample that stands at the claim's place now.
  Pick pick(const Claim& claim) const;
  bool read(Worker& me, const Pick& pick, ReadSample& sample) const;
  /// Decides what follows a failed read: again, the next sample, or an end of this place.
  /// is_final: no use in trying again.
  void fail(Claim& claim, const Pick& pick, const std::string& message, bool is_final);
  void finish_place(Claim& claim);
  /// The message of a file known to be broken; empty = none.
  std::string known_problem(const Pick& pick) const;
  void remember(const Pick& pick, const std::string& message);
  /// Gives up reads that take too long.
  void watch();
  /// The read that began at `since`, unless it has ended meanwhile.
  void give_up(Worker& worker, int64_t since);

  const LoaderOptions options_;
  const std::unique_ptr<const SourceList> list_;
  const std::unique_ptr<const Order> order_;
  const BatchLayout layout_;

  std::mutex mutex_;
  std::condition_variable work_ready_, batch_ready_, ended_;
  std::deque<Claim> left_over_;          // of reads given up; before all others
  std::deque<PendingBatch*> unclaimed_;  // with places that nobody has claimed
  int64_t first_unclaimed_ = 0;          // of the front one
  std::atomic<bool> stopping_{false};
  std::vector<std::shared_ptr<Worker>> workers_;
  int64_t given_up_ = 0;

  mutable std::mutex problems_mutex_;
  std::map<DecodedCache::Key, std::string> problems_;  // file -> message
};

}  // namespace vitrail::data
