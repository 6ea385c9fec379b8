#include "vitrail/parallel/reduce.h"

#include <algorithm>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>

#include "vitrail/core/error.h"
#include "vitrail/kernels/flat.h"
#include "vitrail/parallel/exchange.h"
#include "vitrail/parallel/timeline.h"

namespace vitrail::parallel {
namespace {

using comm::Axis;
using comm::Reduce;

/// While one is reduced, the next fills.
constexpr int kSlots = 2;

uint16_t* halves(const at::Tensor& tensor) { return static_cast<uint16_t*>(tensor.data_ptr()); }
float* floats(const at::Tensor& tensor) { return tensor.data_ptr<float>(); }

void cast(const at::Tensor& out, const at::Tensor& in, void* stream) {
  if (in.is_cuda()) return kernels::cast_bf16(halves(out), floats(in), in.numel(), stream);
  kernels::cast_bf16_cpu(halves(out), floats(in), 0, in.numel());
}

void expand(const at::Tensor& out, const at::Tensor& in, void* stream) {
  if (in.is_cuda()) return kernels::expand_bf16(floats(out), halves(in), in.numel(), stream);
  kernels::expand_bf16_cpu(floats(out), halves(in), 0, in.numel());
}

/// out += in, which is bf16 or fp32.
void add(const at::Tensor& out, const at::Tensor& in, void* stream) {
  const int64_t count = in.numel();
  const bool half = in.scalar_type() == at::kBFloat16;
  if (in.is_cuda() && half) return kernels::add_bf16(floats(out), halves(in), count, stream);
  if (in.is_cuda()) return kernels::add_f32(floats(out), floats(in), count, stream);
  if (half) return kernels::add_bf16_cpu(floats(out), halves(in), 0, count);
  kernels::add_f32_cpu(floats(out), floats(in), 0, count);
}

}  // namespace

GradientSharder::GradientSharder(UnitSet& units, Groups& groups, const config::Parallel& options)
    : units_(units),
      device_(groups.device()),
      in_bf16_(options.reduce_precision == "bf16"),
      stream_(nullptr),
      ready_(device_),
      reduced_(device_) {
  make_groups(groups);
  is_active_ = all_ || group_ || replicas_ || tensor_;
  if (is_active_) stream_ = side_stream(device_);
  const size_t count = units.units().size();
  done_.assign(count, 0);
  is_reduced_.assign(count, false);
  slot_of_.assign(count, -1);
  if (!units.is_divided()) make_buckets(options.bucket_mib);
  make_slots();
  make_staging();
}

/// Reductions have communicators of their own, so that they do not queue behind gathers.
void GradientSharder::make_groups(Groups& groups) {
  constexpr int kLane = 1;
  const auto larger_than_one = [&](std::initializer_list<Axis> axes) -> comm::Communicator* {
    int size = 1;
    for (const Axis axis : axes) size *= groups.mesh().size(axis);
    return size > 1 ? &groups.along(axes, kLane) : nullptr;
  };
  if (units_.is_divided()) {
    group_ = larger_than_one({Axis::shard, Axis::sequence});
    replicas_ = larger_than_one({Axis::replicate});
  } else {
    all_ = larger_than_one({Axis::replicate, Axis::shard, Axis::sequence});
  }
  tensor_ = larger_than_one({Axis::tensor});
}

void GradientSharder::make_buckets(double bucket_mib) {
  const auto least = static_cast<int64_t>(bucket_mib * 1024 * 1024 / sizeof(float));
  const auto units = units_.units();
  bucket_of_.assign(units.size(), 0);
  int64_t count = 0;
  size_t first = 0;
  for (size_t u = 0; u < units.size(); ++u) {
    count += units[u].count;
    bucket_of_[u] = buckets_.size();
    if (count < least && u + 1 < units.size()) continue;
    buckets_.push_back({first, u + 1, 0});
    first = u + 1;
    count = 0;
  }
}

void GradientSharder::make_slots() {
  int64_t largest = 0;
  for (size_t u = 0; u < done_.size(); ++u)
    if (units_.gradient_in_slot(u)) largest = std::max(largest, units_.units()[u].count);
  if (largest == 0) return;
  memory_ = SlotMemory(kSlots, largest, units_.gradient().options());
  for (int i = 0; i < kSlots; ++i) slots_.emplace_back(device_);
}

/// Room for a unit or bucket in bf16 and for a slice that is to be added.
void GradientSharder::make_staging() {
  if (!is_active_) return;
  const auto units = units_.units();
  int64_t whole = 0, slice = 0;
  bool has_slots = false;
  for (size_t u = 0; u < units.size(); ++u) {
    whole = std::max(whole, units[u].count);
    slice = std::max(slice, units[u].kept_count * units_.layout().sharding().kept);
    has_slots |= units_.gradient_in_slot(u);
  }
  for (const Bucket& bucket : buckets_) {
    int64_t count = 0;
    for (size_t u = bucket.first; u < bucket.end; ++u) count += units[u].count;
    whole = std::max(whole, count);
  }
  const auto fp32 = units_.gradient().options(), bf16 = fp32.dtype(at::kBFloat16);
  if (in_bf16_) {
    narrow_ = at::empty({whole}, bf16);
    narrow_slice_ = at::empty({slice}, bf16);
  } else if (has_slots) {
    add_slice_ = at::empty({slice}, fp32);
  }
}

int64_t GradientSharder::staging_bytes() const {
  size_t bytes = 0;
  for (const at::Tensor& tensor : {narrow_, narrow_slice_, add_slice_})
    if (tensor.defined()) bytes += tensor.nbytes();
  return static_cast<int64_t>(bytes);
}

void GradientSharder::begin_step(int64_t micro_batches, bool in_order) {
  passes_ = micro_batches;
  in_order_ = in_order;
  std::ranges::fill(done_, 0);
  std::ranges::fill(is_reduced_, false);
  for (Bucket& bucket : buckets_) bucket.missing = bucket.end - bucket.first;
  starts_ = early_starts_ = 0;
}

void GradientSharder::begin_backward() {
  running_ = true;
  next_end_ = 0;
}

/// Ends before `end` have their gradients of this pass.
void GradientSharder::complete_ends(size_t end) {
  for (; next_end_ < end; ++next_end_)
    if (!units_.units()[next_end_].stack) pass_done(next_end_);
}

void GradientSharder::before_backward(size_t u) {
  if (!running_) return;
  if (in_order_) complete_ends(u);
  if (!units_.gradient_in_slot(u)) return;
  const auto index = static_cast<int>(next_slot_++ % slots_.size());
  Slot& slot = slots_[static_cast<size_t>(index)];
  slot.work.wait();
  slot.free.make_wait(current_stream(device_));
  const at::NoGradGuard no_grad;
  const at::Tensor memory = memory_.slot(index, units_.units()[u].count);
  at::Tensor(memory).zero_();
  units_.moving_gradient(u).point_to(memory.data_ptr());
  slot_of_[u] = index;
}

void GradientSharder::after_backward(size_t u) {
  if (!running_) return;
  if (!units_.gradient_in_slot(u)) return pass_done(u);
  ++done_[u];
  reduce_slot(u);
  units_.moving_gradient(u).clear();
}

void GradientSharder::pass_done(size_t u) {
  if (++done_[u] == passes_) all_done(u);
}

/// The unit's sum over micro-batches is complete.
void GradientSharder::all_done(size_t u) {
  if (is_reduced_[u]) return;
  is_reduced_[u] = true;
  if (!is_active_) return tell(u);
  if (units_.is_divided()) return reduce_own(u);
  Bucket& bucket = buckets_[bucket_of_[u]];
  if (--bucket.missing == 0) reduce_bucket(bucket);
}

/// On the host a reduction may still run; there nobody needs to know early.
void GradientSharder::tell(size_t u) {
  if (tell_ && device_.is_cuda()) tell_(u, is_active_ ? stream_ : current_stream(device_));
}

void GradientSharder::end_backward() {
  early_starts_ = starts_;
  if (in_order_) complete_ends(units_.units().size());
  running_ = false;
}

void GradientSharder::end_step() {
  for (size_t u = 0; u < done_.size(); ++u) {
    if (!units_.gradient_in_slot(u))
      all_done(u);
    else if (!is_reduced_[u])
      exchange_slice(u);
  }
  if (!is_active_) return;
  for (Slot& slot : slots_) slot.work.wait();
  for (comm::Work& work : works_) work.wait();
  works_.clear();
  reduced_.record(stream_);
  reduced_.make_wait(current_stream(device_));
}

void GradientSharder::wait_for_compute() {
  ready_.record(current_stream(device_));
  ready_.make_wait(stream_);
  ++starts_;
  ++reductions_;
}

void GradientSharder::sum_partial(size_t u, const at::Tensor& gradient) {
  const int64_t count = units_.units()[u].partial_count;
  if (!tensor_ || count == 0) return;
  tensor_->all_reduce(buffer_of(gradient.narrow(0, 0, count)), Reduce::sum, stream_).wait();
}

void GradientSharder::reduce_bucket(const Bucket& bucket) {
  wait_for_compute();
  const TimedScope timed(device_, Lane::reduce, stream_, "reduce up to",
                         units_.units()[bucket.end - 1].name);
  for (size_t u = bucket.first; u < bucket.end; ++u) sum_partial(u, units_.whole_gradient(u));
  if (!all_) {
    for (size_t u = bucket.first; u < bucket.end; ++u) tell(u);
    return;
  }
  const Unit &first = units_.units()[bucket.first], &last = units_.units()[bucket.end - 1];
  const at::Tensor sum =
      units_.gradient().narrow(0, first.offset, last.offset + last.count - first.offset);
  works_.push_back(average(*all_, sum));
  for (size_t u = bucket.first; u < bucket.end; ++u) tell(u);
}

/// A unit whose sum has memory of its own, while its gradient is divided.
void GradientSharder::reduce_own(size_t u) {
  wait_for_compute();
  const TimedScope timed(device_, Lane::reduce, stream_, "reduce", units_.units()[u].name);
  const at::Tensor sum = units_.whole_gradient(u);
  sum_partial(u, sum);
  if (!group_) {  // only replicas divide it
    works_.push_back(scatter(*replicas_, sum, units_.kept_gradient(u), false));
    return tell(u);
  }
  works_.push_back(scatter(*group_, sum, units_.slice_gradient(u), false));
  if (replicas_) works_.back().wait();
  exchange_slice(u);
}

/// The gradient of one micro-batch.
void GradientSharder::reduce_slot(size_t u) {
  wait_for_compute();
  const TimedScope timed(device_, Lane::reduce, stream_, "reduce", units_.units()[u].name);
  const int index = slot_of_[u];
  Slot& slot = slots_[static_cast<size_t>(index)];
  const at::Tensor gradient = memory_.slot(index, units_.units()[u].count);
  sum_partial(u, gradient);
  slot.work = scatter(*group_, gradient, units_.slice_gradient(u), done_[u] > 1);
  slot.free.record(stream_);
  if (done_[u] < passes_) return;
  is_reduced_[u] = true;
  if (replicas_) slot.work.wait();
  exchange_slice(u);
}

/// Slices of replicas are averaged, or divided further.
void GradientSharder::exchange_slice(size_t u) {
  if (!replicas_) return tell(u);
  const bool divides = units_.layout().sharding().kept > 1;
  works_.push_back(
      divides ? scatter(*replicas_, units_.slice_gradient(u), units_.kept_gradient(u), false)
              : average(*replicas_, units_.kept_gradient(u)));
  tell(u);
}

/// out (fp32) becomes, or grows by, this rank's slice of the mean of in.
comm::Work GradientSharder::scatter(comm::Communicator& group, const at::Tensor& in,
                                    const at::Tensor& out, bool adds) {
  at::Tensor from = in, to = out;
  if (in_bf16_) {
    from = narrow_.narrow(0, 0, in.numel());
    to = narrow_slice_.narrow(0, 0, out.numel());
    cast(from, in, stream_);
  } else if (adds) {
    to = add_slice_.narrow(0, 0, out.numel());
  }
  comm::Work work = group.reduce_scatter(buffer_of(from), buffer_of(to), Reduce::average, stream_);
  // Staging memory is used by one reduction at a time: on a GPU by the order of the stream.
  if (!in_bf16_ && !adds) return work;
  work.wait();
  if (adds)
    add(out, to, stream_);
  else
    expand(out, to, stream_);
  return {};
}

comm::Work GradientSharder::average(comm::Communicator& group, const at::Tensor& values) {
  if (!in_bf16_) return group.all_reduce(buffer_of(values), Reduce::average, stream_);
  const at::Tensor narrow = narrow_.narrow(0, 0, values.numel());
  cast(narrow, values, stream_);
  group.all_reduce(buffer_of(narrow), Reduce::average, stream_).wait();
  expand(values, narrow, stream_);
  return {};
}

}  // namespace vitrail::parallel
