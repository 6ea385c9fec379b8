#pragma once
/// How a plan is made, part by part (plan.cpp).

#include <vector>

#include "vitrail/parallel/pipeline_schedule.h"
#include "vitrail/parallel/strategy.h"
#include "vitrail/train/plan.h"

namespace vitrail::train {

/// One rank's share of a step: everything that the parts below need, as numbers.
struct RankView {
  const config::Recipe& recipe;
  const Machine& machine;
  const std::vector<PlanTrunk>& trunks;
  const std::vector<PlanUnit>& units;
  MeshSizes sizes;
  parallel::Strategy strategy;
  int stage = 0;
  int64_t micro_batch = 1, micro_batches = 1;  // samples of one pass; passes of a step

  int size(comm::Axis axis) const { return sizes[static_cast<size_t>(axis)]; }
  double compute_bytes() const { return recipe.train.precision == "fp32" ? 4.0 : 2.0; }
  double reduce_bytes() const { return recipe.parallel.reduce_precision == "bf16" ? 2.0 : 4.0; }
  const parallel::Sharding& sharding() const { return strategy.sharding; }
  bool is_divided() const { return sharding().pieces() > 1; }
  /// True when the unit has no memory of its own for weights (gradient) but takes turns in slots.
  bool weights_in_slot(const PlanUnit& unit) const;
  bool gradient_in_slot(const PlanUnit& unit) const;
  int weight_slots() const;
  /// Master weights and optimizer state in host memory; this rank's slice of the weights too.
  bool has_master_on_host() const { return !(recipe.parallel.offload == "none"); }
  bool has_weights_on_host() const {
    return recipe.parallel.offload == "parameters" && strategy.weights_in_slots;
  }

  /// Elements of a unit, padded for its slices, and all of them.
  double padded(const PlanUnit& unit) const;
  double arena() const;
  /// Passes whose activations live at once on this stage, in units of all its blocks.
  double passes_in_flight() const;
  parallel::ScheduleKind schedule_kind() const;
  int blocks() const;
};

/// What a block of a trunk sees on one rank in one pass.
struct BlockView {
  const PlanTrunk& trunk;
  double rows = 0;  // tokens of all samples on this rank
  double samples = 0, tokens = 0, tensor = 1;
  double bytes = 2;     // of a compute element
  double kv_width = 0;  // of k (or v), whole
  bool split_norms = false, plain_attention = false, rotary = false, flash_pads = false;
};
BlockView block_view(const RankView& rank, const PlanTrunk& trunk);

/// Bytes that one block keeps between forward and backward, and those its backward needs beside them.
double saved_bytes(const BlockView& block);
double selective_bytes(const BlockView& block);
double boundary_bytes(const BlockView& block);
double backward_bytes(const BlockView& block);
/// Of the optimizer's moments, an element (train/compact_moments.h).
double moment_bytes(const config::Optimizer& optimizer);
/// The table behind saved_bytes: name and bytes of each tensor.
std::vector<MemoryItem> saved_tensors(const BlockView& block);

struct MemoryPlan {
  std::vector<MemoryItem> items;
  double host_bytes = 0;
  double total() const;
};
MemoryPlan plan_memory(const RankView& rank);

struct TimePlan {
  std::vector<CollectiveItem> collectives;
  double compute_seconds = 0, exposed_seconds = 0, bubble_seconds = 0, optimizer_seconds = 0;
  double hardware_flops = 0;
  double total() const {
    return compute_seconds + exposed_seconds + bubble_seconds + optimizer_seconds;
  }
};
TimePlan plan_time(const RankView& rank);

/// Seconds of one pass through all blocks and ends of the rank, without communication.
struct PassTime {
  double forward = 0, backward = 0, hardware_flops = 0;
};
PassTime pass_time(const RankView& rank);

/// The collectives of a step, with the seconds of each kind when nothing overlaps.
std::vector<CollectiveItem> plan_collectives(const RankView& rank);
/// Ranks and hosts of the group along `axes` (bit mask of comm::Axis).
GroupShape group_shape(const MeshSizes& sizes, unsigned axes, int64_t gpus_per_host);

}  // namespace vitrail::train
