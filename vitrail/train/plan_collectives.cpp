// Which collectives a step runs, how often, over how many bytes.

#include <algorithm>
#include <numeric>

#include "vitrail/train/plan_parts.h"

namespace vitrail::train {
namespace {

using comm::Axis;

constexpr unsigned bit(Axis axis) { return 1u << static_cast<unsigned>(axis); }

std::string group_name(const MeshSizes& sizes, unsigned axes) {
  std::string name;
  for (int axis = 0; axis < comm::kAxisCount; ++axis)
    if ((axes >> axis & 1u) && sizes[static_cast<size_t>(axis)] > 1)
      name += (name.empty() ? "" : " x ") + std::string(comm::name(static_cast<Axis>(axis)));
  return name;
}

class Ledger {
 public:
  explicit Ledger(const RankView& rank) : rank_(rank) {}
  void add(const char* purpose, const char* kind, unsigned axes, double count, double bytes,
           int64_t ranks = 0) {
    CollectiveItem item{.purpose = purpose, .kind = kind, .group = group_name(rank_.sizes, axes)};
    item.shape = group_shape(rank_.sizes, axes, rank_.machine.gpus_per_host);
    if (ranks > 0) {  // a part of the group: its nearest neighbours
      const int64_t all = item.shape.ranks;
      item.shape.hosts = std::max<int64_t>(1, item.shape.hosts * ranks / all);
      item.shape.ranks = ranks;
    }
    if (item.shape.ranks <= 1 || count <= 0) return;
    item.count = count, item.bytes = bytes;
    item.wire_bytes = count * wire_bytes(kind, bytes / count, item.shape.ranks);
    items.push_back(item);
  }
  std::vector<CollectiveItem> items;

 private:
  const RankView& rank_;
};

/// All-reduces of whole gradients: neighbouring units together until they are large enough.
double buckets(const RankView& rank) {
  const double least = rank.recipe.parallel.bucket_mib * 0x1p20 / sizeof(float);
  double count = 0, found = 0;
  for (const PlanUnit& unit : rank.units) {
    count += rank.padded(unit);
    if (count < least) continue;
    ++found, count = 0;
  }
  return found + (count > 0 ? 1 : 0);
}

struct Amount {
  double units = 0, elements = 0;
};
template <class Keep>
Amount amount(const RankView& rank, Keep&& keep) {
  Amount sum;
  for (const PlanUnit& unit : rank.units)
    if (keep(unit)) ++sum.units, sum.elements += rank.padded(unit);
  return sum;
}

/// Gradients and weights of all units over the data ranks.
void add_sharding(const RankView& rank, Ledger& ledger) {
  const unsigned inner = bit(Axis::shard) | bit(Axis::sequence), outer = bit(Axis::replicate);
  const double passes = static_cast<double>(rank.micro_batches);
  const double c = rank.compute_bytes(), r = rank.reduce_bytes(), arena = rank.arena();
  if (!rank.is_divided()) {
    ledger.add("gradients", "all_reduce", inner | outer, buckets(rank), arena * r);
    return;
  }
  const auto all = static_cast<double>(rank.units.size());
  const Amount moving =
      amount(rank, [&](const PlanUnit& unit) { return rank.weights_in_slot(unit); });
  const Amount sliced =
      amount(rank, [&](const PlanUnit& unit) { return rank.gradient_in_slot(unit); });
  // Units with memory of their own are gathered once a step; others before each use, but for those that still lie in a
  // slot when the direction turns.
  const double own = arena - moving.elements;
  const double slots = rank.weight_slots(),
               one = moving.units > 0 ? moving.elements / moving.units : 0;
  const double forward = passes * moving.units - (passes - 1) * slots,
               backward = passes * (moving.units - slots);
  ledger.add("weights forward", "all_gather", inner, all - moving.units + forward,
             (own + forward * one) * c);
  ledger.add("weights backward", "all_gather", inner, backward, backward * one * c);
  ledger.add("gradients", "reduce_scatter", inner, all - sliced.units + passes * sliced.units,
             (arena - sliced.elements + passes * sliced.elements) * r);
  const double slice = arena / rank.sharding().weights;
  if (rank.sharding().kept > 1) {
    ledger.add("gradients of replicas", "reduce_scatter", outer, all, slice * r);
    ledger.add("weights of replicas", "all_gather", outer, all, slice * c);
  } else {
    ledger.add("gradients of replicas", "all_reduce", outer, all, slice * r);
  }
}

double forward_runs(const config::Train& train) {
  if (train.recompute == "none") return 1;
  return 1 +
         (train.recompute == "every_k" ? 1.0 / static_cast<double>(train.recompute_every) : 1.0);
}

/// Two sums of all tokens forward and two backward a block; forward ones again with recompute.
void add_tensor(const RankView& rank, const BlockView& block, double blocks, Ledger& ledger) {
  const unsigned axis = bit(Axis::tensor);
  const double passes = static_cast<double>(rank.micro_batches);
  const double one = block.rows * static_cast<double>(block.trunk.width) * block.bytes;
  const double count = blocks * passes * (2 * forward_runs(rank.recipe.train) + 2);
  if (!block.split_norms) {
    ledger.add("tensor", "all_reduce", axis, count, count * one);
    return;
  }
  // What was gathered is not kept: backward gathers the tokens again, and the gradients of what was scattered.
  const double gathers = count + 2 * blocks * passes;
  ledger.add("tensor", "all_gather", axis, gathers, gathers * one);
  ledger.add("tensor", "reduce_scatter", axis, count, count * one);
}

void add_sequence(const RankView& rank, const BlockView& block, double blocks, Ledger& ledger) {
  const int64_t ranks = rank.size(Axis::sequence);
  const int64_t heads = block.trunk.heads / rank.size(Axis::tensor);
  const auto kv_heads = static_cast<int64_t>(static_cast<double>(heads) * block.kv_width /
                                             static_cast<double>(block.trunk.width));
  const std::optional<int64_t>& asked = rank.recipe.parallel.ulysses;
  const int64_t ulysses = asked ? std::gcd(*asked, heads) : std::gcd(kv_heads, ranks);
  const double passes = static_cast<double>(rank.micro_batches);
  const double D = static_cast<double>(block.trunk.width), runs = forward_runs(rank.recipe.train);
  const double kv = 2 * block.rows * block.kv_width / block.tensor * block.bytes;
  const double q_and_out = 2 * block.rows * D / block.tensor * block.bytes;
  const double exchanges =
      blocks * passes * 2 * (runs + 1);  // of q, k and v together; of the result
  if (ulysses > 1)
    ledger.add("sequence", "all_to_all", bit(Axis::sequence), exchanges,
               exchanges / 2 * (kv + q_and_out), ulysses);
  const int64_t ring = ranks / std::max<int64_t>(1, ulysses);
  if (ring > 1) {
    // Keys and values go round forward; backward their gradients go with them.
    const double turns = blocks * passes * static_cast<double>(ring - 1);
    ledger.add("sequence", "send_receive", bit(Axis::sequence), turns * (runs + 1),
               turns * kv * (runs + 2), ring);
  }
}

void add_pipeline(const RankView& rank, Ledger& ledger) {
  const int stages = rank.size(Axis::pipeline);
  if (stages == 1) return;
  const BlockView block = block_view(rank, rank.trunks.front());
  const double passes = static_cast<double>(rank.micro_batches);
  const double parts = static_cast<double>(rank.recipe.parallel.pipeline_parts);
  const double one =
      block.samples * block.tokens * static_cast<double>(block.trunk.width) * block.bytes;
  ledger.add("pipeline", "send_receive", bit(Axis::pipeline), 2 * passes * parts,
             2 * passes * parts * one, 2);
}

}  // namespace

GroupShape group_shape(const MeshSizes& sizes, unsigned axes, int64_t gpus_per_host) {
  // Hosts hold consecutive ranks, so an axis reaches out of a host when its stride times its size does; rank 0's group
  // stands for all.
  GroupShape shape;
  int64_t inside = 1, stride = 1;
  for (int axis = comm::kAxisCount; axis-- > 0;) {
    const int64_t size = sizes[static_cast<size_t>(axis)];
    if (axes >> axis & 1u) {
      shape.ranks *= size;
      inside *= std::min(size, std::max<int64_t>(1, gpus_per_host / stride));
    }
    stride *= size;
  }
  shape.hosts = std::max<int64_t>(1, (shape.ranks + inside - 1) / inside);
  return shape;
}

std::vector<CollectiveItem> plan_collectives(const RankView& rank) {
  Ledger ledger(rank);
  add_sharding(rank, ledger);
  for (size_t t = 0; t < rank.trunks.size(); ++t) {
    const double blocks = static_cast<double>(std::ranges::count_if(
        rank.units, [&](const PlanUnit& unit) { return unit.trunk == static_cast<int>(t); }));
    if (blocks == 0) continue;
    const BlockView block = block_view(rank, rank.trunks[t]);
    add_tensor(rank, block, blocks, ledger);
    add_sequence(rank, block, blocks, ledger);
  }
  add_pipeline(rank, ledger);
  ledger.add("gradient norm", "all_reduce",
             bit(Axis::shard) | bit(Axis::sequence) | bit(Axis::tensor) | bit(Axis::pipeline), 1,
             8);
  return std::move(ledger.items);
}

}  // namespace vitrail::train
