#pragma once
/// Divided weights, put together before they are used.
///
/// Own memory  units that have it (ends; every unit of zero1 and zero2; small blocks) are gathered once after each change
///             of the weights, in the order of use, while forward already runs.
/// Slots       other blocks are gathered into one of a few slots before each use and stay until the slot is needed: a
///             block in use, `prefetch_depth` more on their way, so the last ones of forward are still there when backward
///             begins. Without limit_all_gathers there is a slot for every block, but no more than prefetch_depth + 1
///             blocks stay after their use.
/// Pieces      what this rank gives is made in its place in the whole just before: rounded from the fp32 piece, or fetched
///             from host memory (host_weights.h). Slices that replicas divide further are put together once after each
///             change and stay (unit.h).
/// Streams     gathers run on a stream of their own; a slot is written after the event of its last use, and compute waits
///             for the event of the gather. The host waits for neither.

#include <cstdint>
#include <deque>
#include <vector>

#include "vitrail/config/recipe.h"
#include "vitrail/parallel/device.h"
#include "vitrail/parallel/groups.h"
#include "vitrail/parallel/unit.h"

namespace vitrail::parallel {

class WeightGatherer {
 public:
  WeightGatherer(UnitSet& units, Groups& groups, const config::Parallel& options);

  /// What is published has changed; every gathered weight is out of date.
  void weights_changed();
  /// Before a pass: starts what will be needed first. Weights of ends are ready for compute when it returns.
  void begin_forward();
  // Around the use of block unit u.
  void before_forward(size_t u);
  void after_forward(size_t u);
  void before_backward(size_t u);
  void after_backward(size_t u);
  /// After the last use before weights change: nothing reads what is published any more once compute has come here.
  void settle();

  int slots() const { return static_cast<int>(slots_.size()); }
  int64_t slot_bytes() const { return memory_.bytes(); }
  int64_t gathers() const { return gathers_; }  // since the beginning, of units

 private:
  struct Slot {
    explicit Slot(at::Device device) : free(device), ready(device) {}
    int unit = -1;
    bool asked = false;  // will be used before others
    bool waited = true;  // compute waits for the gather already
    Event free, ready;
    comm::Work work;
  };
  /// State of a unit with memory of its own.
  struct Own {
    explicit Own(at::Device device) : ready(device) {}
    bool waited = true;
    Event ready;
    comm::Work work;
  };
  bool gathers_any() const { return pieces_ > 1; }
  void wait_for_compute();
  void gather(size_t u, const at::Tensor& whole, comm::Work& work);
  void gather_own(size_t u);
  void gather_into(int slot, size_t u);
  int free_slot(bool must);
  void empty(Slot& slot);
  void await_own(size_t u);
  void require(size_t u);
  void release(size_t u);
  void ask_ahead(size_t u, int direction, int64_t depth);
  void start(comm::Communicator& group, const at::Tensor& in, const at::Tensor& out,
             comm::Work& work);

  UnitSet& units_;
  at::Device device_;
  int pieces_;
  comm::Communicator *group_ = nullptr, *replicas_ = nullptr;
  bool ask_before_ = false, ask_after_ = false;  // of backward
  int64_t depth_;
  void* stream_;
  Event compute_, done_;
  SlotMemory memory_;
  std::vector<Slot> slots_;
  std::deque<int> idle_;              // slots not in use, longest unused first
  std::vector<int> slot_of_;          // of each unit; -1 = none
  std::vector<Own> own_;              // of each unit
  std::vector<size_t> in_slots_;      // units that take slots, in arena order
  std::vector<int64_t> place_;        // of each unit in in_slots_; -1 = none
  std::vector<char> outdated_slice_;  // the unit's staying slice
  std::vector<char> outdated_own_;    // the unit's own memory
  bool behind_compute_ = true;        // gathers do not wait yet for the last change of the weights
  int64_t gathers_ = 0;
};

}  // namespace vitrail::parallel
