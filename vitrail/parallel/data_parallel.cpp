#include "vitrail/parallel/data_parallel.h"

#include <map>
#include <utility>

#include "vitrail/core/error.h"
#include "vitrail/parallel/device.h"

namespace vitrail::parallel {

/// Neighbouring units whose gradients are reduced in one collective.
struct Bucket {
  int64_t offset = 0, count = 0;  // elements
  size_t last_unit = 0;           // in arena order
};

/// Backward completes units in arena order, so "what is complete" is one number.
class GradientReducer::Impl {
 public:
  Impl(models::Model& model, UnitSet& units, comm::Communicator& group, double bucket_mib)
      : units_(units),
        group_(group),
        device_(units.gradient().device()),
        side_(side_stream(device_)),
        ready_(device_),
        reduced_(device_) {
    make_buckets(bucket_mib);
    for (nn::Stack* stack : model.stacks()) {
      watchers_.push_back(std::make_unique<Watcher>(*this, *stack));
      stack->add_observer(watchers_.back().get());
    }
  }

  ~Impl() {
    for (const auto& watcher : watchers_) watcher->stack.remove_observer(watcher.get());
  }

  void begin_backward(bool last_micro_batch) {
    running_ = true;
    reducing_ = last_micro_batch && group_.size() > 1;
    complete_ = next_bucket_ = 0;
  }

  void end_backward() {
    if (reducing_) early_starts_ = static_cast<int64_t>(next_bucket_);
    complete_up_to(units_.units().size());
    running_ = false;
    if (!reducing_) return;
    for (comm::Work& work : works_) work.wait();
    works_.clear();
    reduced_.record(side_);
    reduced_.make_wait(current_stream(device_));
  }

  int64_t bucket_count() const { return static_cast<int64_t>(buckets_.size()); }
  int64_t early_starts() const { return early_starts_; }

 private:
  /// Tells which units of one stack backward has passed.
  struct Watcher : nn::StackObserver {
    Watcher(Impl& reducer_, nn::Stack& stack_) : reducer(reducer_), stack(stack_) {
      const auto units = reducer.units_.units();
      for (size_t u = 0; u < units.size(); ++u)
        if (units[u].stack == &stack) unit_of_block[units[u].block] = u;
      VT_CHECK(static_cast<int>(unit_of_block.size()) == stack.depth(),
               "[ddp] every block must have a unit but {} of {} have", unit_of_block.size(),
               stack.depth());
    }
    /// Autograd reaches the stack's last block only after all that follows it in the model.
    void before_backward(int i) override { reducer.complete_up_to(unit_of_block.at(i)); }
    void after_backward(int i) override { reducer.complete_up_to(unit_of_block.at(i) + 1); }

    Impl& reducer;
    nn::Stack& stack;
    std::map<int, size_t> unit_of_block;
  };

  void make_buckets(double bucket_mib) {
    const auto least = static_cast<int64_t>(bucket_mib * 1024 * 1024 / sizeof(float));
    const auto units = units_.units();
    Bucket open{0, 0, 0};
    for (size_t u = 0; u < units.size(); ++u) {
      open.count += units[u].count;
      open.last_unit = u;
      if (open.count < least && u + 1 < units.size()) continue;
      buckets_.push_back(open);
      open = {units[u].offset + units[u].count, 0, 0};
    }
  }

  /// Units [complete_, end) have their gradients: adds them to the fp32 sum and starts the buckets
  /// they fill.
  void complete_up_to(size_t end) {
    if (!running_) return;
    for (; complete_ < end; ++complete_) {
      units_.accumulate(units_.units()[complete_]);
      if (reducing_ && buckets_[next_bucket_].last_unit == complete_)
        start(buckets_[next_bucket_++]);
    }
  }

  /// Queues the all-reduce behind the gradients it needs; neither the host nor the compute stream
  /// waits.
  void start(const Bucket& bucket) {
    ready_.record(current_stream(device_));
    ready_.make_wait(side_);
    float* data = units_.gradient().data_ptr<float>() + bucket.offset;
    works_.push_back(
        group_.all_reduce({data, bucket.count, core::DType::f32}, comm::Reduce::average, side_));
  }

  UnitSet& units_;
  comm::Communicator& group_;
  at::Device device_;
  void* side_;
  Event ready_, reduced_;
  std::vector<std::unique_ptr<Watcher>> watchers_;
  std::vector<Bucket> buckets_;
  std::vector<comm::Work> works_;
  bool running_ = false, reducing_ = false;
  size_t complete_ = 0, next_bucket_ = 0;
  int64_t early_starts_ = 0;
};

GradientReducer::GradientReducer(models::Model& model, UnitSet& units, comm::Communicator& group,
                                 double bucket_mib)
    : impl_(std::make_unique<Impl>(model, units, group, bucket_mib)) {}
GradientReducer::~GradientReducer() = default;
void GradientReducer::begin_backward(bool last_micro_batch) {
  impl_->begin_backward(last_micro_batch);
}
void GradientReducer::end_backward() { impl_->end_backward(); }
int64_t GradientReducer::bucket_count() const { return impl_->bucket_count(); }
int64_t GradientReducer::early_starts() const { return impl_->early_starts(); }

void broadcast_weights(UnitSet& units, comm::Communicator& group) {
  if (group.size() > 1) {
    at::Tensor& master = units.master();
    group
        .broadcast({master.data_ptr<float>(), units.count(), core::DType::f32}, 0,
                   current_stream(master.device()))
        .wait();
  }
  units.publish_master();
}

}  // namespace vitrail::parallel
