#include "vitrail/train/plan.h"

#include <algorithm>
#include <cmath>

#include "vitrail/config/rules.h"
#include "vitrail/core/error.h"
#include "vitrail/train/assembly.h"
#include "vitrail/train/plan_parts.h"

namespace vitrail::train {
namespace {

using comm::Axis;

int size_of(const MeshSizes& sizes, Axis axis) { return sizes[static_cast<size_t>(axis)]; }

PlanTrunk trunk_of(nn::Stack& stack, int64_t tokens, const config::Model& options) {
  PlanTrunk trunk;
  trunk.tokens = tokens, trunk.depth = stack.depth();
  if (stack.depth() == 0) return trunk;
  const nn::BlockOptions& block = stack.block(0).options();
  trunk.width = block.width, trunk.heads = block.num_heads, trunk.hidden = block.mlp_hidden;
  trunk.kv_heads = block.num_kv_heads > 0 ? block.num_kv_heads : block.num_heads;
  trunk.swiglu = block.mlp == nn::MlpKind::swiglu;
  trunk.rmsnorm = options.norm == "rmsnorm";
  trunk.qk_norm = block.qk_norm, trunk.layer_scale = block.layer_scale;
  trunk.conditioned = block.conditioned;
  trunk.drop_path = stack.block(stack.depth() - 1).options().drop_path;
  trunk.attn_drop = block.attn_drop, trunk.proj_drop = block.proj_drop;
  return trunk;
}

/// Trunks after the first decode: they see every patch, hidden ones too.
int64_t decoder_tokens(const config::Model& options, int64_t encoder_tokens) {
  if (!(options.kind == "mae")) return encoder_tokens;
  const int64_t patches = options.num_leaves() > 0 ? options.num_leaves() : options.num_patches();
  return patches + (options.class_token ? 1 : 0) + options.register_tokens;
}

void check_sizes(const config::Recipe& recipe, const MeshSizes& sizes) {
  const int64_t data = int64_t{size_of(sizes, Axis::replicate)} * size_of(sizes, Axis::shard);
  VT_REQUIRE(ConfigError, recipe.data.batch_size % data == 0,
             "[plan] data.batch_size must be a multiple of the data ranks (replicate x shard) but "
             "got {} and {}",
             recipe.data.batch_size, data);
  const int64_t local = recipe.data.batch_size / data;
  VT_REQUIRE(ConfigError, local % recipe.train.micro_batches == 0,
             "[plan] data.batch_size / data ranks must be a multiple of train.micro_batches but "
             "got {} / {} = {} and {}",
             recipe.data.batch_size, data, local, recipe.train.micro_batches);
}

/// Rank whose coordinates are 0 but for the stage.
int rank_of_stage(const MeshSizes& sizes, int stage) {
  return stage * size_of(sizes, Axis::sequence) * size_of(sizes, Axis::tensor);
}

}  // namespace

MeshSizes plan_mesh(const config::Recipe& recipe, int64_t gpus, int64_t gpus_per_host) {
  VT_REQUIRE(ConfigError, gpus >= 1 && gpus <= int64_t{1} << 20,
             "[plan] the number of GPUs must be from 1 to {} but got {}", int64_t{1} << 20, gpus);
  const config::Parallel& parallel = recipe.parallel;
  const comm::MeshShape shape =
      mesh_shape(parallel, static_cast<int>(gpus), static_cast<int>(std::min(gpus, gpus_per_host)));
  MeshSizes sizes{1, 1, 1, 1, 1};
  std::array<int64_t, comm::kAxisCount> given{shape.replicate, shape.shard, shape.pipeline,
                                              shape.sequence, shape.tensor};
  int64_t product = 1;
  int open = -1;
  for (int axis = 0; axis < comm::kAxisCount; ++axis) {
    const int64_t size = given[static_cast<size_t>(axis)];
    if (size == -1) {
      open = axis;
      continue;
    }
    product = std::min(product * std::min(size, int64_t{1} << 21), int64_t{1} << 21);
  }
  if (open >= 0 && product > 0 && gpus % product == 0)
    given[static_cast<size_t>(open)] = gpus / product, product = gpus;
  VT_REQUIRE(ConfigError, product == gpus,
             "[plan] replicate x shard x pipeline x sequence x tensor must equal the number of "
             "GPUs but got {} x {} x {} "
             "x {} x {} for {}; set parallel.* or --gpus",
             given[0], given[1], given[2], given[3], given[4], gpus);
  const int64_t data_ranks = given[0] * given[1];
  VT_REQUIRE(ConfigError, data_ranks == 1 || !(parallel.strategy == "none"),
             "[plan] parallel.strategy=none is for one data rank but got {}; use "
             "parallel.strategy=ddp",
             data_ranks);
  for (size_t axis = 0; axis < comm::kAxisCount; ++axis)
    sizes[axis] = static_cast<int>(given[axis]);
  check_sizes(recipe, sizes);
  return sizes;
}

config::Recipe with_mesh(config::Recipe recipe, const MeshSizes& sizes) {
  recipe.parallel.replicate = size_of(sizes, Axis::replicate);
  recipe.parallel.shard = size_of(sizes, Axis::shard);
  recipe.parallel.pipeline = size_of(sizes, Axis::pipeline);
  recipe.parallel.sequence = size_of(sizes, Axis::sequence);
  recipe.parallel.tensor = size_of(sizes, Axis::tensor);
  return recipe;
}

PlanSubject::PlanSubject(const config::Recipe& recipe)
    : model_(models::make_model_shapes(recipe.model)) {
  parameter_count_ = model_->parameter_count();
  const std::vector<nn::Stack*> stacks = model_->stacks();
  const int64_t tokens = model_->tokens_per_sample();
  for (size_t t = 0; t < stacks.size(); ++t) {
    trunks_.push_back(
        trunk_of(*stacks[t], t == 0 ? tokens : decoder_tokens(recipe.model, tokens), recipe.model));
    trunks_.back().name = t == 0 ? "blocks" : "decoder_blocks";
  }
}

const std::vector<PlanUnit>& PlanSubject::units(const config::Recipe& recipe,
                                                const MeshSizes& sizes, int stage) {
  const config::Parallel& parallel = recipe.parallel;
  const std::string key = fmt::format("{} {} {} {} {}", size_of(sizes, Axis::tensor),
                                      size_of(sizes, Axis::pipeline), parallel.pipeline_parts,
                                      stage, parallel.split_norms * 2 + parallel.split_channels);
  const auto known = known_.find(key);
  if (known != known_.end()) return known->second;
  parallel::MeshPlace place{sizes, {}};
  place.coordinates[static_cast<size_t>(Axis::pipeline)] = stage;
  parallel::LayoutOptions options =
      parallel::layout_options(*model_, with_mesh(recipe, sizes), place);
  options.sharding = {};  // slices are cut later, for many strategies at once
  const parallel::Layout layout(*model_, options);
  const std::vector<nn::Stack*> stacks = model_->stacks();
  std::vector<PlanUnit> units;
  for (const parallel::Unit& unit : layout.units()) {
    PlanUnit one{
        .name = unit.name, .block = unit.block, .count = unit.count, .partial = unit.partial_count};
    if (unit.stack)
      one.trunk = static_cast<int>(std::ranges::find(stacks, unit.stack) - stacks.begin());
    for (const parallel::ParameterSlot& slot : unit.slots) one.parameters += slot.count;
    units.push_back(one);
  }
  return known_[key] = std::move(units);
}

bool RankView::weights_in_slot(const PlanUnit& unit) const {
  return strategy.weights_in_slots && unit.trunk >= 0 &&
         static_cast<int64_t>(padded(unit)) >= recipe.parallel.persist_below;
}

bool RankView::gradient_in_slot(const PlanUnit& unit) const {
  return strategy.gradients_in_slots && unit.trunk >= 0;
}

int RankView::weight_slots() const {
  const auto all =
      std::ranges::count_if(units, [this](const PlanUnit& unit) { return weights_in_slot(unit); });
  const int64_t most = recipe.parallel.limit_all_gathers ? recipe.parallel.prefetch_depth + 1 : all;
  return static_cast<int>(std::min<int64_t>(all, most));
}

double RankView::padded(const PlanUnit& unit) const {
  const int64_t multiple = int64_t{sharding().pieces()} * parallel::kAlignment;
  return static_cast<double>((unit.count + multiple - 1) / multiple * multiple);
}

double RankView::arena() const {
  double sum = 0;
  for (const PlanUnit& unit : units) sum += padded(unit);
  return sum;
}

int RankView::blocks() const {
  return static_cast<int>(
      std::ranges::count_if(units, [](const PlanUnit& unit) { return unit.trunk >= 0; }));
}

parallel::ScheduleKind RankView::schedule_kind() const {
  const config::Choice& word = recipe.parallel.pipeline_schedule;
  if (word == "gpipe") return parallel::ScheduleKind::gpipe;
  return word == "interleaved" ? parallel::ScheduleKind::interleaved
                               : parallel::ScheduleKind::one_each;
}

double RankView::passes_in_flight() const {
  if (size(Axis::pipeline) == 1) return 1;
  const auto parts = static_cast<int>(recipe.parallel.pipeline_parts);
  int open = 0, most = 0;
  for (const parallel::Action& action : parallel::schedule(
           schedule_kind(), size(Axis::pipeline), stage, parts, static_cast<int>(micro_batches))) {
    open += action.backward ? -1 : 1;
    most = std::max(most, open);
  }
  return static_cast<double>(most) / parts;
}

Plan make_plan(PlanSubject& subject, const config::Recipe& given, const Machine& machine,
               const MeshSizes& sizes) {
  const config::Recipe recipe = with_mesh(given, sizes);
  check_sizes(recipe, sizes);
  Plan plan;
  plan.mesh = sizes, plan.machine = machine.name;
  plan.strategy = recipe.parallel.strategy.value, plan.recompute = recipe.train.recompute.value;
  plan.precision = recipe.train.precision.value;
  for (const int size : sizes) plan.gpus *= size;
  plan.batch_size = recipe.data.batch_size;
  plan.local_batch =
      plan.batch_size / size_of(sizes, Axis::replicate) / size_of(sizes, Axis::shard);
  plan.micro_batches = recipe.train.micro_batches;
  plan.parameters = subject.parameter_count();
  plan.capacity_bytes = machine.memory_gib * 0x1p30,
  plan.context_bytes = machine.context_gib * 0x1p30;
  for (int stage = 0; stage < size_of(sizes, Axis::pipeline); ++stage) {
    const RankView rank{recipe,
                        machine,
                        subject.trunks(),
                        subject.units(recipe, sizes, stage),
                        sizes,
                        parallel::strategy_of(recipe.parallel, {sizes, {}}),
                        stage,
                        plan.local_batch / plan.micro_batches,
                        plan.micro_batches};
    const MemoryPlan memory = plan_memory(rank);
    if (memory.total() > plan.peak_bytes) {
      plan.peak_bytes = memory.total(), plan.memory = memory.items,
      plan.host_bytes = memory.host_bytes;
      plan.worst_stage = stage, plan.worst_rank = rank_of_stage(sizes, stage);
      plan.rank_parameters = 0;
      for (const PlanUnit& unit : rank.units) plan.rank_parameters += unit.parameters;
      plan.kept_parameters = static_cast<int64_t>(rank.arena() / rank.sharding().pieces());
    }
    const TimePlan time = plan_time(rank);
    if (time.total() <= plan.step_seconds) continue;
    plan.step_seconds = time.total(), plan.compute_seconds = time.compute_seconds;
    plan.exposed_seconds = time.exposed_seconds, plan.bubble_seconds = time.bubble_seconds;
    plan.optimizer_seconds = time.optimizer_seconds, plan.collectives = time.collectives;
    plan.hardware_flops = time.hardware_flops;
  }
  plan.model_flops =
      subject.model().train_flops_per_sample() * static_cast<double>(plan.batch_size);
  plan.images_per_second = static_cast<double>(plan.batch_size) / plan.step_seconds;
  plan.model_tflops_per_gpu =
      plan.model_flops / plan.step_seconds / static_cast<double>(plan.gpus) * 1e-12;
  const double peak = recipe.train.precision == "fp32" ? machine.peak_fp32 : machine.peak_bf16;
  if (peak > 0) plan.utilisation = plan.model_tflops_per_gpu / peak;
  return plan;
}

}  // namespace vitrail::train
