#include "vitrail/data/loader.h"

#include <algorithm>
#include <deque>
#include <set>

#include "vitrail/core/clock.h"
#include "vitrail/core/error.h"
#include "vitrail/core/log.h"
#include "vitrail/data/array_reader.h"
#include "vitrail/data/loader_fill.h"
#include "vitrail/data/memory_watch.h"

namespace vitrail::data {
namespace {

void check_options(const LoaderOptions& options) {
  VT_REQUIRE(
      ConfigError, options.workers >= 0 && options.prefetch >= 1,
      "[data] data.workers must be at least 0 and data.prefetch at least 1 but are {} and {}",
      options.workers, options.prefetch);
  VT_REQUIRE(ConfigError,
             options.read_retries >= 0 && options.read_timeout_s >= 0 && options.cache_bytes >= 0 &&
                 options.max_broken >= 0 && options.max_broken <= 1,
             "[data] data.read_retries, data.read_timeout_s and data.cache_gib must be at least 0 "
             "and data.max_broken must lie in [0, 1] but got {}, {}, {} and {}",
             options.read_retries, options.read_timeout_s,
             static_cast<double>(options.cache_bytes) / (int64_t{1} << 30), options.max_broken);
}

std::vector<int64_t> ranks_of_sources(const std::vector<config::Source>& sources,
                                      const config::Model& model, const LoaderOptions& options) {
  if (!options.training || options.mixing != Mixing::rank) return {};
  if (!options.ranks_per_source.empty()) return options.ranks_per_source;
  return assign_ranks(measure_costs(sources, model, std::max<int64_t>(options.workers, 1)), {},
                      options.data_ranks);
}

std::shared_ptr<Filler> make_filler(const std::vector<config::Source>& sources,
                                    const config::Model& model, const LoaderOptions& options) {
  check_options(options);
  set_chunk_cache_bytes(options.cache_bytes);
  const bool mixes_samples = !options.training || options.mixing == Mixing::sample;
  auto list = std::make_unique<const SourceList>(sources, model, options.seed, options.training,
                                                 options.raw, options.cache_bytes, mixes_samples);
  std::unique_ptr<const Order> order =
      make_order(options, list->sizes(), ranks_of_sources(sources, model, options));
  return std::make_shared<Filler>(options, std::move(list), std::move(order), model);
}

}  // namespace

class Loader::Impl {
 public:
  Impl(const std::vector<config::Source>& sources, const config::Model& model,
       const LoaderOptions& options, LoaderState start)
      : options_(options), filler_(make_filler(sources, model, options)) {
    VT_CHECK(start.epoch >= 0 && start.batch >= 0 && start.batch <= order().batches_per_epoch(),
             "[data] the start must lie within an epoch of {} batches but is epoch {}, batch {}",
             order().batches_per_epoch(), start.epoch, start.batch);
    state_ = scheduled_ = wrapped(start);
    if (!options_.reads) return;
    try {
      filler_->start();
      schedule();
    } catch (...) {  // the system's limit on threads; those that run wait for work
      filler_->stop();
      throw;
    }
  }
  ~Impl() { filler_->stop(); }

  Batch next() {
    VT_CHECK(options_.reads, "[data] a loader that reads nothing has no batches; call skip()");
    PendingBatch& front = *pending_.front();
    const core::Stopwatch watch;
    filler_->wait(front);
    waited_ms_ = watch.ms();
    // On an error the batch stays in front, so that every later call reports the same.
    settle(front);
    filler_->layout().keep_one_variable(front);
    Batch batch = std::move(front.batch);
    pending_.pop_front();
    state_ = wrapped({batch.epoch, state_.batch + 1});
    spare_memory();
    schedule();
    return batch;
  }

  void skip() {
    VT_CHECK(!options_.reads, "[data] a loader that reads must give its batches; call next()");
    state_ = wrapped({state_.epoch, state_.batch + 1});
  }

  const SourceList& list() const { return filler_->list(); }
  const Order& order() const { return filler_->order(); }
  LoaderState state() const { return state_; }
  double waited_ms() const { return waited_ms_; }
  int64_t skipped() const { return skipped_; }
  int64_t timed_out() const { return filler_->given_up(); }
  int64_t in_flight() const { return static_cast<int64_t>(pending_.size()); }

  std::vector<SourceProgress> progress() const {
    std::vector<SourceProgress> result;
    const std::vector<int64_t> sizes = list().sizes();
    for (int64_t s = 0; s < list().sources(); ++s) {
      const double samples = order().delivered(state_, s);
      const auto size = static_cast<double>(std::max<int64_t>(sizes[static_cast<size_t>(s)], 1));
      result.push_back({list().name(s), samples, samples / size});
    }
    return result;
  }

  int64_t draw_epoch(const Batch& batch, int64_t p) const {
    if (order().source(state_) < 0) return batch.epoch;
    return order().pick({batch.epoch, batch.slot / options_.global_batch}, p).epoch;
  }

 private:
  LoaderState wrapped(LoaderState place) const {
    return place.batch < order().batches_per_epoch() ? place : LoaderState{place.epoch + 1, 0};
  }

  /// Allocates batches until `prefetch` are in the making.
  void schedule() {
    while (in_flight() < options_.prefetch) {
      pending_.push_back(filler_->layout().allocate(scheduled_));
      scheduled_ = wrapped({scheduled_.epoch, scheduled_.batch + 1});
      filler_->add(pending_.back().get());
    }
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
    const int64_t limit = filler_->broken_limit();
    VT_REQUIRE(DataError, static_cast<int64_t>(broken_paths_.size()) <= limit,
               "[data] more than {} of {} samples are broken, which is more than data.on_error "
               "skip and data.max_broken allow; the last is {}",
               limit, list().size(), broken.message);
  }

  /// Looks at the host's memory every second or so, and gives up half of the cache when it runs out.
  void spare_memory() {
    constexpr double kEvery = 1;
    if (memory_watch_.seconds() < kEvery || list().cache().bytes() == 0) return;
    memory_watch_.restart();
    const HostMemory memory = host_memory();
    if (!memory.is_scarce()) return;
    DecodedCache& cache = list().cache();
    cache.limit(cache.bytes() / 2);
    if (has_warned_) return;
    has_warned_ = true;
    constexpr double kGiB = 1 << 30;
    core::log_warning(
        "[data] {:.1f} of {:.1f} GiB of host memory are left; the cache of decoded files is cut to "
        "{:.2f} GiB. Lower data.cache_gib, data.prefetch or data.workers if that is not enough",
        static_cast<double>(memory.available_bytes) / kGiB,
        static_cast<double>(memory.limit_bytes) / kGiB,
        static_cast<double>(cache.max_bytes()) / kGiB);
  }

  const LoaderOptions options_;
  const std::shared_ptr<Filler> filler_;
  LoaderState state_, scheduled_;
  double waited_ms_ = 0;
  int64_t skipped_ = 0;
  std::set<std::string> broken_paths_;
  std::deque<std::unique_ptr<PendingBatch>> pending_;  // the filler's are among them
  core::Stopwatch memory_watch_;
  bool has_warned_ = false;
};

Loader::Loader(const std::vector<config::Source>& sources, const config::Model& model,
               const LoaderOptions& options, LoaderState start)
    : impl_(std::make_unique<Impl>(sources, model, options, start)),
      image_size_(model.image_size) {}
Loader::Loader(Loader&&) noexcept = default;
Loader::~Loader() = default;

int64_t Loader::samples() const { return impl_->list().size(); }
int64_t Loader::batches_per_epoch() const { return impl_->order().batches_per_epoch(); }
Batch Loader::next() { return impl_->next(); }
void Loader::skip() { impl_->skip(); }
LoaderState Loader::state() const { return impl_->state(); }
std::vector<SourceProgress> Loader::progress() const { return impl_->progress(); }
double Loader::waited_ms() const { return impl_->waited_ms(); }
int64_t Loader::skipped() const { return impl_->skipped(); }
int64_t Loader::timed_out() const { return impl_->timed_out(); }
int64_t Loader::in_flight() const { return impl_->in_flight(); }
std::vector<std::string> Loader::class_names() const { return impl_->list().class_names(); }
const Reader& Loader::reader(int64_t source) const { return impl_->list().reader(source); }
int64_t Loader::source_of(int64_t sample_id) const { return impl_->list().source_of(sample_id); }
Window Loader::window(int64_t epoch, int64_t sample_id) const {
  return impl_->list().window(epoch, sample_id);
}
int64_t Loader::draw_epoch(const Batch& batch, int64_t p) const {
  return impl_->draw_epoch(batch, p);
}
int64_t Loader::file_axes() const { return impl_->list().file_axes(); }

}  // namespace vitrail::data
