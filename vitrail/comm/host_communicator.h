#pragma once
/// A group for host memory over any Transport. A worker thread executes the queued collectives in
/// order, so a collective started during backward overlaps with it.
///
/// Threads    calls may come from any thread; what must agree between ranks is their order.
/// Failure    after the first failure every queued and later call throws it again; abort() fails
/// all related groups.

#include <atomic>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "vitrail/comm/communicator.h"
#include "vitrail/comm/flight_recorder.h"
#include "vitrail/comm/host_collectives.h"
#include "vitrail/comm/transport.h"

namespace vitrail::comm {

class HostCommunicator;

/// The groups of this process that stem from one root: abort() on one aborts all.
class Family {
 public:
  void add(HostCommunicator* member);
  void remove(HostCommunicator* member);
  void abort() noexcept;
  bool aborted() const { return aborted_.load(); }
  /// Why the first group failed, in one line; what other groups tell their peers when they are aborted for it.
  void note_reason(const std::string& reason);
  std::string reason() const;

 private:
  mutable std::mutex mutex_;
  std::string reason_;
  std::set<HostCommunicator*> members_;
  std::atomic<bool> aborted_{false};
};

class HostCommunicator final : public Communicator {
 public:
  /// A root group, its timeout from VITRAIL_COMM_TIMEOUT_S (default 1800 s a collective). Thread
  /// groups share one family; a process has its own.
  HostCommunicator(std::unique_ptr<Transport> transport, std::string name,
                   std::shared_ptr<Family> family);
  ~HostCommunicator() override;

  int rank() const override { return transport_->rank(); }
  int size() const override { return transport_->size(); }
  std::string backend() const override { return transport_->backend(); }

  Work all_reduce(Buffer inout, Reduce op, Stream) override;
  Work all_gather(Buffer in, Buffer out, Stream) override;
  Work reduce_scatter(Buffer in, Buffer out, Reduce op, Stream) override;
  Work broadcast(Buffer inout, int root, Stream) override;
  Work all_to_all(Buffer in, Buffer out, Stream) override;
  Work send(Buffer in, int to, Stream) override;
  Work receive(Buffer out, int from, Stream) override;
  Work send_receive(Buffer in, int to, Buffer out, int from, Stream) override;
  void barrier() override;
  std::unique_ptr<Communicator> split(int color, int key) override;
  void abort(int exit_code) noexcept override;
  std::string flight_record() const override { return recorder_.text(); }

 private:
  friend class Family;
  struct Operation;
  using OperationPtr = std::shared_ptr<Operation>;

  Work enqueue(const char* collective, Buffer buffer, std::function<void(HostCollectives&)> run);
  Work enqueue_transfer(const char* collective, Buffer buffer, int peer);
  Work enqueue(OperationPtr operation);
  void note_abort() noexcept;

  // The worker's side.
  void work();
  void take_queue(bool wait);
  bool start_next();
  void run_collective(Operation& operation);
  void begin_transfer(Operation& operation);
  bool advance_transfer(Operation& operation);
  void advance_transfers();
  void finish(Operation& operation, std::exception_ptr error);
  void fail_all(std::exception_ptr error);
  std::exception_ptr explain(const std::string& message, const std::string& record) const;

  std::unique_ptr<Transport> transport_;
  const std::string name_;
  const std::shared_ptr<Family> family_;
  const int exceptions_at_start_;
  bool is_root_ = true;
  int splits_ = 0;
  FlightRecorder recorder_;
  std::atomic<bool> aborted_{false};

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<OperationPtr> queue_;
  bool stopping_ = false;
  std::exception_ptr failure_;

  std::deque<OperationPtr> ready_;       // worker only: taken from the queue, not yet started
  std::vector<OperationPtr> transfers_;  // worker only: sends and receives under way
  OperationPtr current_;                 // worker only: whom an error is about
  Waiter waiter_;
  HostCollectives collectives_;
  std::thread worker_;  // last: starts when everything else stands
};

/// Checks of arguments that every backend shares; throw CommError naming the collective.
void check_buffer(const char* collective, const Buffer& buffer);
void check_gather(int ranks, const Buffer& in, const Buffer& out);
void check_scatter(int ranks, const Buffer& in, const Buffer& out, Reduce op);
void check_all_to_all(int ranks, const Buffer& in, const Buffer& out);
void check_peer(const char* collective, int ranks, int peer);
void check_color(int color);

}  // namespace vitrail::comm
