#include "vitrail/comm/host_communicator.h"

#include <algorithm>
#include <cstring>
#include <exception>

#include "vitrail/comm/reduce.h"
#include "vitrail/comm/self.h"

namespace vitrail::comm {
namespace {

constexpr double kCollectiveTimeout = 1800.0;
constexpr uint64_t kRecordsOnTimeout = 8;

}  // namespace

struct HostCommunicator::Operation {
  const char* collective = "";
  Buffer buffer;
  std::function<void(HostCollectives&)> run;  // empty for a transfer
  uint64_t number = 0;

  // A transfer: the card goes first, then the data.
  int peer = -1;
  bool is_send = false, data_started = false;
  Card card;
  std::vector<RequestPtr> requests;
  Waiter waiter;

  std::mutex mutex;
  std::condition_variable finished;
  bool done = false;
  std::exception_ptr error;

  explicit Operation(const Waiter& like) : waiter(like) {}
};

void Family::add(HostCommunicator* member) {
  const std::lock_guard lock(mutex_);
  members_.insert(member);
  if (aborted_) member->note_abort();
}

void Family::remove(HostCommunicator* member) {
  const std::lock_guard lock(mutex_);
  members_.erase(member);
}

void Family::note_reason(const std::string& reason) {
  const std::lock_guard lock(mutex_);
  if (reason_.empty()) reason_ = reason;
}

std::string Family::reason() const {
  const std::lock_guard lock(mutex_);
  return reason_;
}

void Family::abort() noexcept {
  const std::lock_guard lock(mutex_);
  aborted_ = true;
  for (HostCommunicator* member : members_) member->note_abort();
}

HostCommunicator::HostCommunicator(std::unique_ptr<Transport> transport, std::string name,
                                   std::shared_ptr<Family> family)
    : transport_(std::move(transport)),
      name_(std::move(name)),
      family_(std::move(family)),
      exceptions_at_start_(std::uncaught_exceptions()),
      waiter_(*transport_, aborted_, timeout_setting(kCollectiveTimeout)),
      collectives_(*transport_, waiter_),
      worker_([this] { work(); }) {
  family_->add(this);
}

HostCommunicator::~HostCommunicator() {
  // A root group that goes because of an exception means that this rank is dying: the others must
  // not wait for it.
  if (is_root_ && std::uncaught_exceptions() > exceptions_at_start_)
    abort(static_cast<int>(core::ExitCode::comm));
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  worker_.join();
  family_->remove(this);
}

void HostCommunicator::abort(int exit_code) noexcept {
  transport_->end_job(exit_code);
  family_->abort();
}

void HostCommunicator::note_abort() noexcept {
  aborted_ = true;
  const std::lock_guard lock(mutex_);
  wake_.notify_all();
}

Work HostCommunicator::enqueue(OperationPtr operation) {
  {
    const std::lock_guard lock(mutex_);
    if (failure_) std::rethrow_exception(failure_);
    VT_REQUIRE(CommError, !aborted_, "[comm] {} on group {}: the group was aborted",
               operation->collective, name_);
    operation->number =
        recorder_.add(operation->collective, operation->buffer.count, operation->buffer.dtype);
    queue_.push_back(operation);
  }
  wake_.notify_all();
  const auto finish = [operation] {
    std::unique_lock lock(operation->mutex);
    operation->finished.wait(lock, [&] { return operation->done; });
    if (operation->error) std::rethrow_exception(operation->error);
  };
  return Work(finish, [this] { note_abort(); });
}

Work HostCommunicator::enqueue(const char* collective, Buffer buffer,
                               std::function<void(HostCollectives&)> run) {
  auto operation = std::make_shared<Operation>(waiter_);
  operation->collective = collective;
  operation->buffer = buffer;
  operation->run = std::move(run);
  return enqueue(std::move(operation));
}

Work HostCommunicator::all_reduce(Buffer inout, Reduce op, Stream) {
  check_buffer("all_reduce", inout);
  require_reducible("all_reduce", inout.dtype, op);
  return enqueue("all_reduce", inout, [=](HostCollectives& group) { group.all_reduce(inout, op); });
}

Work HostCommunicator::all_gather(Buffer in, Buffer out, Stream) {
  check_gather(size(), in, out);
  return enqueue("all_gather", in, [=](HostCollectives& group) { group.all_gather(in, out); });
}

Work HostCommunicator::reduce_scatter(Buffer in, Buffer out, Reduce op, Stream) {
  check_scatter(size(), in, out, op);
  return enqueue("reduce_scatter", in,
                 [=](HostCollectives& group) { group.reduce_scatter(in, out, op); });
}

Work HostCommunicator::broadcast(Buffer inout, int root, Stream) {
  check_buffer("broadcast", inout);
  check_peer("broadcast", size(), root);
  return enqueue("broadcast", inout, [=](HostCollectives& group) { group.broadcast(inout, root); });
}

Work HostCommunicator::all_to_all(Buffer in, Buffer out, Stream) {
  check_all_to_all(size(), in, out);
  return enqueue("all_to_all", in, [=](HostCollectives& group) { group.all_to_all(in, out); });
}

void HostCommunicator::barrier() {
  enqueue("barrier", {}, [](HostCollectives& group) { group.barrier(); }).wait();
}

Work HostCommunicator::enqueue_transfer(const char* collective, Buffer buffer, int peer) {
  check_buffer(collective, buffer);
  check_peer(collective, size(), peer);
  VT_REQUIRE(CommError, peer != rank(),
             "[comm] {}: rank {} cannot be its own peer; use send_receive", collective, peer);
  auto operation = std::make_shared<Operation>(waiter_);
  operation->collective = collective;
  operation->buffer = buffer;
  operation->peer = peer;
  operation->is_send = std::strcmp(collective, "send") == 0;
  return enqueue(std::move(operation));
}

Work HostCommunicator::send(Buffer in, int to, Stream) { return enqueue_transfer("send", in, to); }
Work HostCommunicator::receive(Buffer out, int from, Stream) {
  return enqueue_transfer("receive", out, from);
}

Work HostCommunicator::send_receive(Buffer in, int to, Buffer out, int from, Stream) {
  if (to == rank() && from == rank()) return copy_to_self(in, out, nullptr, false);
  auto sending = std::make_shared<Work>(send(in, to, nullptr));
  auto receiving = std::make_shared<Work>(receive(out, from, nullptr));
  const auto finish = [sending, receiving] {
    sending->wait();
    receiving->wait();
  };
  return Work(finish, [this] { note_abort(); });
}

std::unique_ptr<Communicator> HostCommunicator::split(int color, int key) {
  check_color(color);
  std::unique_ptr<Transport> child;
  const int serial = splits_++;
  bool alone = false;
  // The worker of a failed group must not touch this frame: wait() below returns only when it is
  // done with it.
  enqueue("split", {}, [&](HostCollectives& group) {
    const std::vector<std::array<int, 2>> all = group.gather_colors(color, key);
    std::vector<int> members;
    for (int other = 0; other < size(); ++other)
      if (all[static_cast<size_t>(other)][0] == color) members.push_back(other);
    std::stable_sort(members.begin(), members.end(), [&](int a, int b) {
      return all[static_cast<size_t>(a)][1] < all[static_cast<size_t>(b)][1];
    });
    alone = members.size() == 1;
    child = transport_->split(members, serial, waiter_);
    for (int& member : members) member = transport_->world_rank(member);
    child->set_world_ranks(members);
  }).wait();
  if (alone) return self_communicator();
  auto group = std::make_unique<HostCommunicator>(
      std::move(child), fmt::format("{}/{}.{}", name_, serial, color), family_);
  group->is_root_ = false;
  return group;
}

// --- the worker ---

void HostCommunicator::take_queue(bool wait) {
  std::unique_lock lock(mutex_);
  if (wait) wake_.wait(lock, [&] { return !queue_.empty() || stopping_ || aborted_; });
  ready_.insert(ready_.end(), queue_.begin(), queue_.end());
  queue_.clear();
}

void HostCommunicator::work() {
  while (true) {
    take_queue(ready_.empty() && transfers_.empty());
    if (aborted_) {
      fail_all(std::make_exception_ptr(
          core::CommError(fmt::format("[comm] group {} was aborted", name_))));
      return;
    }
    if (ready_.empty() && transfers_.empty()) return;  // stopping, and nothing is left to do
    try {
      while (!ready_.empty() && start_next()) {
      }
      advance_transfers();
    } catch (const TimeoutError& error) {
      fail_all(explain(error.what(),
                       "\nlast collectives of this rank:\n" + recorder_.text(kRecordsOnTimeout)));
      return;
    } catch (const std::exception& error) {
      fail_all(explain(error.what(), ""));
      return;
    }
  }
}

// Transfers overtake nothing but run side by side, so a ring of send and receive does not block; a
// collective waits for the transfers before it. Two receives from one rank, whose cards tell them
// apart, run one after the other.
bool HostCommunicator::start_next() {
  Operation& next = *ready_.front();
  current_ = ready_.front();
  if (next.run) {
    if (!transfers_.empty()) return false;
    run_collective(next);
  } else {
    for (const OperationPtr& other : transfers_)
      if (!next.is_send && !other->is_send && other->peer == next.peer) return false;
    begin_transfer(next);
    transfers_.push_back(ready_.front());
  }
  ready_.pop_front();
  return true;
}

void HostCommunicator::run_collective(Operation& operation) {
  recorder_.started(operation.number);
  waiter_.restart(operation.collective, operation.number);
  operation.run(collectives_);
  finish(operation, nullptr);
}

void HostCommunicator::begin_transfer(Operation& operation) {
  recorder_.started(operation.number);
  operation.waiter.restart(operation.collective, operation.number);
  Call& call = operation.card.call;
  if (!operation.is_send) {
    operation.requests = {transport_->start_receive(operation.peer, &operation.card, sizeof(Card))};
    return;
  }
  call = {Collective::send, Reduce::sum, operation.buffer.dtype, -1, operation.buffer.count};
  operation.requests = {transport_->start_send(operation.peer, &operation.card, sizeof(Card))};
  if (operation.buffer.count > 0)
    operation.requests.push_back(
        transport_->start_send(operation.peer, operation.buffer.data, operation.buffer.bytes()));
  operation.data_started = true;
}

/// True once the transfer is over.
bool HostCommunicator::advance_transfer(Operation& operation) {
  for (const RequestPtr& request : operation.requests)
    if (!request->done) return false;
  if (operation.data_started) return true;
  const Call expected{Collective::send, Reduce::sum, operation.buffer.dtype, -1,
                      operation.buffer.count};
  VT_REQUIRE(CommError, operation.card.call == expected,
             "[comm] receive: rank {} expects {} x {} but rank {} calls {}", rank(),
             operation.buffer.count, core::name(operation.buffer.dtype), operation.peer,
             operation.card.call.describe());
  operation.data_started = true;
  if (operation.buffer.count == 0) return true;
  operation.requests = {
      transport_->start_receive(operation.peer, operation.buffer.data, operation.buffer.bytes())};
  return false;
}

void HostCommunicator::advance_transfers() {
  if (transfers_.empty()) return;
  current_ = transfers_.front();
  transport_->progress(std::chrono::microseconds(200));
  for (size_t i = 0; i < transfers_.size();) {
    Operation& operation = *transfers_[i];
    current_ = transfers_[i];
    if (advance_transfer(operation)) {
      finish(operation, nullptr);
      transfers_.erase(transfers_.begin() + static_cast<std::ptrdiff_t>(i));
    } else {
      operation.waiter.check(operation.requests);
      ++i;
    }
  }
}

void HostCommunicator::finish(Operation& operation, std::exception_ptr error) {
  if (error)
    recorder_.failed(operation.number);
  else
    recorder_.finished(operation.number);
  const std::lock_guard lock(operation.mutex);
  operation.done = true;
  operation.error = std::move(error);
  operation.finished.notify_all();
}

// Once a group has failed its order of messages is lost, so it stays failed, and the peers are told
// by close(). Only then may callers free their buffers.
void HostCommunicator::fail_all(std::exception_ptr error) {
  transport_->close(family_->reason());
  {
    const std::lock_guard lock(mutex_);
    failure_ = error;
    ready_.insert(ready_.end(), queue_.begin(), queue_.end());
    queue_.clear();
  }
  ready_.insert(ready_.begin(), transfers_.begin(), transfers_.end());
  transfers_.clear();
  for (const OperationPtr& operation : ready_) finish(*operation, error);
  ready_.clear();
}

std::exception_ptr HostCommunicator::explain(const std::string& message,
                                             const std::string& record) const {
  const Buffer& buffer = current_->buffer;
  const std::string reason = fmt::format(
      "{} (in {} #{} of {} x {} on group {}, rank {} of {})", message, current_->collective,
      current_->number, buffer.count, core::name(buffer.dtype), name_, rank(), size());
  family_->note_reason(reason);
  return std::make_exception_ptr(core::CommError(reason + record));
}

}  // namespace vitrail::comm
