#pragma once
/// Moves bytes between ranks: what a host backend (thread, mpi, tcp) has to provide. The
/// collectives are written once on top of it (host_collectives.h).
///
/// Order      messages from one rank to another arrive in the order of their start.
/// Threads    one thread uses a transport at a time (the worker of its HostCommunicator); abort()
/// may be called from any. Errors     CommError naming the peer.

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "vitrail/core/error.h"

namespace vitrail::comm {

/// One message under way.
struct Request {
  explicit Request(int of_peer) : peer(of_peer) {}
  const int peer;
  std::atomic<bool> done{false};
  int pieces = 1;  // for transports that cut a message: how many are still under way
};
using RequestPtr = std::shared_ptr<Request>;

class Waiter;

/// A peer did not take part in time.
struct TimeoutError : core::CommError {
  using CommError::CommError;
};

class Transport {
 public:
  virtual ~Transport() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  virtual const char* backend() const = 0;
  /// What messages call a rank: its number in the root group.
  int world_rank(int of_this_group) const {
    return world_ranks_.empty() ? of_this_group : world_ranks_[static_cast<size_t>(of_this_group)];
  }
  void set_world_ranks(std::vector<int> ranks) { world_ranks_ = std::move(ranks); }

  /// `data` stays untouched until the request is done; both sides name the same number of bytes.
  virtual RequestPtr start_send(int to, const void* data, int64_t bytes) = 0;
  virtual RequestPtr start_receive(int from, void* data, int64_t bytes) = 0;
  /// Advances what is under way; sleeps for at most `patience` when nothing can move.
  virtual void progress(std::chrono::microseconds patience) = 0;

  /// The transport among `members` (ranks of this one, in their new order; this rank is one of
  /// them). Every rank of this transport calls it at the same time, each with its own members;
  /// `serial` counts these calls.
  virtual std::unique_ptr<Transport> split(const std::vector<int>& members, int serial,
                                           Waiter& waiter) = 0;

  /// Called first by abort(), on the thread that aborts; mpi ends the process here.
  virtual void end_job(int /*exit_code*/) noexcept {}
  /// Called on the worker once the group has failed: peers that wait for this rank must wake, and are told `reason` where
  /// that can be done.
  virtual void close(const std::string& /*reason*/) noexcept {}

 private:
  std::vector<int> world_ranks_;  // by rank of this group; empty = the same
};

/// How long to wait and when to give up.
class Waiter {
 public:
  Waiter(Transport& transport, const std::atomic<bool>& aborted,
         std::chrono::duration<double> timeout)
      : transport_(transport), aborted_(aborted), timeout_(timeout) {}

  /// A wait in collective `what`, the `number`th of its group, begins.
  void restart(const char* what = "", uint64_t number = 0) {
    start_ = std::chrono::steady_clock::now();
    what_ = what, number_ = number;
  }
  /// Returns when all are done. throws CommError on abort, and after the time-out with the ranks
  /// waited for.
  void complete(const std::vector<RequestPtr>& requests);
  /// One look; throws as above. `requests` only name the peers in the message.
  void check(const std::vector<RequestPtr>& requests) const;
  std::chrono::steady_clock::time_point deadline() const {
    return start_ + std::chrono::duration_cast<std::chrono::steady_clock::duration>(timeout_);
  }
  bool aborted() const { return aborted_.load(); }

 private:
  std::string missing(const std::vector<RequestPtr>& requests) const;

  Transport& transport_;
  const std::atomic<bool>& aborted_;
  const std::chrono::duration<double> timeout_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  const char* what_ = "";
  uint64_t number_ = 0;
};

/// To be called from a handler of SIGTERM (safe there): whoever then still waits for a peer a moment later says for whom and
/// in what, because launchers end all ranks when one has died. ends_process: it fails; else it goes on, for a rank that
/// finishes its step and saves.
void note_termination(bool ends_process) noexcept;
/// What note_termination() was told, once a moment has passed since.
enum class Termination { none, goes_on, ends_process };
Termination termination() noexcept;
/// Takes SIGTERM, if nobody has: waits in collectives fail, the process ends within two seconds.
void watch_for_termination();

/// VITRAIL_COMM_TIMEOUT_S, else `otherwise`. throws CommError when it is not a positive number.
std::chrono::duration<double> timeout_setting(double otherwise);

}  // namespace vitrail::comm
