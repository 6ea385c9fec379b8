#include "vitrail/parallel/gather.h"

#include <algorithm>

#include "vitrail/core/error.h"
#include "vitrail/parallel/exchange.h"
#include "vitrail/parallel/timeline.h"

namespace vitrail::parallel {

using comm::Axis;

WeightGatherer::WeightGatherer(UnitSet& units, Groups& groups, const config::Parallel& options)
    : units_(units),
      device_(groups.device()),
      pieces_(units.layout().sharding().pieces()),
      ask_before_(options.prefetch == "pre"),
      ask_after_(options.prefetch == "post"),
      depth_(options.prefetch_depth),
      stream_(nullptr),
      compute_(device_),
      done_(device_) {
  if (!gathers_any()) return;
  const Sharding& sharding = units.layout().sharding();
  if (sharding.weights > 1) group_ = &groups.along({Axis::shard, Axis::sequence});
  if (sharding.kept > 1) replicas_ = &groups.along({Axis::replicate});
  stream_ = side_stream(device_);
  const size_t count = units.units().size();
  slot_of_.assign(count, -1);
  place_.assign(count, -1);
  int64_t largest = 0;
  for (size_t u = 0; u < count; ++u) {
    own_.emplace_back(device_);
    if (!units.weights_in_slot(u)) continue;
    place_[u] = static_cast<int64_t>(in_slots_.size());
    in_slots_.push_back(u);
    largest = std::max(largest, units.units()[u].count);
  }
  int64_t slots = static_cast<int64_t>(in_slots_.size());
  if (options.limit_all_gathers) slots = std::min(slots, depth_ + 1);
  memory_ = SlotMemory(static_cast<int>(slots), largest, units.weights().options());
  for (int i = 0; i < slots; ++i) {
    slots_.emplace_back(device_);
    idle_.push_back(i);
  }
  weights_changed();
}

void WeightGatherer::weights_changed() {
  if (!gathers_any()) return;
  outdated_slice_.assign(own_.size(), true);
  outdated_own_.assign(own_.size(), group_ != nullptr || replicas_ != nullptr);
  for (Slot& slot : slots_) empty(slot);
  behind_compute_ = true;
}

/// Gathers read what compute publishes, and write where the pass before may still read.
void WeightGatherer::wait_for_compute() {
  if (!behind_compute_) return;
  compute_.record(current_stream(device_));
  compute_.make_wait(stream_);
  behind_compute_ = false;
}

void WeightGatherer::begin_forward() {
  if (!gathers_any()) return;
  wait_for_compute();
  const auto units = units_.units();
  // Ends first: nothing tells when forward comes to one. Then blocks, which forward uses in reverse arena order.
  for (const bool ends : {true, false})
    for (size_t u = units.size(); u-- > 0;)
      if (units_.weights_in_slot(u) == false && (units[u].stack == nullptr) == ends &&
          outdated_own_[u])
        gather_own(u);
  if (depth_ > 0 && !in_slots_.empty()) {
    const size_t first = in_slots_.back();
    if (slot_of_[first] < 0) {
      const int slot = free_slot(false);
      if (slot >= 0) gather_into(slot, first);
    }
  }
  for (size_t u = 0; u < units.size(); ++u)
    if (!units[u].stack) await_own(u);
}

void WeightGatherer::start(comm::Communicator& group, const at::Tensor& in, const at::Tensor& out,
                           comm::Work& work) {
  work = group.all_gather(buffer_of(in), buffer_of(out), stream_);
}

/// This rank's piece is made in its place, so that gathers are in place: of replicas first, to this rank's slice.
void WeightGatherer::gather(size_t u, const at::Tensor& whole, comm::Work& work) {
  const TimedScope timed(device_, Lane::gather, stream_, "gather", units_.units()[u].name);
  const bool stays = units_.has_staying_slice(u);
  const at::Tensor slice = stays ? units_.staying_slice(u) : units_.slice_of(whole, u);
  at::Tensor ready = slice;
  if (!stays || outdated_slice_[u]) {
    ready = units_.published_piece(u, slice, stream_);
    outdated_slice_[u] = false;
    if (replicas_) {
      start(*replicas_, ready, slice, work);
      ready = slice;
      if (group_) work.wait();
    }
  }
  if (group_) start(*group_, ready, whole, work);
}

void WeightGatherer::gather_own(size_t u) {
  outdated_own_[u] = false;
  ++gathers_;
  Own& own = own_[u];
  gather(u, units_.whole_weights(u), own.work);
  own.ready.record(stream_);
  own.waited = false;
}

void WeightGatherer::gather_into(int index, size_t u) {
  Slot& slot = slots_[index];
  const at::Tensor memory = memory_.slot(index, units_.units()[u].count);
  wait_for_compute();
  slot.free.make_wait(stream_);
  gather(u, memory, slot.work);
  slot.ready.record(stream_);
  slot.waited = false;
  slot.unit = static_cast<int>(u);
  slot.asked = true;
  slot_of_[u] = index;
  units_.moving_weights(u).point_to(memory.data_ptr());
  std::erase(idle_, index);
  idle_.push_back(index);
  ++gathers_;
}

/// What lies in the slot is given up.
void WeightGatherer::empty(Slot& slot) {
  slot.work.wait();  // of a gather that nobody asked for after all
  slot.waited = true;
  slot.asked = false;
  if (slot.unit < 0) return;
  units_.moving_weights(static_cast<size_t>(slot.unit)).clear();
  slot_of_[static_cast<size_t>(slot.unit)] = -1;
  slot.unit = -1;
}

/// The slot longest out of use; those asked for only when there `must` be one. -1 = none.
int WeightGatherer::free_slot(bool must) {
  for (const bool asked : {false, true}) {
    if (asked && !must) break;
    for (const int index : idle_) {
      Slot& slot = slots_[index];
      if (slot.asked != asked) continue;
      empty(slot);
      return index;
    }
  }
  VT_CHECK(!must, "[gather] no more than {} blocks can be in use at once", slots_.size());
  return -1;
}

void WeightGatherer::await_own(size_t u) {
  Own& own = own_[u];
  if (own.waited) return;
  own.work.wait();
  own.ready.make_wait(current_stream(device_));
  own.waited = true;
}

/// Compute may use block u from here on.
void WeightGatherer::require(size_t u) {
  if (!gathers_any()) return;
  if (!units_.weights_in_slot(u)) return await_own(u);
  if (slot_of_[u] < 0) gather_into(free_slot(true), u);
  Slot& slot = slots_[slot_of_[u]];
  if (!slot.waited) {
    slot.work.wait();
    slot.ready.make_wait(current_stream(device_));
    slot.waited = true;
  }
  slot.asked = false;
  std::erase(idle_, slot_of_[u]);
}

void WeightGatherer::release(size_t u) {
  if (!gathers_any() || !units_.weights_in_slot(u)) return;
  const int index = slot_of_[u];
  Slot& slot = slots_[index];
  slot.free.record(current_stream(device_));
  idle_.push_back(index);
  // Those that stay would otherwise grow to the whole model where every block has a slot.
  int64_t staying = 0;
  for (const int other : idle_) staying += slots_[other].unit >= 0 && !slots_[other].asked;
  for (const int other : idle_) {
    if (staying <= depth_ + 1) break;
    if (slots_[other].unit < 0 || slots_[other].asked) continue;
    empty(slots_[other]);
    --staying;
  }
}

/// Starts gathers of the `depth` blocks that follow u: forward goes down in arena order (-1), backward up.
void WeightGatherer::ask_ahead(size_t u, int direction, int64_t depth) {
  if (!gathers_any() || !units_.weights_in_slot(u)) return;
  for (int64_t ahead = 1; ahead <= depth; ++ahead) {
    const int64_t place = place_[u] + direction * ahead;
    if (place < 0 || place >= static_cast<int64_t>(in_slots_.size())) return;
    const size_t next = in_slots_[static_cast<size_t>(place)];
    if (slot_of_[next] >= 0) {
      slots_[slot_of_[next]].asked = true;
      continue;
    }
    const int slot = free_slot(false);
    if (slot < 0) return;
    gather_into(slot, next);
  }
}

void WeightGatherer::before_forward(size_t u) {
  require(u);
  ask_ahead(u, -1, depth_);
}

void WeightGatherer::after_forward(size_t u) { release(u); }

void WeightGatherer::before_backward(size_t u) {
  require(u);
  if (ask_before_) ask_ahead(u, +1, depth_);
}

void WeightGatherer::after_backward(size_t u) {
  release(u);
  if (ask_after_) ask_ahead(u, +1, std::max<int64_t>(1, depth_));
}

void WeightGatherer::settle() {
  if (!gathers_any()) return;
  for (Slot& slot : slots_) slot.work.wait();
  for (size_t u = 0; u < own_.size(); ++u) own_[u].work.wait();
  done_.record(stream_);
  done_.make_wait(current_stream(device_));
}

}  // namespace vitrail::parallel
