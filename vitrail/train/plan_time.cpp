// Seconds of a step: kernels from rates, collectives from links, and what hides behind what.
//
// Blocks    products at the rate of their width, attention at that of its heads and tokens, everything else as passes
//           over the tokens at the memory's copy bandwidth; never less than the host takes to launch them.
// Sharding  the gather of the next unit runs while a unit is computed (prefetch pre), so a unit costs the longer of the
//           two; without prefetch both. Reductions run behind the computation of the units before.
// Tensor, sequence and pipeline collectives stand in the way of what needs their result and are not hidden.

#include <algorithm>
#include <cmath>

#include "vitrail/core/error.h"
#include "vitrail/train/plan_parts.h"

namespace vitrail::train {
namespace {

using comm::Axis;

constexpr double kForwardOfAttention =
    0.22;  // share of forward in forward + backward (spec of one GPU: 0.17 / 0.76)
constexpr double kForwardOfPasses = 1.0 / 3;
constexpr double kDividedPasses =
    2.0 / 3;  // of a block's passes: over heads and hidden units, which tensor ranks share

struct BlockTime {
  double forward = 0, backward = 0, again = 0;  // again: forward repeated in backward
  double flops = 0, flops_again = 0;
};

double product_flops(const BlockView& b) {
  const double D = static_cast<double>(b.trunk.width), H = static_cast<double>(b.trunk.hidden);
  return 2 * b.rows / b.tensor *
         (D * (D + 2 * b.kv_width) + D * D + (b.trunk.swiglu ? 3 : 2) * D * H);
}

double attention_flops(const BlockView& b) {
  return 4 * b.rows / b.tensor * b.tokens * static_cast<double>(b.trunk.width);
}

BlockTime block_time(const RankView& rank, const BlockView& b) {
  const Machine& machine = rank.machine;
  const double width = static_cast<double>(b.trunk.width) / std::sqrt(b.tensor);
  const double gemm = rate_at(b.bytes < 4 ? machine.gemm_bf16 : machine.gemm_fp32, width) * 1e12;
  const double head = static_cast<double>(b.trunk.width) / static_cast<double>(b.trunk.heads);
  double attention =
      rate_at(machine.attention, head) * rate_at(machine.attention_of_tokens, b.tokens) * 1e12;
  if (b.bytes > 2) attention *= std::min(1.0, gemm / (rate_at(machine.gemm_bf16, width) * 1e12));
  const double passes = machine.passes * (1 - kDividedPasses + kDividedPasses / b.tensor) * b.rows *
                        static_cast<double>(b.trunk.width) * b.bytes / (machine.copy_gb_s * 1e9);
  const double parameters = product_flops(b) / (2 * b.rows);
  const double gradients = parameters * machine.gradient_bytes / (machine.copy_gb_s * 1e9);
  const double product = product_flops(b) / gemm, core = 3 * attention_flops(b) / attention;
  BlockTime time;
  time.forward = product + kForwardOfAttention * core + kForwardOfPasses * passes;
  time.backward =
      2 * product + (1 - kForwardOfAttention) * core + (1 - kForwardOfPasses) * passes + gradients;
  const bool selective = rank.recipe.train.recompute == "selective";
  time.again = time.forward - (selective ? kForwardOfAttention * core : 0);
  time.flops = 3 * (product_flops(b) + attention_flops(b));
  time.flops_again = product_flops(b) + (selective ? 0 : attention_flops(b));
  const double least = machine.host_ms_per_block * 1e-3;
  time.forward = std::max(time.forward, least / 3), time.again = std::max(time.again, least / 3);
  time.backward = std::max(time.backward, least * 2 / 3);
  return time;
}

/// Share of a trunk's blocks whose forward runs again.
double share_again(const config::Train& train) {
  if (train.recompute == "none") return 0;
  return train.recompute == "every_k" ? 1.0 / static_cast<double>(train.recompute_every) : 1.0;
}

/// Embedding and heads: their parameters' products at half the trunk's rate, and a dozen passes over tokens and images.
double ends_seconds(const RankView& rank) {
  const config::Model& model = rank.recipe.model;
  const double B = static_cast<double>(rank.micro_batch);
  double pixels = static_cast<double>(model.in_channels), parameters = 0;
  for (const int64_t side : model.image_size) pixels *= static_cast<double>(side);
  for (const PlanUnit& unit : rank.units)
    if (unit.trunk < 0) parameters += static_cast<double>(unit.parameters);
  if (parameters == 0) return 0;
  const PlanTrunk& trunk = rank.trunks.front();
  const double tokens = B * static_cast<double>(trunk.tokens),
               width = static_cast<double>(trunk.width);
  const double rate =
      rate_at(rank.compute_bytes() < 4 ? rank.machine.gemm_bf16 : rank.machine.gemm_fp32, width) *
      0.5e12;
  const double patch = 6 * B * pixels * width;  // every pixel meets every channel of the width once
  const double moved = 12 * tokens * width * rank.compute_bytes() + 3 * B * pixels * 4;
  return patch / rate + moved / (rank.machine.copy_gb_s * 1e9);
}

double seconds_of(const RankView& rank, const CollectiveItem& item) {
  if (item.count == 0) return 0;
  return item.count *
         collective_seconds(rank.machine, item.kind, item.bytes / item.count, item.shape);
}

/// What is left of `work` seconds of communication, in `pieces` equal parts, when each hides behind `cover` / pieces.
double left_over(double work, double cover, double pieces) {
  if (pieces < 1) return work;
  return std::max(0.0, work - cover * (pieces - 1) / pieces);
}

/// Sets exposed_seconds of every collective. forward and backward: all passes of a step.
void expose(const RankView& rank, double forward, double backward,
            std::vector<CollectiveItem>& items) {
  const config::Parallel& parallel = rank.recipe.parallel;
  const double units = static_cast<double>(rank.units.size()),
               passes = static_cast<double>(rank.micro_batches);
  const double chunks = static_cast<double>(parallel.tensor_chunks);
  const bool pre = parallel.prefetch == "pre" && parallel.prefetch_depth > 0;
  double cover = backward;
  for (CollectiveItem& item : items) {
    double& exposed = item.exposed_seconds = item.seconds;
    if (item.purpose == "weights forward" && parallel.prefetch_depth > 0)
      exposed =
          left_over(item.seconds, forward, std::max(1.0, std::min(item.count, units * passes)));
    if (item.purpose == "weights backward") {
      exposed =
          pre ? left_over(item.seconds, cover, std::max(1.0, std::min(item.count, units * passes)))
              : item.seconds;
      if (pre) cover = std::max(0.0, cover - item.seconds + exposed);
    }
    if (item.purpose == "gradients" || item.purpose == "gradients of replicas") {
      // Reductions that wait for the last pass hide behind that pass only.
      const double behind =
          !rank.strategy.gradients_in_slots || item.purpose == "gradients of replicas"
              ? std::min(cover, backward / passes)
              : cover;
      exposed = left_over(item.seconds, behind, std::max(1.0, std::min(item.count, units)));
      cover = std::max(0.0, cover - item.seconds + exposed);
    }
    if (item.purpose == "tensor" && chunks > 1) exposed = item.seconds / chunks;
    if (item.purpose == "pipeline")
      exposed = 0.5 * item.seconds;  // the next pass's work lies between
  }
}

}  // namespace

PassTime pass_time(const RankView& rank) {
  PassTime pass;
  for (const PlanUnit& unit : rank.units) {
    if (unit.trunk < 0) continue;
    const BlockTime time =
        block_time(rank, block_view(rank, rank.trunks[static_cast<size_t>(unit.trunk)]));
    const double again = share_again(rank.recipe.train);
    pass.forward += time.forward;
    pass.backward += time.backward + again * time.again;
    pass.hardware_flops += time.flops + again * time.flops_again;
  }
  const double ends = ends_seconds(rank);
  pass.forward += ends / 3, pass.backward += ends * 2 / 3;
  return pass;
}

TimePlan plan_time(const RankView& rank) {
  TimePlan plan;
  const auto passes = static_cast<double>(rank.micro_batches);
  const PassTime pass = pass_time(rank);
  plan.compute_seconds = passes * (pass.forward + pass.backward);
  plan.hardware_flops = passes * pass.hardware_flops;
  plan.collectives = plan_collectives(rank);
  for (CollectiveItem& item : plan.collectives) item.seconds = seconds_of(rank, item);
  expose(rank, passes * pass.forward, passes * pass.backward, plan.collectives);
  for (const CollectiveItem& item : plan.collectives) plan.exposed_seconds += item.exposed_seconds;
  const config::Parallel& parallel = rank.recipe.parallel;
  const double bubble =
      parallel::bubble_share(rank.size(Axis::pipeline), static_cast<int>(parallel.pipeline_parts),
                             static_cast<int>(rank.micro_batches));
  plan.bubble_seconds = plan.compute_seconds * bubble / (1 - bubble);
  // AdamW reads gradient, master and moments and writes all but the first and the published weight; the norm reads the
  // gradient once more, clearing writes it.
  const double kept = rank.arena() / rank.sharding().pieces();
  const double touched =
      4 + 8 + 2 * moment_bytes(rank.recipe.train.optimizer) + rank.compute_bytes() + 8 +
      (rank.recipe.train.ema_decay ? 8 : 0);
  plan.optimizer_seconds = kept * touched / (rank.machine.copy_gb_s * 1e9);
  if (!(parallel.offload == "none") && rank.machine.host_link_gb_s > 0) {
    // Gradients down, weights up; the host's own update runs at a few times the link's rate.
    plan.optimizer_seconds = kept * (8 + 30.0 / 2) / (rank.machine.host_link_gb_s * 1e9);
  }
  return plan;
}

}  // namespace vitrail::train
