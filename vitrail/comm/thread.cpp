// Ranks as threads of one process. A message is a pointer in the receiver's mailbox; the receiver
// copies the bytes.

#include <condition_variable>
#include <cstring>
#include <deque>
#include <exception>
#include <map>
#include <mutex>
#include <thread>

#include "vitrail/comm/host_communicator.h"
#include "vitrail/core/error.h"

namespace vitrail::comm {
namespace {

// Messages up to this size are copied at once, so that their sender need not wait.
constexpr int64_t kEager = 4096;

struct Message {
  const void* data = nullptr;
  int64_t bytes = 0;
  std::vector<std::byte> copy;
  RequestPtr request;
};

/// What the ranks of one group share. Everything is guarded by `mutex`, except the bytes that
/// messages point to.
struct ThreadGroup {
  explicit ThreadGroup(int ranks)
      : size(ranks),
        wake(static_cast<size_t>(ranks)),
        boxes(static_cast<size_t>(ranks * ranks)),
        left(static_cast<size_t>(ranks), false),
        reasons(static_cast<size_t>(ranks)) {}
  std::deque<Message>& box(int from, int to) {
    return boxes[static_cast<size_t>(from * size + to)];
  }

  const int size;
  std::mutex mutex;
  std::vector<std::condition_variable> wake;  // one a rank
  std::vector<std::deque<Message>> boxes;
  std::vector<bool> left;            // ranks that are gone or have failed
  std::vector<std::string> reasons;  // why they have failed
  std::map<std::pair<int, int>, std::weak_ptr<ThreadGroup>> children;  // by split and first member
};

class ThreadTransport final : public Transport {
 public:
  ThreadTransport(std::shared_ptr<ThreadGroup> group, int rank)
      : group_(std::move(group)), rank_(rank), expected_(static_cast<size_t>(group_->size)) {}
  ~ThreadTransport() override { close({}); }
  int rank() const override { return rank_; }
  int size() const override { return group_->size; }
  const char* backend() const override { return "thread"; }

  RequestPtr start_send(int to, const void* data, int64_t bytes) override;
  RequestPtr start_receive(int from, void* data, int64_t bytes) override;
  void progress(std::chrono::microseconds patience) override;
  std::unique_ptr<Transport> split(const std::vector<int>& members, int serial, Waiter&) override;
  void close(const std::string& reason) noexcept override;

 private:
  struct Expected {
    void* data = nullptr;
    int64_t bytes = 0;
    RequestPtr request;
  };
  bool receive_one(std::unique_lock<std::mutex>& lock, int from);
  void check_peers() const;
  std::string because(int peer) const {
    const std::string& reason = group_->reasons[static_cast<size_t>(peer)];
    return reason.empty() ? "" : ", because: " + reason;
  }

  const std::shared_ptr<ThreadGroup> group_;
  const int rank_;
  std::vector<std::deque<Expected>> expected_;  // by source
  std::vector<RequestPtr> sent_;                // whose bytes may not have been read yet
};

RequestPtr ThreadTransport::start_send(int to, const void* data, int64_t bytes) {
  auto request = std::make_shared<Request>(to);
  Message message{data, bytes, {}, request};
  if (bytes <= kEager) {
    const auto* first = static_cast<const std::byte*>(data);
    message.copy.assign(first, first + bytes);
    request->done = true;
  } else {
    std::erase_if(sent_, [](const RequestPtr& other) { return other->done.load(); });
    sent_.push_back(request);
  }
  {
    const std::lock_guard lock(group_->mutex);
    group_->box(rank_, to).push_back(std::move(message));
  }
  group_->wake[static_cast<size_t>(to)].notify_all();
  return request;
}

RequestPtr ThreadTransport::start_receive(int from, void* data, int64_t bytes) {
  auto request = std::make_shared<Request>(from);
  expected_[static_cast<size_t>(from)].push_back({data, bytes, request});
  return request;
}

bool ThreadTransport::receive_one(std::unique_lock<std::mutex>& lock, int from) {
  auto& expected = expected_[static_cast<size_t>(from)];
  auto& box = group_->box(from, rank_);
  if (expected.empty() || box.empty()) return false;
  const Expected target = std::move(expected.front());
  expected.pop_front();
  const Message message = std::move(box.front());
  box.pop_front();
  lock.unlock();
  const bool fits = message.bytes == target.bytes;
  if (fits)
    std::memcpy(target.data, message.copy.empty() ? message.data : message.copy.data(),
                static_cast<size_t>(message.bytes));
  target.request->done = true;
  lock.lock();
  message.request->done = true;  // under the lock, so that a sender that is about to sleep sees it
  group_->wake[static_cast<size_t>(from)].notify_all();
  VT_REQUIRE(CommError, fits, "[comm] rank {} sent {} bytes where rank {} expects {}", from,
             message.bytes, rank_, target.bytes);
  return true;
}

// A rank that left can still be heard (its messages lie in the box) but will neither send nor read
// any more.
void ThreadTransport::check_peers() const {
  for (int peer = 0; peer < size(); ++peer) {
    const auto index = static_cast<size_t>(peer);
    if (!group_->left[index]) continue;
    VT_REQUIRE(CommError, expected_[index].empty(),
               "[comm] rank {} has left the group while rank {} waits for it{}", world_rank(peer),
               world_rank(rank_), because(peer));
    for (const RequestPtr& request : sent_)
      VT_REQUIRE(CommError, request->peer != peer || request->done,
                 "[comm] rank {} has left the group while rank {} sends to it{}", world_rank(peer),
                 world_rank(rank_), because(peer));
  }
}

void ThreadTransport::progress(std::chrono::microseconds patience) {
  std::unique_lock lock(group_->mutex);
  bool moved = false;
  for (int from = 0; from < size(); ++from)
    while (receive_one(lock, from)) moved = true;
  if (moved) return;
  bool waiting = false;
  for (const auto& expected : expected_) waiting |= !expected.empty();
  for (const RequestPtr& request : sent_) waiting |= !request->done;
  if (!waiting) return;  // what the caller waits for was done in between
  check_peers();
  group_->wake[static_cast<size_t>(rank_)].wait_for(lock, patience);
}

std::unique_ptr<Transport> ThreadTransport::split(const std::vector<int>& members, int serial,
                                                  Waiter&) {
  const std::lock_guard lock(group_->mutex);
  std::weak_ptr<ThreadGroup>& slot = group_->children[{serial, members.front()}];
  std::shared_ptr<ThreadGroup> child = slot.lock();
  if (!child) slot = child = std::make_shared<ThreadGroup>(static_cast<int>(members.size()));
  int index = 0;
  while (members[static_cast<size_t>(index)] != rank_) ++index;
  return std::make_unique<ThreadTransport>(std::move(child), index);
}

void ThreadTransport::close(const std::string& reason) noexcept {
  std::unique_lock lock(group_->mutex);
  if (!group_->left[static_cast<size_t>(rank_)])
    group_->reasons[static_cast<size_t>(rank_)] = reason;
  group_->left[static_cast<size_t>(rank_)] = true;
  expected_.assign(expected_.size(), {});
  for (int peer = 0; peer < size(); ++peer) {
    // Takes back what points into this rank's memory and was not read.
    std::erase_if(group_->box(rank_, peer), [](const Message& message) {
      const bool borrowed = message.copy.empty() && message.bytes > 0;
      if (borrowed) message.request->done = true;
      return borrowed;
    });
    group_->wake[static_cast<size_t>(peer)].notify_all();
  }
  // What a peer is copying at this moment.
  for (const RequestPtr& request : sent_)
    group_->wake[static_cast<size_t>(rank_)].wait(lock, [&] { return request->done.load(); });
  sent_.clear();
}

}  // namespace

void run_thread_group(int size, const std::function<void(Communicator&)>& body) {
  VT_REQUIRE(CommError, size >= 1, "[comm] a thread group needs at least one rank but got {}",
             size);
  const auto group = std::make_shared<ThreadGroup>(size);
  const auto family = std::make_shared<Family>();
  std::mutex mutex;
  std::exception_ptr first;
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank)
    threads.emplace_back([&, rank] {
      try {
        HostCommunicator communicator(std::make_unique<ThreadTransport>(group, rank), "world",
                                      family);
        try {
          body(communicator);
        } catch (...) {
          {
            const std::lock_guard lock(mutex);
            if (!first) first = std::current_exception();
          }
          family->abort();
        }
      } catch (...) {
        const std::lock_guard lock(mutex);
        if (!first) first = std::current_exception();
        family->abort();
      }
    });
  for (std::thread& thread : threads) thread.join();
  if (first) std::rethrow_exception(first);
}

}  // namespace vitrail::comm
