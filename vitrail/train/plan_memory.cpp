// Bytes on one rank. What a block saves is one table, saved_tensors(): correct it there.
//
// A block under the autograd engine keeps what ATen's backward functions save. R rows (tokens of all samples), D width,
// H hidden units, N heads, E head width, c bytes of a compute element, t tensor ranks.

#include <algorithm>
#include <cmath>

#include "vitrail/train/plan_parts.h"

namespace vitrail::train {
namespace {

using comm::Axis;

constexpr int kGradientSlots = 2;
constexpr double kStatisticBytes = 4;  // mean, rstd, log-sum-exp: fp32

double head_width(const BlockView& b) {
  return static_cast<double>(b.trunk.width) / static_cast<double>(b.trunk.heads);
}
/// Flash attention pads heads to a multiple of 8 and keeps the padded copies.
double padding(const BlockView& b) {
  return b.flash_pads ? std::ceil(head_width(b) / 8) * 8 / head_width(b) : 1.0;
}

class Table {
 public:
  void add(const char* name, double bytes, const char* note = "") {
    if (bytes > 0) items.push_back({name, note, bytes});
  }
  std::vector<MemoryItem> items;
};

/// What a norm over rows of `width` keeps besides its input, and the output that the next layer keeps.
void add_norm(Table& table, const BlockView& b, const char* name, double rows, double width) {
  if (!b.trunk.rmsnorm) {
    table.add(name, rows * width * b.bytes + 2 * rows * kStatisticBytes, "output, mean, rstd");
    return;
  }
  // The formula runs in fp32: a wide copy of bf16 input, its inverse root mean square, the narrow product, the output.
  const double wide = b.bytes < 4 ? rows * width * 4 : 0;
  table.add(name, wide + rows * kStatisticBytes + 2 * rows * width * b.bytes,
            "fp32 copy, product, output");
}

void add_attention(Table& table, const BlockView& b) {
  const double R = b.rows, D = static_cast<double>(b.trunk.width), t = b.tensor, c = b.bytes,
               pad = padding(b);
  const double q_and_k = (D + b.kv_width) / t, qkv = (D + 2 * b.kv_width) / t;
  table.add("qkv", R * qkv * c * pad, pad > 1 ? "q, k, v padded to a multiple of 8" : "q, k, v");
  if (b.trunk.qk_norm) {
    const double heads = (static_cast<double>(b.trunk.heads) + b.kv_width / head_width(b)) / t;
    add_norm(table, b, "q_norm, k_norm", R * heads, head_width(b));
  }
  if (b.rotary) table.add("q, k turned", R * q_and_k * c);
  if (b.plain_attention || b.trunk.attn_drop > 0) {
    const double scores =
        b.samples * static_cast<double>(b.trunk.heads) / t * (b.rows / b.samples) * b.tokens;
    table.add("probabilities", scores * (4 + (c < 4 ? c : 0)), "fp32 and compute type");
    table.add("q scaled", R * D / t * c);
    if (b.trunk.attn_drop > 0) table.add("attention dropout", scores * 2 * c, "factor, product");
  }
  table.add("attention output", R * D / t * c * (pad > 1 ? pad + 1 : 1),
            pad > 1 ? "padded, and proj input" : "proj input");
  table.add("log-sum-exp", R * static_cast<double>(b.trunk.heads) / t * kStatisticBytes);
}

void add_mlp(Table& table, const BlockView& b) {
  const double hidden = b.rows * static_cast<double>(b.trunk.hidden) / b.tensor * b.bytes;
  if (b.trunk.swiglu) {
    table.add("fc1_g output", hidden), table.add("silu output", hidden),
        table.add("fc1_x output", hidden);
    table.add("product", hidden, "fc2 input");
  } else {
    table.add("fc1 output", hidden), table.add("gelu output", hidden, "fc2 input");
  }
  if (b.trunk.proj_drop > 0) table.add("hidden dropout", 2 * hidden, "factor, product");
}

double sum(const std::vector<MemoryItem>& items) {
  double total = 0;
  for (const MemoryItem& item : items) total += item.bytes;
  return total;
}

}  // namespace

BlockView block_view(const RankView& rank, const PlanTrunk& trunk) {
  const config::Recipe& recipe = rank.recipe;
  const int sequence = rank.size(Axis::sequence);
  BlockView block{.trunk = trunk};
  block.samples = static_cast<double>(rank.micro_batch);
  block.tokens = static_cast<double>(trunk.tokens);
  block.rows = block.samples * static_cast<double>((trunk.tokens + sequence - 1) / sequence);
  block.tensor = rank.size(Axis::tensor);
  block.bytes = rank.compute_bytes();
  const double width = trunk.heads > 0 ? static_cast<double>(trunk.width / trunk.heads) : 0;
  block.kv_width = width * static_cast<double>(trunk.kv_heads);
  block.split_norms = recipe.parallel.split_norms && block.tensor > 1;
  block.plain_attention = recipe.train.attention == "plain";
  block.rotary = !(recipe.model.rope == "none");
  block.flash_pads = !block.plain_attention && width > 0 && std::fmod(width, 8) != 0;
  return block;
}

std::vector<MemoryItem> saved_tensors(const BlockView& b) {
  Table table;
  const double D = static_cast<double>(b.trunk.width), c = b.bytes;
  // With split norms a rank holds its share of the tokens between the layers; what qkv and fc1
  // gather they gather again in backward.
  const double outer = b.rows / (b.split_norms ? b.tensor : 1);
  table.add("block input", outer * D * c, "norm1 input");
  if (b.trunk.conditioned) table.add("conditioned input", outer * D * c);
  add_norm(table, b, "norm1", outer, D);
  add_attention(table, b);
  if (b.trunk.proj_drop > 0)
    table.add("proj dropout", 2 * outer * D * c, "factor, of both branches");
  if (b.trunk.layer_scale) table.add("branch outputs", 2 * outer * D * c, "LayerScale inputs");
  table.add("middle", outer * D * c, "norm2 input");
  add_norm(table, b, "norm2", outer, D);
  add_mlp(table, b);
  return std::move(table.items);
}

double saved_bytes(const BlockView& block) { return sum(saved_tensors(block)); }

double boundary_bytes(const BlockView& b) {
  return b.rows / (b.split_norms ? b.tensor : 1) * static_cast<double>(b.trunk.width) * b.bytes;
}

double selective_bytes(const BlockView& b) {
  return boundary_bytes(b) + b.rows / b.tensor *
                                 (static_cast<double>(b.trunk.width) * b.bytes +
                                  static_cast<double>(b.trunk.heads) * kStatisticBytes);
}

/// At the backward of fc2: gradients of the block's output and of the hidden units, and the product that fc2.weight's
/// gradient is added from.
double backward_bytes(const BlockView& b) {
  const double D = static_cast<double>(b.trunk.width),
               H = static_cast<double>(b.trunk.hidden) / b.tensor;
  const double gathered = b.split_norms ? b.rows * D : 0;
  return (b.rows * D + b.rows * H + D * H + gathered) * b.bytes;
}

namespace {

/// How many of a trunk's blocks this rank holds.
double held_blocks(const RankView& rank, int trunk) {
  return static_cast<double>(
      std::ranges::count_if(rank.units, [&](const PlanUnit& unit) { return unit.trunk == trunk; }));
}

bool holds_end(const RankView& rank, const char* name) {
  return std::ranges::any_of(
      rank.units, [&](const PlanUnit& unit) { return unit.trunk < 0 && unit.name == name; });
}

void add_activations(const RankView& rank, MemoryPlan& plan) {
  const config::Train& train = rank.recipe.train;
  double kept = 0, one_block = 0, transient = 0;
  for (size_t t = 0; t < rank.trunks.size(); ++t) {
    const double blocks = held_blocks(rank, static_cast<int>(t));
    if (blocks == 0) continue;
    const BlockView block = block_view(rank, rank.trunks[t]);
    const double whole = saved_bytes(block), input = boundary_bytes(block);
    transient = std::max(transient, backward_bytes(block));
    double again = blocks;  // blocks that are computed again
    if (train.recompute == "none") again = 0;
    if (train.recompute == "every_k")
      again = std::ceil(blocks / static_cast<double>(train.recompute_every));
    const double light = train.recompute == "selective" ? selective_bytes(block) : input;
    kept += (blocks - again) * whole + again * light;
    if (again > 0) one_block = std::max(one_block, whole);
  }
  kept *= rank.passes_in_flight();
  if (train.offload_activations) {
    plan.host_bytes += kept;
    // Two on their way out or in.
    kept = std::min(kept, rank.blocks() > 0 ? 2 * kept / rank.blocks() : 0);
  }
  plan.items.push_back({"activations kept",
                        fmt::format("{} blocks, recompute {}, {:.3g} passes at once", rank.blocks(),
                                    train.recompute.value, rank.passes_in_flight()),
                        kept});
  if (one_block > 0)
    plan.items.push_back({"activations of one block", "while it is computed again", one_block});
  plan.items.push_back({"backward of one block", "gradients under way", transient});
}

/// Images, embeddings and heads, which run on whole tokens on every rank of their stage.
void add_ends(const RankView& rank, MemoryPlan& plan) {
  const config::Model& model = rank.recipe.model;
  const double B = static_cast<double>(rank.micro_batch), c = rank.compute_bytes();
  double pixels = static_cast<double>(model.in_channels);
  for (const int64_t side : model.image_size) pixels *= static_cast<double>(side);
  // Every stage has the batch of the whole step in fp32.
  const double batch = B * static_cast<double>(rank.micro_batches) * pixels * 4;
  plan.items.push_back({"batch", "images in fp32", batch});
  const bool first = holds_end(rank, "embed") || rank.stage == 0;
  const bool last = rank.stage == rank.size(Axis::pipeline) - 1;
  const PlanTrunk &front = rank.trunks.front(), &back = rank.trunks.back();
  const auto tokens = [&](const PlanTrunk& trunk) {
    return B * static_cast<double>(trunk.tokens) * static_cast<double>(trunk.width) * c;
  };
  double bytes = 0;
  if (first) bytes += B * pixels * c + 2 * tokens(front);  // patches; embedded, with positions
  if (last) bytes += 2 * tokens(back);                     // final norm
  if (last && model.kind == "mae")
    bytes += B * pixels * (c + 3 * 4);  // prediction; target, difference, square in fp32
  if (last && model.kind == "diffusion") bytes += B * pixels * (c + 3 * 4);
  if (last && model.kind == "vit")
    bytes += B * static_cast<double>(model.num_classes) * 12 *
             (model.pool == "none" ? static_cast<double>(back.tokens) : 1);
  if (last && (model.kind == "unetr" || model.kind == "sap")) {
    const double places = pixels / static_cast<double>(model.in_channels);
    // About ten maps of feature_size at full resolution and the logits in fp32 with their probabilities.
    bytes += B * places *
             (10 * static_cast<double>(model.feature_size) * c +
              3 * 4 * static_cast<double>(model.num_classes));
  }
  plan.items.push_back({"ends", "embedding, final norm, head, loss; an estimate", bytes});
}

double sum_of(const RankView& rank, bool (RankView::*in_slot)(const PlanUnit&) const) {
  double own = 0;
  for (const PlanUnit& unit : rank.units)
    if (!(rank.*in_slot)(unit)) own += rank.padded(unit);
  return own;
}

double largest_of(const RankView& rank, bool (RankView::*in_slot)(const PlanUnit&) const) {
  double most = 0;
  for (const PlanUnit& unit : rank.units)
    if ((rank.*in_slot)(unit)) most = std::max(most, rank.padded(unit));
  return most;
}

/// What units compute with (parallel/unit.h): memory of their own, slots that they take in turn.
void add_whole(const RankView& rank, MemoryPlan& plan) {
  const double c = rank.compute_bytes();
  const bool is_master = c == 4 && !rank.is_divided() && !rank.has_master_on_host();
  const double weights = sum_of(rank, &RankView::weights_in_slot);
  const double gradients = sum_of(rank, &RankView::gradient_in_slot);
  const auto add = [&](const char* name, double bytes, const std::string& note) {
    if (bytes > 0) plan.items.push_back({name, note, bytes});
  };
  if (!is_master) add("weights", weights * c, "whole, of units with memory of their own");
  add("weights in slots", rank.weight_slots() * largest_of(rank, &RankView::weights_in_slot) * c,
      fmt::format("{} blocks gathered at once", rank.weight_slots()));
  if (rank.is_divided())
    add("gradients", gradients * 4, "fp32, whole, of units with memory of their own");
  add("gradients in slots", kGradientSlots * largest_of(rank, &RankView::gradient_in_slot) * 4,
      "fp32, two blocks: computed, reduced");
}

/// Room for what crosses ranks in bf16, and for a slice that is added (parallel/reduce.h).
void add_staging(const RankView& rank, MemoryPlan& plan) {
  int ranks = 1;
  for (const Axis axis : {Axis::replicate, Axis::shard, Axis::sequence, Axis::tensor})
    ranks *= rank.size(axis);
  if (ranks == 1) return;
  double whole = 0, bucket = 0;
  for (const PlanUnit& unit : rank.units) {
    bucket += rank.padded(unit);
    whole = std::max(whole, rank.is_divided() ? rank.padded(unit) : bucket);
    if (bucket * sizeof(float) >= rank.recipe.parallel.bucket_mib * 0x1p20) bucket = 0;
  }
  double unit = 0;
  for (const PlanUnit& one : rank.units) unit = std::max(unit, rank.padded(one));
  const double slice = unit / rank.sharding().weights;
  double bytes = 0;
  if (rank.reduce_bytes() < 4)
    bytes = (whole + slice) * 2;
  else if (largest_of(rank, &RankView::gradient_in_slot) > 0)
    bytes = slice * 4;
  if (bytes > 0) plan.items.push_back({"reduction buffers", "a unit in bf16, a slice", bytes});
}

void add_slices(const RankView& rank, MemoryPlan& plan) {
  const bool further = rank.sharding().weights > 1 && rank.sharding().kept > 1;
  if (further)
    plan.items.push_back({"gradient slices", "fp32, before replicas divide them",
                          rank.arena() / rank.sharding().weights * 4});
  if (rank.has_weights_on_host() || (!further && !rank.has_master_on_host())) return;
  const double in_slots = rank.arena() - sum_of(rank, &RankView::weights_in_slot);
  if (in_slots > 0)
    plan.items.push_back({"weight slices", "in compute type, of blocks in slots",
                          in_slots / rank.sharding().weights * rank.compute_bytes()});
}

void add_states(const RankView& rank, MemoryPlan& plan) {
  const config::Train& train = rank.recipe.train;
  const double kept = rank.arena() / rank.sharding().pieces();
  const bool adamw = train.optimizer.kind == "adamw";
  const double moments = kept * moment_bytes(train.optimizer);
  plan.items.push_back({"gradient sum", "fp32, this rank's piece", kept * 4});
  const double flags = kept / parallel::kAlignment;
  const bool on_host = rank.has_master_on_host();
  const double arrays = (on_host ? 0 : 1) + (rank.size(Axis::tensor) > 1 ? 1 : 0);
  if (arrays > 0)
    plan.items.push_back(
        {"flags", "weight decay, counted in norms: a byte for 128 elements", flags * arrays});
  if (on_host) {
    plan.host_bytes += kept * (8 + (train.ema_decay ? 4 : 0)) + moments + flags;
    if (rank.has_weights_on_host()) plan.host_bytes += kept * rank.compute_bytes();
    return;
  }
  plan.items.push_back({"master weights", "fp32, this rank's piece", kept * 4});
  plan.items.push_back({"moments",
                        fmt::format("{} in {}", adamw ? "two" : "one", train.optimizer.state.value),
                        moments});
  if (train.ema_decay) plan.items.push_back({"average", "fp32", kept * 4});
}

}  // namespace

double moment_bytes(const config::Optimizer& optimizer) {
  const double group = parallel::kAlignment;
  if (optimizer.state == "bf16") return 2 * 2 + 8 / group;
  if (optimizer.state == "fp8") return 2 * (1 + 1 / group) + 8 / group;
  return optimizer.kind == "adamw" ? 8 : 4;
}

double MemoryPlan::total() const { return sum(items); }

MemoryPlan plan_memory(const RankView& rank) {
  MemoryPlan plan;
  add_whole(rank, plan);
  add_slices(rank, plan);
  add_staging(rank, plan);
  add_states(rank, plan);
  add_activations(rank, plan);
  add_ends(rank, plan);
  plan.items.push_back(
      {"workspace", "of libraries, from the machine's table", rank.machine.workspace_gib * 0x1p30});
  return plan;
}

}  // namespace vitrail::train
