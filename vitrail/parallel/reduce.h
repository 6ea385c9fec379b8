#pragma once
/// Gradients of data ranks, averaged: all-reduced where every rank keeps all, reduce-scattered where they are divided.
///
/// Group       ranks of {replicate, shard, sequence}. Parameters whose gradients are partial (placement.h) are added over
///             {tensor} first.
/// Own memory  gradients of units that have it add up over micro-batches and cross ranks once a step: undivided ones in
///             buckets of neighbouring units, others unit by unit.
/// Slots       gradients of other blocks lie in one of two slots during their backward; each micro-batch's is
///             reduce-scattered over {shard, sequence} and added to the slice that this rank keeps. Replicas exchange
///             slices once a step.
/// Precision   gradients are fp32; what crosses ranks is fp32, or bf16 (reduce_precision), rounded just before.
/// Streams     reductions run on a stream of their own behind events of compute; a slot is cleared after its event.

#include <cstdint>
#include <functional>
#include <vector>

#include "vitrail/config/recipe.h"
#include "vitrail/parallel/device.h"
#include "vitrail/parallel/groups.h"
#include "vitrail/parallel/unit.h"

namespace vitrail::parallel {

class GradientSharder {
 public:
  GradientSharder(UnitSet& units, Groups& groups, const config::Parallel& options);

  /// `in_order`: a backward pass goes through all units in arena order, so an end is complete when backward begins a block
  /// behind it.
  void begin_step(int64_t micro_batches, bool in_order);
  void begin_backward();
  // Around the backward of block unit u.
  void before_backward(size_t u);
  void after_backward(size_t u);
  void end_backward();
  /// units.gradient() holds the mean for work that compute does from here on.
  void end_step();

  /// Called when a unit's kept gradient is complete in the order of a stream; the last unit
  /// at the latest by end_step().
  void on_complete(std::function<void(size_t u, void* stream)> tell) { tell_ = std::move(tell); }

  int64_t bucket_count() const { return static_cast<int64_t>(buckets_.size()); }
  /// Units or buckets whose reduction began before the last backward ended, in the last step.
  int64_t early_starts() const { return early_starts_; }
  int64_t reductions() const { return reductions_; }  // since the beginning
  int64_t slot_bytes() const { return memory_.bytes(); }
  int64_t staging_bytes() const;

 private:
  struct Bucket {
    size_t first = 0, end = 0;  // units
    size_t missing = 0;         // of them not complete yet
  };
  struct Slot {
    explicit Slot(at::Device device) : free(device) {}
    Event free;
    comm::Work work;
  };
  void make_groups(Groups& groups);
  void make_buckets(double bucket_mib);
  void make_slots();
  void make_staging();
  void tell(size_t u);
  void complete_ends(size_t end);
  void pass_done(size_t u);
  void all_done(size_t u);
  void wait_for_compute();
  void reduce_bucket(const Bucket& bucket);
  void reduce_own(size_t u);
  void reduce_slot(size_t u);
  void sum_partial(size_t u, const at::Tensor& gradient);
  void exchange_slice(size_t u);
  comm::Work scatter(comm::Communicator& group, const at::Tensor& in, const at::Tensor& out,
                     bool add);
  comm::Work average(comm::Communicator& group, const at::Tensor& values);

  UnitSet& units_;
  at::Device device_;
  bool in_bf16_;  // what crosses ranks
  comm::Communicator *all_ = nullptr, *group_ = nullptr, *replicas_ = nullptr, *tensor_ = nullptr;
  bool is_active_ = false;
  std::function<void(size_t u, void* stream)> tell_;
  void* stream_;
  Event ready_, reduced_;
  std::vector<Bucket> buckets_;
  std::vector<size_t> bucket_of_;  // of each unit, undivided
  SlotMemory memory_;
  std::vector<Slot> slots_;
  size_t next_slot_ = 0;
  std::vector<int> slot_of_;                      // of each unit during its backward
  at::Tensor narrow_, narrow_slice_, add_slice_;  // staging
  std::vector<comm::Work> works_;

  bool in_order_ = true, running_ = false;
  int64_t passes_ = 1;            // a step
  std::vector<int64_t> done_;     // of each unit: passes done
  std::vector<char> is_reduced_;  // of each unit
  size_t next_end_ = 0;           // units before it are complete in this pass
  int64_t starts_ = 0, early_starts_ = 0, reductions_ = 0;
};

}  // namespace vitrail::parallel
