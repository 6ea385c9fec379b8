#include "vitrail/data/loader_fill.h"

#include <algorithm>
#include <chrono>

#include "vitrail/core/error.h"

namespace vitrail::data {
namespace {

using Clock = std::chrono::steady_clock;

constexpr auto kPause = std::chrono::milliseconds(20);  // before a failed read is tried again

int64_t now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now().time_since_epoch())
      .count();
}

}  // namespace

Filler::Filler(const LoaderOptions& options, std::unique_ptr<const SourceList> list,
               std::unique_ptr<const Order> order, const config::Model& model)
    : options_(options),
      list_(std::move(list)),
      order_(std::move(order)),
      layout_(*list_, *order_, model, options) {}

Filler::~Filler() = default;

int64_t Filler::broken_limit() const {
  return std::max<int64_t>(
      10, static_cast<int64_t>(options_.max_broken * static_cast<double>(list_->size())));
}

void Filler::start() {
  const std::lock_guard lock(mutex_);
  for (int64_t i = 0; i < options_.workers; ++i) start_worker();
}

void Filler::start_worker() {
  auto worker = std::make_shared<Worker>();
  worker->thread = std::thread([self = shared_from_this(), worker] { work(self, worker); });
  workers_.push_back(std::move(worker));
}

void Filler::add(PendingBatch* pending) {
  {
    const std::lock_guard lock(mutex_);
    if (unclaimed_.empty()) first_unclaimed_ = 0;
    unclaimed_.push_back(pending);
  }
  work_ready_.notify_all();
}

void Filler::work(const std::shared_ptr<Filler>& self, const std::shared_ptr<Worker>& me) {
  std::unique_lock lock(self->mutex_);
  for (;;) {
    self->work_ready_.wait(lock, [&] { return self->stopping_ || self->take_claim(me->claim); });
    if (self->stopping_) break;
    lock.unlock();
    if (!self->fill(*me)) return;
    lock.lock();
  }
  me->has_ended = true;
  self->ended_.notify_all();
}

/// Several places at a time when a batch has many, so that tiny images do not fight for the lock.
bool Filler::take_claim(Claim& claim) {
  if (!left_over_.empty()) {
    claim = left_over_.front();
    left_over_.pop_front();
    return true;
  }
  if (unclaimed_.empty()) return false;
  PendingBatch* pending = unclaimed_.front();
  const int64_t share = pending->size() / (4 * std::max<int64_t>(options_.workers, 1));
  const int64_t first = first_unclaimed_;
  first_unclaimed_ = std::min(first + std::clamp<int64_t>(share, 1, 32), pending->size());
  claim = {pending, first, first_unclaimed_, 0, 0};
  if (first_unclaimed_ == pending->size()) {
    unclaimed_.pop_front();
    first_unclaimed_ = 0;
  }
  return true;
}

bool Filler::fill(Worker& me) {
  while (me.claim.p < me.claim.last && !stopping_)
    if (!fill_place(me)) return false;
  return true;
}

Pick Filler::pick(const Claim& claim) const {
  return order_->pick(claim.pending->at, claim.p, claim.candidate);
}

bool Filler::fill_place(Worker& me) {
  Claim& claim = me.claim;
  const Pick wanted = pick(claim);
  if (wanted.index < 0) {
    layout_.pad(*claim.pending, claim.p);
    finish_place(claim);
    return true;
  }
  if (const std::string known = known_problem(wanted); !known.empty()) {
    fail(claim, wanted, known, true);
    return true;
  }
  try {
    ReadSample sample;
    if (!read(me, wanted, sample)) return false;
    layout_.place(sample, *claim.pending, claim.p);
    finish_place(claim);
  } catch (const core::DataError& error) {
    if (claim.attempt < options_.read_retries) std::this_thread::sleep_for(kPause);
    fail(claim, wanted, error.what(), false);
  } catch (...) {
    claim.pending->results[static_cast<size_t>(claim.p)].error = std::current_exception();
    finish_place(claim);
  }
  return true;
}

/// False: given up meanwhile. An exception passes only when it was not.
bool Filler::read(Worker& me, const Pick& pick, ReadSample& sample) const {
  int64_t since = now_ns();
  me.reading_since.store(since, std::memory_order_release);
  std::exception_ptr error;
  try {
    sample = list_->read(pick.epoch, pick.index);
  } catch (...) {
    error = std::current_exception();
  }
  if (!me.reading_since.compare_exchange_strong(since, kIdle, std::memory_order_acq_rel))
    return false;
  if (error) std::rethrow_exception(error);
  return true;
}

void Filler::fail(Claim& claim, const Pick& pick, const std::string& message, bool is_final) {
  if (!is_final && claim.attempt < options_.read_retries) {
    ++claim.attempt;
    return;
  }
  remember(pick, message);
  PlaceResult& result = claim.pending->results[static_cast<size_t>(claim.p)];
  if (!options_.skip_errors) {
    result.error = std::make_exception_ptr(core::DataError(message));
    finish_place(claim);
    return;
  }
  result.broken.push_back({list_->describe(pick.epoch, pick.index).path, message});
  // Skipping looks further along the same order; evaluation leaves a gap, since it counts each
  // sample once.
  if (options_.training) {
    claim.attempt = 0;
    if (++claim.candidate < std::min(list_->size(), broken_limit() + 1)) return;
    result.error = std::make_exception_ptr(core::DataError(fmt::format(
        "[data] {} samples in a row are broken; the last is {}", claim.candidate, message)));
  } else {
    layout_.pad(*claim.pending, claim.p);
  }
  finish_place(claim);
}

void Filler::finish_place(Claim& claim) {
  PendingBatch& pending = *claim.pending;
  ++claim.p;
  claim.candidate = claim.attempt = 0;
  const int64_t size = pending.size();  // after the last place the batch may be gone
  if (pending.done.fetch_add(1, std::memory_order_acq_rel) + 1 < size) return;
  { const std::lock_guard lock(mutex_); }  // the consumer is before its check or already asleep
  batch_ready_.notify_one();
}

std::string Filler::known_problem(const Pick& pick) const {
  const std::lock_guard lock(problems_mutex_);
  if (problems_.empty() || !list_->reads_whole(pick.index)) return "";
  const auto found = problems_.find(list_->file_of(pick.epoch, pick.index));
  return found == problems_.end() ? "" : found->second;
}

void Filler::remember(const Pick& pick, const std::string& message) {
  // Of a file that is read in parts, other samples may be sound: which are, must not depend on the
  // order in which the threads of this rank met them.
  if (!list_->reads_whole(pick.index)) return;
  const std::lock_guard lock(problems_mutex_);
  problems_.emplace(list_->file_of(pick.epoch, pick.index), message);
}

void Filler::watch() {
  if (options_.read_timeout_s <= 0) return;
  const int64_t now = now_ns();
  for (const std::shared_ptr<Worker>& worker : workers_) {
    const int64_t since = worker->reading_since.load(std::memory_order_acquire);
    if (since > 0 && static_cast<double>(now - since) > 1e9 * options_.read_timeout_s)
      give_up(*worker, since);
  }
  const auto is_gone = [](const std::shared_ptr<Worker>& worker) {
    return worker->reading_since.load(std::memory_order_relaxed) == kGivenUp;
  };
  const auto gone = std::erase_if(workers_, is_gone);
  const std::lock_guard lock(mutex_);
  for (size_t i = 0; i < gone; ++i) start_worker();
}

void Filler::give_up(Worker& worker, int64_t since) {
  if (!worker.reading_since.compare_exchange_strong(since, kGivenUp, std::memory_order_acq_rel))
    return;
  worker.thread.detach();
  ++given_up_;
  Claim claim = worker.claim;
  const Pick stuck = pick(claim);
  const std::string message = fmt::format(
      "[data] {}: reading must take at most data.read_timeout_s = {} s but took longer "
      "(attempt {})",
      list_->describe(stuck.epoch, stuck.index).path, options_.read_timeout_s, claim.attempt + 1);
  list_->give_up(stuck.epoch, stuck.index, std::make_exception_ptr(core::DataError(message)));
  fail(claim, stuck, message, false);
  if (claim.p == claim.last) return;
  const std::lock_guard lock(mutex_);
  left_over_.push_back(claim);
  work_ready_.notify_one();
}

void Filler::wait(PendingBatch& pending) {
  if (workers_.empty()) {
    Worker here;
    while (!pending.is_done() && (here.claim.p < here.claim.last || take_claim(here.claim)))
      fill(here);
    return;
  }
  watch();
  const auto tick = std::chrono::duration<double>(
      options_.read_timeout_s > 0 ? std::min(options_.read_timeout_s / 4, 1.0) : 1.0);
  std::unique_lock lock(mutex_);
  while (!batch_ready_.wait_for(lock, tick, [&] { return pending.is_done(); })) {
    lock.unlock();
    watch();
    lock.lock();
  }
}

void Filler::stop() {
  stopping_ = true;
  { const std::lock_guard lock(mutex_); }
  work_ready_.notify_all();
  const double grace =
      options_.read_timeout_s > 0 ? std::min(kGrace, options_.read_timeout_s) : kGrace;
  const auto deadline = Clock::now() + std::chrono::duration_cast<Clock::duration>(
                                           std::chrono::duration<double>(grace));
  for (const std::shared_ptr<Worker>& worker : workers_) {
    {
      std::unique_lock lock(mutex_);
      ended_.wait_until(lock, deadline, [&] { return worker->has_ended; });
    }
    int64_t since = worker->reading_since.load(std::memory_order_acquire);
    // One that reads for long is left to itself; any other ends by itself very soon.
    if (since > 0 && worker->reading_since.compare_exchange_strong(since, kGivenUp))
      worker->thread.detach();
    else
      worker->thread.join();
  }
  workers_.clear();
}

}  // namespace vitrail::data
