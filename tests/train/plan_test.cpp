// The planner's counts against the memory that training really makes, and against the formulas of the literature.

#include "vitrail/train/plan.h"

#include <chrono>
#include <cmath>
#include <map>
#include <numeric>

#include <fmt/ranges.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "../parallel/tiny.h"
#include "vitrail/comm/communicator.h"
#include "vitrail/config/rules.h"
#include "vitrail/core/error.h"
#include "vitrail/parallel/engine.h"
#include "vitrail/train/bench_comm.h"
#include "vitrail/train/optimizer.h"
#include "vitrail/train/plan_groups.h"
#include "vitrail/train/plan_parts.h"
#include "vitrail/train/plan_search.h"

namespace vitrail::train {
namespace {

using comm::Axis;
using ::testing::HasSubstr;

Machine machine() {
  return parse_machine(R"(
gpus_per_host: 8
memory_gib: 100
peak_tflops: {bf16: 1000, fp32: 100}
gemm: {bf16: {256: 400, 2048: 600}, fp32: {256: 50}}
attention: {by_head_width: {64: 300}, by_tokens: {256: 1}}
copy_gb_s: 4000
passes: 100
links: {in_host: {latency_us: 5, gb_s: 300}, between_hosts: {latency_us: 20, gb_s: 200}}
)",
                       "test");
}

config::Recipe recipe_of_model(const config::Model& model) {
  config::Recipe recipe;
  recipe.model = model;
  recipe.data.batch_size = 64;
  recipe.train.steps = 1;
  return recipe;
}

config::Recipe tiny(const std::string& strategy, const std::string& precision = "bf16") {
  config::Recipe recipe = recipe_of_model(testing::tiny_vit());
  recipe.parallel.strategy.value = strategy;
  recipe.train.precision.value = precision;
  return recipe;
}

/// ViT of the sizes in arXiv:2404.11706: 3.05 billion parameters.
config::Recipe vit_3b(const std::string& strategy) {
  config::Model model;
  model.image_size = {224, 224}, model.patch_size = 14;
  model.embed_dim = 2816, model.depth = 32, model.num_heads = 32, model.num_classes = 0;
  config::Recipe recipe = recipe_of_model(model);
  recipe.data.batch_size = 32 * 1024;
  recipe.parallel.strategy.value = strategy;
  recipe.train.precision.value = "bf16";
  recipe.train.recompute.value = "block";
  return recipe;
}

Plan plan_of(const config::Recipe& recipe, const MeshSizes& sizes) {
  PlanSubject subject(recipe);
  return make_plan(subject, recipe, machine(), sizes);
}

double bytes_of(const Plan& plan, const std::vector<std::string>& names) {
  double sum = 0;
  for (const MemoryItem& item : plan.memory)
    if (std::ranges::find(names, item.name) != names.end()) sum += item.bytes;
  return sum;
}

double wire_elements(const Plan& plan, const std::string& purpose, double width) {
  double sum = 0;
  for (const CollectiveItem& item : plan.collectives)
    if (item.purpose.starts_with(purpose)) sum += item.wire_bytes / width;
  return sum;
}

const std::vector<std::string> kParameterItems{
    "weights", "weights in slots", "gradients", "gradients in slots", "gradient sum",
    "flags",   "master weights",   "moments",   "gradient slices",    "weight slices"};

/// Bytes of distinct storages among what UnitSet and Optimizer hold.
double real_bytes(const std::vector<at::Tensor>& tensors) {
  std::map<const void*, double> storages;
  for (const at::Tensor& tensor : tensors)
    if (tensor.defined() && tensor.numel() > 0)
      storages[tensor.storage().data()] = static_cast<double>(tensor.storage().nbytes());
  double sum = 0;
  for (const auto& [data, bytes] : storages) sum += bytes;
  return sum;
}

// ---- bytes of parameters

struct RealCase {
  const char* strategy;
  const char* precision;
  int64_t replicate, shard;
  const char* optimizer;
  const char* state = "fp32";
};

TEST(Plan, BytesOfParametersEqualThoseOfTraining) {
  const RealCase cases[] = {
      {"ddp", "fp32", 2, 1, "group"},          {"ddp", "bf16", 2, 1, "group"},
      {"zero1", "fp32", 1, 2, "group"},        {"zero1", "bf16", 1, 2, "group"},
      {"zero2", "fp32", 1, 2, "group"},        {"zero2", "bf16", 1, 2, "group"},
      {"zero3", "fp32", 1, 2, "group"},        {"zero3", "bf16", 1, 2, "group"},
      {"hybrid", "bf16", 2, 2, "group"},       {"hybrid", "bf16", 2, 2, "all"},
      {"ddp", "bf16", 2, 1, "group", "bf16"},  {"ddp", "fp32", 2, 1, "group", "fp8"},
      {"zero3", "bf16", 1, 2, "group", "fp8"}, {"zero1", "fp32", 1, 2, "group", "bf16"}};
  for (const RealCase& one : cases) {
    config::Recipe recipe = tiny(one.strategy, one.precision);
    recipe.parallel.replicate = one.replicate, recipe.parallel.shard = one.shard;
    recipe.parallel.shard_optimizer.value = one.optimizer;
    recipe.train.optimizer.state.value = one.state;
    const auto ranks = static_cast<int>(one.replicate * one.shard);
    const MeshSizes sizes{static_cast<int>(one.replicate), static_cast<int>(one.shard), 1, 1, 1};
    const Plan plan = plan_of(recipe, sizes);
    std::vector<double> real(static_cast<size_t>(ranks));
    comm::run_thread_group(ranks, [&](comm::Communicator& world) {
      testing::use_one_thread();
      comm::Mesh mesh(world, {one.replicate, one.shard, 1, 1, 1});
      const auto model = models::make_model(recipe.model, 1);
      const bool bf16 = recipe.train.precision == "bf16";
      parallel::Engine engine(*model, recipe, mesh, at::kCPU, bf16 ? at::kBFloat16 : at::kFloat);
      parallel::UnitSet& units = engine.units();
      Optimizer optimizer(engine, recipe.train.optimizer, {});
      std::vector<at::Tensor> all{units.weights(),  units.whole_gradients(), units.master(),
                                  units.gradient(), units.staying_slices(),  units.decay_mask()};
      for (size_t u = 0; u < units.units().size(); ++u) all.push_back(units.slice_gradient(u));
      real[static_cast<size_t>(world.rank())] =
          real_bytes(all) + static_cast<double>(optimizer.moment_bytes());
    });
    std::vector<std::string> names = kParameterItems;
    std::erase(names, "weights in slots"),
        std::erase(names, "gradients in slots");  // lent memory: not in UnitSet
    // Exact: both are sums of whole tensors.
    EXPECT_EQ(bytes_of(plan, names), real[0])
        << one.strategy << " " << one.precision << " " << one.replicate << " x " << one.shard << " "
        << one.optimizer << " " << one.state;
    EXPECT_EQ(real[0], real.back());
  }
}

TEST(Plan, StatesFollowTheFormulasOfZero) {
  // rat-deepspeed 2.4, 18 bytes a parameter with fp32 gradients: 2 compute + 4 gradient + 12. Flags (a byte for 128
  // elements) and padding are below a hundredth at this size.
  const double P = 3.0486e9;
  const auto states = [&](const char* strategy, const MeshSizes& sizes) {
    return bytes_of(plan_of(vit_3b(strategy), sizes), kParameterItems) / P;
  };
  const double tolerance = 0.02;  // ends and padding
  EXPECT_NEAR(states("ddp", {8, 1, 1, 1, 1}), 18, 18 * tolerance);
  // zero1: 2 weights + 4 gradients whole; (4 + 4 + 8) / N.
  EXPECT_NEAR(states("zero1", {1, 8, 1, 1, 1}), 6 + 16.0 / 8, 8 * tolerance);
  // zero2: 2 P + 16 P / N + two blocks of gradients.
  const double unit = 4.0 * 2816 * 2816 * 3 / P;
  EXPECT_NEAR(states("zero2", {1, 8, 1, 1, 1}), 2 + 16.0 / 8 + 2 * 4 * unit, 0.1);
  // zero3: 16 P / N + two gathered blocks + two of gradients.
  EXPECT_NEAR(states("zero3", {1, 64, 1, 1, 1}), 16.0 / 64 + 2 * (2 + 4) * unit, 0.05);
}

TEST(Plan, HybridStopDividesStatesByTensorTimesShard) {
  // fsdp-hybrid-stop 4.3: 16 P / (T F).
  const config::Recipe recipe = vit_3b("zero3");
  PlanSubject subject(recipe);
  const Plan plan = make_plan(subject, recipe, machine(), {1, 8, 1, 1, 8});
  const double P = static_cast<double>(subject.parameter_count());
  const double kept = bytes_of(plan, {"gradient sum", "flags", "master weights", "moments"});
  EXPECT_NEAR(kept / P * 64, 16, 16 * 0.02);  // norms, biases and ends are not divided by T
  EXPECT_LT(kept, 16 * P / 64 * 1.02);
  // Nobody holds more than P_unit / T of a gathered block.
  const double unit = 12.0 * 2816 * 2816;
  EXPECT_NEAR(bytes_of(plan, {"weights in slots"}) / (2 * 2), unit / 8, unit / 8 * 0.01);
}

TEST(Plan, LargeModelsCostNoMemoryAndLittleTime) {
  config::Recipe recipe = vit_3b("zero3");
  recipe.model.embed_dim = 12288, recipe.model.depth = 56, recipe.model.num_heads = 64;
  const auto start = std::chrono::steady_clock::now();
  PlanSubject subject(recipe);
  const Plan plan = make_plan(subject, recipe, machine(), {16, 128, 1, 1, 8});
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  for (const nn::NamedTensor& parameter : subject.model().named_parameters())
    ASSERT_TRUE(parameter.tensor.is_meta()) << parameter.name;
  EXPECT_NEAR(static_cast<double>(plan.parameters) * 1e-9, 101.5, 0.6);
  EXPECT_LT(seconds, 5) << "a laptop must not wait";  // 0.1 s when it was written
}

// ---- collectives

TEST(Plan, VolumesFollowTheTableOfStrategies) {
  // fsdp-hybrid-stop 3.1: DDP and SHARD_GRAD_OP 2 P, FULL_SHARD 3 P times (N - 1) / N a rank.
  const config::Recipe any = vit_3b("ddp");
  PlanSubject subject(any);
  const double P = static_cast<double>(subject.parameter_count()), share = 7.0 / 8;
  const auto volume = [&](const char* strategy, const MeshSizes& sizes, const char* purpose,
                          double width) {
    config::Recipe recipe = vit_3b(strategy);
    recipe.parallel.prefetch_depth = 0;  // one slot: the least that turning round saves
    return wire_elements(make_plan(subject, recipe, machine(), sizes), purpose, width);
  };
  const double block = P / 32;
  EXPECT_NEAR(volume("ddp", {8, 1, 1, 1, 1}, "gradients", 4), 2 * P * share, P * 0.001);
  for (const char* strategy : {"zero1", "zero2"}) {
    EXPECT_NEAR(volume(strategy, {1, 8, 1, 1, 1}, "gradients", 4), P * share, P * 0.001)
        << strategy;
    EXPECT_NEAR(volume(strategy, {1, 8, 1, 1, 1}, "weights", 2), P * share, P * 0.001) << strategy;
  }
  EXPECT_NEAR(volume("zero3", {1, 8, 1, 1, 1}, "gradients", 4), P * share, P * 0.001);
  // The last block of forward still lies in its slot when backward begins; ends are gathered once.
  EXPECT_NEAR(volume("zero3", {1, 8, 1, 1, 1}, "weights", 2), 2 * P * share, 1.2 * block);
  // Hybrid: the same inside F = 8, and 2 (P / F) (R - 1) / R across.
  EXPECT_NEAR(volume("hybrid", {4, 8, 1, 1, 1}, "gradients of replicas", 4), 2 * P / 8 * 3 / 4,
              P * 0.001);
}

TEST(Plan, TensorRanksAddTokensFourTimesABlock) {
  // fsdp-hybrid-stop 4.3: 4 all-reduces of b n D a block, 2 more with recompute.
  config::Recipe recipe = vit_3b("zero3");
  recipe.data.batch_size = 16;
  const Plan plan = plan_of(recipe, {1, 8, 1, 1, 4});
  for (const CollectiveItem& item : plan.collectives) {
    if (item.purpose != "tensor") continue;
    EXPECT_EQ(item.count, 6 * 32);
    EXPECT_EQ(item.bytes, 6.0 * 32 * 2 * 257 * 2816 * 2);
    EXPECT_NEAR(item.wire_bytes, item.bytes * 2 * 3 / 4, 1);
    return;
  }
  FAIL() << "no collective for the tensor ranks";
}

TEST(Plan, GroupsKnowOverHowManyHostsTheyLie) {
  const auto bit = [](Axis axis) { return 1u << static_cast<unsigned>(axis); };
  const MeshSizes sizes{4, 4, 1, 1, 8};  // a tensor group fills a host
  const GroupShape tensor = group_shape(sizes, bit(Axis::tensor), 8);
  EXPECT_EQ(tensor.ranks, 8);
  EXPECT_EQ(tensor.hosts, 1);
  const GroupShape shard = group_shape(sizes, bit(Axis::shard), 8);
  EXPECT_EQ(shard.ranks, 4);
  EXPECT_EQ(shard.hosts, 4);
  const GroupShape two = group_shape({2, 4, 1, 1, 2}, bit(Axis::shard), 8);
  EXPECT_EQ(two.ranks, 4);
  EXPECT_EQ(two.hosts, 1);
  const GroupShape across = group_shape({8, 4, 1, 1, 2}, bit(Axis::replicate), 8);
  EXPECT_EQ(across.ranks, 8);
  EXPECT_EQ(across.hosts, 8);
  const GroupShape all = group_shape({8, 4, 1, 1, 1}, bit(Axis::replicate) | bit(Axis::shard), 8);
  EXPECT_EQ(all.ranks, 32);
  EXPECT_EQ(all.hosts, 4);
}

TEST(Plan, AMeasuredCollectiveTakesThePlaceOfTheLink) {
  Machine one = machine();
  const GroupShape group{8, 1};
  EXPECT_NEAR(collective_seconds(one, "all_gather", 8e8, group), 7 * 5e-6 + 7e8 / 300e9, 1e-9);
  one.collectives.push_back({"all_gather", 8, 1, 20, 350});
  EXPECT_NEAR(collective_seconds(one, "all_gather", 8e8, group), 20e-6 + 7e8 / 350e9, 1e-9);
  EXPECT_EQ(collective_seconds(one, "all_gather", 8e8, {1, 1}), 0);
  // One rank a host: eight such groups share the way out.
  EXPECT_NEAR(collective_seconds(one, "all_gather", 8e8, {2, 2}), 20e-6 + 4e8 / (200e9 / 8), 1e-7);
}

// ---- time

TEST(Plan, TheBubbleIsThatOfTheSchedule) {
  config::Recipe recipe = vit_3b("ddp");
  recipe.data.batch_size = 32, recipe.train.micro_batches = 16;
  const Plan plan = plan_of(recipe, {1, 1, 4, 1, 1});
  // (p - 1) / (m + p - 1) of compute and bubble together.
  EXPECT_NEAR(plan.bubble_seconds / (plan.compute_seconds + plan.bubble_seconds), 3.0 / 19, 1e-9);
  EXPECT_EQ(plan_of(recipe, {1, 1, 1, 1, 1}).bubble_seconds, 0);
}

TEST(Plan, PrefetchHidesGathers) {
  config::Recipe recipe = vit_3b("zero3");
  recipe.data.batch_size = 32 * 16;
  const Plan pre = plan_of(recipe, {1, 16, 1, 1, 1});
  recipe.parallel.prefetch.value = "none", recipe.parallel.prefetch_depth = 0;
  const Plan none = plan_of(recipe, {1, 16, 1, 1, 1});
  EXPECT_LT(pre.exposed_seconds, 0.2 * none.exposed_seconds);
  EXPECT_EQ(pre.compute_seconds, none.compute_seconds);
}

// ---- activations

TEST(Plan, ABlockSavesSixteenTimesItsTokens) {
  // The plain ViT block in bf16: input, norm1, 3 qkv, attention, middle, norm2, 4 fc1, 4 gelu = 16 R D, and statistics.
  const config::Recipe recipe = vit_3b("none");
  PlanSubject subject(recipe);
  const PlanTrunk& trunk = subject.trunks()[0];
  BlockView block{.trunk = trunk, .rows = 257, .samples = 1, .tokens = 257, .kv_width = 2816};
  const double statistics = 257.0 * 4 * (2 + 2 + 32);
  EXPECT_EQ(saved_bytes(block), 16.0 * 257 * 2816 * 2 + statistics);
  block.tensor = 4;  // qkv, attention, hidden units are divided; input, norms and middle are not
  EXPECT_EQ(saved_bytes(block), (4 + 12.0 / 4) * 257 * 2816 * 2 + 257.0 * 4 * (2 + 2 + 8));
  EXPECT_EQ(boundary_bytes(block), 257.0 * 2816 * 2);
}

TEST(Plan, APipelineKeepsAsManyPassesAsItsScheduleNeeds) {
  config::Recipe recipe = vit_3b("ddp");
  recipe.data.batch_size = 32, recipe.train.micro_batches = 16;
  PlanSubject subject(recipe);
  const auto kept = [&](const char* schedule) {
    recipe.parallel.pipeline_schedule.value = schedule;
    return bytes_of(make_plan(subject, recipe, machine(), {1, 1, 4, 1, 1}), {"activations kept"});
  };
  const double boundary = 8.0 * 2 * 257 * 2816 * 2;  // 8 blocks, 2 samples
  EXPECT_EQ(kept("1f1b"), 4 * boundary);             // the first stage
  EXPECT_EQ(kept("gpipe"), 16 * boundary);
}

// ---- search

TEST(PlanSearch, FindsOnlyLayoutsThatTheRulesAccept) {
  config::Recipe recipe = vit_3b("zero3");
  recipe.data.batch_size = 64;
  PlanSubject subject(recipe);
  Machine small = machine();
  small.memory_gib = 30;
  const SearchResult found = search_layouts(subject, recipe, small, 16);
  ASSERT_EQ(found.best.size(), 10u);
  EXPECT_GT(found.too_large, 0);
  double before = 1e30;
  for (const Plan& plan : found.best) {
    const config::Recipe one = recipe_of(recipe, plan);
    EXPECT_THAT(config::problems(one), ::testing::IsEmpty());
    EXPECT_EQ(std::accumulate(plan.mesh.begin(), plan.mesh.end(), 1, std::multiplies()), 16);
    EXPECT_EQ(32 % plan.mesh[4], 0) << "heads";
    EXPECT_EQ(64 % (plan.mesh[0] * plan.mesh[1]), 0) << "batch";
    EXPECT_TRUE(plan.fits());
    EXPECT_LE(plan.images_per_second, before * 1.003);  // of equals within 0.2 % the smaller first
    before = plan.images_per_second;
    // What is printed gives the same plan again.
    const Plan again = make_plan(subject, one, small, plan_mesh(one, 16, 8));
    EXPECT_EQ(again.step_seconds, plan.step_seconds);
    EXPECT_EQ(again.peak_bytes, plan.peak_bytes);
  }
}

TEST(PlanSearch, SaysHowMuchIsMissing) {
  config::Recipe recipe = vit_3b("zero3");
  recipe.data.batch_size = 8;
  PlanSubject subject(recipe);
  Machine small = machine();
  small.memory_gib = 1;
  const SearchResult found = search_layouts(subject, recipe, small, 8);
  EXPECT_TRUE(found.best.empty());
  ASSERT_TRUE(found.smallest);
  EXPECT_GT(found.smallest->peak_bytes, 0x1p30);
}

// ---- rehearsal

TEST(PlanGroups, AreThoseOfTheHybridStopExample) {
  // ucf-vit 4.1: tensor 2, shard 2, replicate 2.
  const config::Recipe recipe = tiny("hybrid");
  PlanSubject subject(recipe);
  const Rehearsal played = rehearse(subject, recipe, {2, 2, 1, 1, 2});
  std::map<std::string, std::vector<std::vector<int>>> groups;
  for (const GroupFamily& family : played.families) groups[family.name] = family.groups;
  using Groups = std::vector<std::vector<int>>;
  const auto sorted = [](Groups all) {
    std::ranges::sort(all);
    return all;
  };
  EXPECT_EQ(sorted(groups["tensor"]), (Groups{{0, 1}, {2, 3}, {4, 5}, {6, 7}}));
  EXPECT_EQ(sorted(groups["shard"]), (Groups{{0, 2}, {1, 3}, {4, 6}, {5, 7}}));
  EXPECT_EQ(sorted(groups["replicate"]), (Groups{{0, 4}, {1, 5}, {2, 6}, {3, 7}}));
  EXPECT_EQ(sorted(groups["data"]), (Groups{{0, 2, 4, 6}, {1, 3, 5, 7}}));
}

TEST(PlanGroups, EveryRankOfAThousandHasItsPart) {
  config::Recipe recipe = tiny("zero3");
  recipe.data.batch_size = 1024;
  PlanSubject subject(recipe);
  const auto start = std::chrono::steady_clock::now();
  const Rehearsal played = rehearse(subject, recipe, {4, 32, 2, 2, 2});
  EXPECT_EQ(played.ranks.size(), 1024u);
  EXPECT_LT(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(), 10);
  for (const MeshSizes& sizes :
       {MeshSizes{1, 1, 4, 1, 1}, MeshSizes{2, 1, 2, 1, 2}, MeshSizes{1, 4, 1, 2, 1}})
    EXPECT_NO_THROW(rehearse(subject, recipe, sizes)) << fmt::format("{}", fmt::join(sizes, " "));
}

// ---- machines, meshes, fits

TEST(PlanMachine, ReadsBackWhatItWrites) {
  Machine one = machine();
  one.name = "test", one.collectives.push_back({"all_reduce", 4, 2, 12.5, 88});
  const Machine again = parse_machine(to_yaml(one), "again");
  EXPECT_EQ(to_yaml(again), to_yaml(one));
  EXPECT_EQ(again.collectives.size(), 1u);
  EXPECT_EQ(rate_at(one.gemm_bf16, 100), 400);
  EXPECT_EQ(rate_at(one.gemm_bf16, 9999), 600);
}

TEST(PlanMachine, NamesEveryProblemWithItsPlace) {
  try {
    parse_machine("gpus_per_host: 8\nmemory_gb: 80\ncopy_gb_s: fast\nlinks: {in_host: 3}\n",
                  "bad.yaml");
    FAIL() << "must throw";
  } catch (const core::ConfigError& error) {
    EXPECT_THAT(error.what(), HasSubstr("did you mean 'memory_gib'"));
    EXPECT_THAT(error.what(), HasSubstr("bad.yaml:3:12"));
    EXPECT_THAT(error.what(), HasSubstr("links.in_host must be a map"));
  }
}

TEST(PlanMesh, FollowsTheRecipe) {
  config::Recipe recipe = tiny("zero3");
  EXPECT_EQ(plan_mesh(recipe, 8, 8), (MeshSizes{1, 8, 1, 1, 1}));
  recipe.parallel.strategy.value = "hybrid";
  EXPECT_EQ(plan_mesh(recipe, 32, 8), (MeshSizes{4, 8, 1, 1, 1}));
  recipe.parallel.tensor = 2;
  EXPECT_EQ(plan_mesh(recipe, 32, 8), (MeshSizes{4, 4, 1, 1, 2}));
  recipe.parallel.tensor = 3;
  EXPECT_THROW(plan_mesh(recipe, 32, 8), core::ConfigError);
  recipe.parallel.tensor = 1;
  EXPECT_THROW(plan_mesh(recipe, 48, 8), core::ConfigError) << "48 ranks do not divide 64 samples";
}

TEST(BenchComm, TheLineIsTheOneThatMadeThePoints) {
  std::vector<CommPoint> points;
  for (const int64_t bytes : comm_sizes())
    points.push_back({"all_gather", "f32", bytes,
                      25 + wire_bytes("all_gather", static_cast<double>(bytes), 8) / 300e3, 0});
  const CommFit fit = fit_line(points, 8);
  EXPECT_NEAR(fit.latency_us, 25, 1e-6);
  EXPECT_NEAR(fit.bus_gb_s, 300, 1e-6);
  EXPECT_NEAR(fit.worst_ratio, 1, 1e-9);
}

TEST(BenchComm, MeasuresThreadRanks) {
  CommBenchOptions options;
  options.sizes = {4096, 65536}, options.seconds = 0.01;
  comm::run_thread_group(3, [&](comm::Communicator& world) {
    const CommBench bench = bench_comm(world, world, at::kCPU, "here", options);
    EXPECT_EQ(bench.points.size(), 2u * 6 * 2);
    EXPECT_EQ(bench.fits.size(), 12u);
    EXPECT_EQ(bench.hosts, 1);
    for (const CommPoint& point : bench.points) EXPECT_GT(point.us, 0) << point.kind;
    Machine table = machine();
    update(table, bench, "2026-11-21");
    EXPECT_LE(table.collectives.size(), 6u);
    EXPECT_NO_THROW(parse_machine(to_yaml(table), "table"));
  });
}

}  // namespace
}  // namespace vitrail::train
