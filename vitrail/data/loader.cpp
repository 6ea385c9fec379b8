#include "vitrail/data/loader.h"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <set>
#include <thread>

#include <ATen/ops/empty.h>

#include "vitrail/core/clock.h"
#include "vitrail/core/error.h"
#include "vitrail/core/log.h"
#include "vitrail/data/batch_plan.h"
#include "vitrail/data/source_list.h"

namespace vitrail::data {
namespace {

struct BrokenSample {
  std::string path;
  std::string message;
};

/// What a worker found for one place of a batch.
struct PlaceResult {
  std::exception_ptr error;          // nothing could be put there
  std::vector<BrokenSample> broken;  // skipped on the way
};

/// A batch in the making. Workers write disjoint places; claimed and done are guarded by the
/// loader's mutex.
struct PendingBatch {
  LoaderState place;
  Batch batch;
  float* image = nullptr;
  int64_t *label = nullptr, *sample_id = nullptr;
  std::vector<PlaceResult> results;
  int64_t claimed = 0, done = 0;

  int64_t size() const { return static_cast<int64_t>(results.size()); }
};

struct Claim {
  PendingBatch* pending = nullptr;
  int64_t first = 0, last = 0;
};

}  // namespace

class Loader::Impl {
 public:
  Impl(const std::vector<config::Source>& sources, const config::Model& model,
       const LoaderOptions& options, LoaderState start)
      : options_(options),
        list_(sources, model, options.seed, options.training, options.raw),
        plan_(options, list_.size()),
        sequence_(list_.size(), options.seed, options.training),
        shape_(model.image_size) {
    if (list_.has_masks()) label_shape_ = shape_;
    if (model.single_channel)
      takes_turns_ = list_.variables().empty() ? model.variables : list_.variables();
    shape_.insert(shape_.begin(), list_.channels());
    VT_REQUIRE(
        ConfigError, options.workers >= 0 && options.prefetch >= 1,
        "[data] data.workers must be at least 0 and data.prefetch at least 1 but are {} and {}",
        options.workers, options.prefetch);
    VT_CHECK(start.epoch >= 0 && start.batch >= 0 && start.batch <= plan_.batches_per_epoch(),
             "[data] the start must lie within an epoch of {} batches but is epoch {}, batch {}",
             plan_.batches_per_epoch(), start.epoch, start.batch);
    state_ = scheduled_ = wrapped(start);
    schedule();
    try {
      for (int64_t i = 0; i < options.workers; ++i) workers_.emplace_back([this] { work(); });
    } catch (...) {  // the system's limit on threads; those that run wait for work
      stop();
      throw;
    }
  }

  ~Impl() { stop(); }

  Batch next() {
    wait_for_front();
    // On an error the batch stays in front, so that every later call reports the same.
    std::unique_ptr<PendingBatch>& front = pending_.front();
    settle(*front);
    Batch batch = std::move(front->batch);
    if (takes_turns_.size() > 1) keep_one_variable(batch, front->place);
    {
      const std::lock_guard lock(mutex_);
      pending_.pop_front();
    }
    state_ = wrapped({batch.epoch, state_.batch + 1});
    schedule();
    return batch;
  }

  const SourceList& list() const { return list_; }
  const BatchPlan& plan() const { return plan_; }
  LoaderState state() const { return state_; }
  double waited_ms() const { return waited_ms_; }
  int64_t skipped() const { return skipped_; }
  int64_t in_flight() const {
    const std::lock_guard lock(mutex_);
    return static_cast<int64_t>(pending_.size());
  }

 private:
  /// A worker finishes the places it has claimed, then ends.
  void stop() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    work_ready_.notify_all();
    for (std::thread& worker : workers_) worker.join();
    workers_.clear();
  }

  /// Variables take turns, batch after batch, on every rank the same one.
  void keep_one_variable(Batch& batch, LoaderState place) const {
    const auto count = static_cast<int64_t>(takes_turns_.size());
    const int64_t turn = (place.epoch * plan_.batches_per_epoch() + place.batch) % count;
    const at::Tensor channel = batch.image.narrow(1, turn, 1);
    batch.image = at::empty(channel.sizes(), channel.options().pinned_memory(options_.pin_memory))
                      .copy_(channel);
    batch.variables = {takes_turns_[static_cast<size_t>(turn)]};
  }

  LoaderState wrapped(LoaderState place) const {
    return place.batch < plan_.batches_per_epoch() ? place : LoaderState{place.epoch + 1, 0};
  }

  /// Allocates batches until `prefetch` are in the making.
  void schedule() {
    while (in_flight() < options_.prefetch) {
      std::unique_ptr<PendingBatch> pending = allocate(scheduled_);
      scheduled_ = wrapped({scheduled_.epoch, scheduled_.batch + 1});
      {
        const std::lock_guard lock(mutex_);
        pending_.push_back(std::move(pending));
      }
      work_ready_.notify_all();
    }
  }

  std::unique_ptr<PendingBatch> allocate(LoaderState place) const {
    auto pending = std::make_unique<PendingBatch>();
    pending->place = place;
    const int64_t places = plan_.places(place.batch);
    std::vector<int64_t> shape{places};
    shape.insert(shape.end(), shape_.begin(), shape_.end());
    const auto options = at::TensorOptions().pinned_memory(options_.pin_memory);
    Batch& batch = pending->batch;
    batch.image = at::empty(shape, options.dtype(at::kFloat));
    shape.assign(1, places);
    shape.insert(shape.end(), label_shape_.begin(), label_shape_.end());
    batch.label = at::empty(shape, options.dtype(at::kLong));
    batch.sample_ids = at::empty({places}, options.dtype(at::kLong));
    batch.variables = list_.variables();
    batch.epoch = place.epoch;
    batch.slot = plan_.first_slot(place.batch);
    pending->image = batch.image.mutable_data_ptr<float>();
    pending->label = batch.label.mutable_data_ptr<int64_t>();
    pending->sample_id = batch.sample_ids.mutable_data_ptr<int64_t>();
    pending->results.resize(static_cast<size_t>(places));
    return pending;
  }

  void work() {
    std::unique_lock lock(mutex_);
    for (;;) {
      Claim claim;
      work_ready_.wait(lock,
                       [&] { return stopping_ || (claim = take_claim()).pending != nullptr; });
      if (stopping_) return;
      lock.unlock();
      fill(claim);
      lock.lock();
      finish(claim);
    }
  }

  /// The next places in order. Several at a time when a batch has many, so that tiny images do not
  /// fight for the lock.
  Claim take_claim() {
    for (const std::unique_ptr<PendingBatch>& pending : pending_) {
      if (pending->claimed == pending->size()) continue;
      const int64_t share = pending->size() / (4 * std::max<int64_t>(options_.workers, 1));
      const int64_t first = pending->claimed;
      pending->claimed = std::min(first + std::clamp<int64_t>(share, 1, 32), pending->size());
      return {pending.get(), first, pending->claimed};
    }
    return {};
  }

  void finish(const Claim& claim) {
    claim.pending->done += claim.last - claim.first;
    if (claim.pending->done == claim.pending->size()) batch_ready_.notify_one();
  }

  void fill(const Claim& claim) const {
    for (int64_t p = claim.first; p < claim.last; ++p) {
      PlaceResult& result = claim.pending->results[static_cast<size_t>(p)];
      try {
        fill_place(*claim.pending, p, result);
      } catch (...) {
        result.error = std::current_exception();
      }
    }
  }

  void fill_place(PendingBatch& pending, int64_t p, PlaceResult& result) const {
    const int64_t slot = plan_.slot(pending.place.batch, p);
    // Skipping looks further along the same epoch's order; evaluation leaves a gap, since it counts
    // each sample once.
    const bool replaces = options_.skip_errors && options_.training;
    const int64_t tries = replaces ? std::min(list_.size(), skip_limit() + 1) : 1;
    for (int64_t t = 0; slot >= 0 && t < tries; ++t) {
      const int64_t index = sequence_.sample_at(pending.place.epoch, (slot + t) % list_.size());
      try {
        list_.load(pending.place.epoch, index, pending.image + p * list_.values_per_sample(),
                   pending.label + p * list_.values_per_label());
        pending.sample_id[p] = index;
        return;
      } catch (const core::DataError& error) {
        if (!options_.skip_errors) throw;
        result.broken.push_back({list_.describe(pending.place.epoch, index).path, error.what()});
      }
    }
    VT_REQUIRE(DataError, slot < 0 || !replaces,
               "[data] {} samples in a row are broken; the last is {}", tries,
               result.broken.back().message);
    pad(pending, p);
  }

  void pad(PendingBatch& pending, int64_t p) const {
    float* image = pending.image + p * list_.values_per_sample();
    std::fill(image, image + list_.values_per_sample(), 0.0f);
    int64_t* label = pending.label + p * list_.values_per_label();
    std::fill(label, label + list_.values_per_label(), -1);
    pending.sample_id[p] = -1;
  }

  void wait_for_front() {
    const core::Stopwatch watch;
    std::unique_lock lock(mutex_);
    PendingBatch& front = *pending_.front();
    while (workers_.empty() && front.done < front.size()) {
      const Claim claim = take_claim();
      lock.unlock();
      fill(claim);
      lock.lock();
      finish(claim);
    }
    batch_ready_.wait(lock, [&] { return front.done == front.size(); });
    waited_ms_ = watch.ms();
  }

  /// Errors and skips in the order of the samples, whatever the order in which workers met them.
  void settle(PendingBatch& pending) {
    for (PlaceResult& result : pending.results) {
      for (const BrokenSample& broken : result.broken) count_broken(broken);
      if (!result.broken.empty()) ++skipped_;
      result.broken.clear();
      if (result.error) std::rethrow_exception(result.error);
    }
  }

  void count_broken(const BrokenSample& broken) {
    if (broken_paths_.insert(broken.path).second)
      core::log_warning("[data] skipped a broken file: {}", broken.message);
    VT_REQUIRE(DataError, static_cast<int64_t>(broken_paths_.size()) <= skip_limit(),
               "[data] more than {} of {} samples are broken, which is more than data.on_error "
               "skip allows; the last "
               "is {}",
               skip_limit(), list_.size(), broken.message);
  }

  int64_t skip_limit() const { return std::max<int64_t>(10, list_.size() / 100); }

  const LoaderOptions options_;
  const SourceList list_;
  const BatchPlan plan_;
  const Sequence sequence_;
  std::vector<std::string> takes_turns_;  // single_channel: the variables of the list
  std::vector<int64_t> shape_;            // [C, sides...]
  std::vector<int64_t> label_shape_;      // [sides...] of masks; empty for classes

  // Of the consumer alone.
  LoaderState state_, scheduled_;
  double waited_ms_ = 0;
  int64_t skipped_ = 0;
  std::set<std::string> broken_paths_;

  mutable std::mutex mutex_;
  std::condition_variable work_ready_, batch_ready_;
  std::deque<std::unique_ptr<PendingBatch>> pending_;
  bool stopping_ = false;
  std::vector<std::thread> workers_;
};

Loader::Loader(const std::vector<config::Source>& sources, const config::Model& model,
               const LoaderOptions& options, LoaderState start)
    : impl_(std::make_unique<Impl>(sources, model, options, start)) {}
Loader::~Loader() = default;

int64_t Loader::samples() const { return impl_->list().size(); }
int64_t Loader::batches_per_epoch() const { return impl_->plan().batches_per_epoch(); }
Batch Loader::next() { return impl_->next(); }
LoaderState Loader::state() const { return impl_->state(); }
double Loader::waited_ms() const { return impl_->waited_ms(); }
int64_t Loader::skipped() const { return impl_->skipped(); }
int64_t Loader::in_flight() const { return impl_->in_flight(); }
std::vector<std::string> Loader::class_names() const { return impl_->list().class_names(); }
const Reader& Loader::reader(int64_t source) const { return impl_->list().reader(source); }
int64_t Loader::source_of(int64_t sample_id) const { return impl_->list().source_of(sample_id); }
Window Loader::window(int64_t epoch, int64_t sample_id) const {
  return impl_->list().window(epoch, sample_id);
}
int64_t Loader::file_axes() const { return impl_->list().file_axes(); }

}  // namespace vitrail::data
