// Any layout must give the losses of one rank: tiny models on MPI processes, with drop-path, dropout, two micro-batches
// and clipping. Launched by tests.cmake as
//   mpirun -n N test_parallel_mpi N [words that a layout's name must contain]
// Rank 0 prints a table; the process fails when a layout fails.

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>
#include <vector>

#include "tests/parallel/ranks.h"
#include "vitrail/comm/launch.h"
#include "vitrail/core/error.h"

namespace vitrail {
namespace {

constexpr int64_t kSteps = 10;
// Order of additions in fp32 (eps 6e-8); rounding grows with the updates.
constexpr double kFirst = 1e-6, kAll = 1e-5;

struct Layout {
  std::string strategy;
  int64_t replicate = 1, shard = 1, pipeline = 1, sequence = 1, tensor = 1;
  int64_t ulysses = 0;  // 0 = as many as heads allow
  std::string more;     // a word for what else is on

  int64_t ranks() const { return replicate * shard * pipeline * sequence * tensor; }
  std::string name() const {
    std::string text = strategy;
    const auto add = [&](const char* axis, int64_t size) {
      if (size > 1) text += fmt::format(" {} {}", axis, size);
    };
    add("replicate", replicate), add("shard", shard), add("pipeline", pipeline);
    add("sequence", sequence), add("tensor", tensor);
    if (sequence > 1) text += ulysses > 0 ? fmt::format(" ulysses {}", ulysses) : " ulysses most";
    return more.empty() ? text : text + " " + more;
  }
};

std::vector<Layout> layouts(int64_t ranks) {
  std::vector<Layout> all;
  for (const int64_t n : {2, 4}) {
    all.push_back({"ddp", n});
    for (const char* strategy : {"zero1", "zero2", "zero3"}) all.push_back({strategy, 1, n});
    all.push_back({"none", 1, 1, 1, 1, n});
    all.push_back({"none", 1, 1, 1, 1, n, 0, "split_norms"});
    all.push_back({"none", 1, 1, 1, 1, n, 0, "chunks"});
    all.push_back({"ddp", 1, 1, 1, n, 1, 1});
    all.push_back({"ddp", 1, 1, 1, n, 1, 0});
    all.push_back({"none", 1, 1, n});
    all.push_back({"none", 1, 1, n, 1, 1, 0, "gpipe"});
  }
  all.push_back({"none", 1, 1, 2, 1, 1, 0, "interleaved"});
  all.push_back({"hybrid", 2, 2});
  all.push_back({"hybrid", 2, 2, 1, 1, 1, 0, "optimizer_all"});
  all.push_back({"zero3", 1, 2, 1, 1, 2, 0, "mae"});
  all.push_back({"ddp", 1, 1, 1, 2, 2, 0, "mae"});
  // 8 ranks. The three mixes of the Hybrid-STOP example first.
  all.push_back({"zero3", 2, 2, 1, 1, 2});  // replicate x shard x tensor
  all.push_back({"zero3", 1, 4, 1, 1, 2});  // sharding inside, no replicas
  all.push_back({"ddp", 4, 1, 1, 1, 2});    // replicas only
  all.push_back({"zero3", 1, 2, 1, 2, 2});
  all.push_back({"zero2", 2, 2, 1, 2, 1});
  all.push_back({"zero1", 1, 2, 1, 1, 4});
  all.push_back({"zero3", 1, 2, 2, 1, 2});
  all.push_back({"ddp", 2, 1, 2, 1, 2});
  all.push_back({"zero2", 1, 2, 2, 2, 1});
  all.push_back({"none", 1, 1, 2, 2, 2});
  all.push_back({"zero3", 1, 2, 4});
  all.push_back({"hybrid", 2, 4});
  all.push_back({"hybrid", 2, 2, 1, 2, 1, 1});
  all.push_back({"zero3", 2, 2, 1, 1, 2, 0, "split_norms"});
  all.push_back({"hybrid", 2, 2, 1, 1, 2, 0, "optimizer_all"});
  all.push_back({"zero3", 1, 4, 1, 2, 1, 0, "mae"});
  std::vector<Layout> chosen;
  for (const Layout& layout : all)
    if (layout.ranks() == ranks) chosen.push_back(layout);
  return chosen;
}

config::Recipe recipe_of(const std::string& more) {
  config::Model model = more == "mae" ? testing::tiny_mae() : testing::tiny_vit();
  model.image_size = {8, 8};
  model.patch_size = 2;
  model.num_heads = 4;
  model.drop_path_rate = more == "mae" ? 0.0 : 0.3;
  model.proj_drop_rate = 0.1;
  if (more == "mae") model.decoder_num_heads = 4;
  config::Recipe recipe = testing::tiny_recipe(model);
  recipe.train.micro_batches = 2;
  return recipe;
}

void lay_out(config::Recipe& recipe, const Layout& layout) {
  config::Parallel& parallel = recipe.parallel;
  parallel.strategy.value = layout.strategy;
  parallel.replicate = layout.replicate, parallel.shard = layout.shard;
  parallel.pipeline = layout.pipeline, parallel.sequence = layout.sequence;
  parallel.tensor = layout.tensor;
  if (layout.ulysses > 0) parallel.ulysses = layout.ulysses;
  parallel.split_norms = layout.more == "split_norms";
  if (layout.more == "chunks") parallel.tensor_chunks = 2;
  if (layout.more == "gpipe") parallel.pipeline_schedule.value = "gpipe";
  if (layout.more == "optimizer_all") parallel.shard_optimizer.value = "all";
  if (layout.more == "interleaved") {
    parallel.pipeline_schedule.value = "interleaved";
    parallel.pipeline_parts = 2;
  }
}

std::vector<double> losses_of(comm::Communicator& world, const config::Recipe& recipe) {
  testing::RanksResult result;
  testing::ranks::Collection collection;
  testing::RanksOptions options;
  options.global_batch = 16;
  testing::ranks::run_rank(world, recipe, kSteps, options, result, collection);
  return result.losses;  // on rank 0
}

double worst_of(const std::vector<double>& found, const std::vector<double>& expected,
                size_t steps) {
  double worst = found.size() == expected.size() ? 0.0 : INFINITY;
  for (size_t i = 0; i < std::min(steps, found.size()); ++i) {
    const double difference = std::abs(found[i] - expected[i]) / std::abs(expected[i]);
    worst = std::isfinite(difference) ? std::max(worst, difference) : INFINITY;
  }
  return worst;
}

/// One rank's losses without any layout; of each kind of model once.
const std::vector<double>& expected_of(const std::string& more) {
  static std::map<std::string, std::vector<double>> known;
  std::vector<double>& losses = known[more == "mae" ? more : ""];
  if (losses.empty())
    losses = losses_of(*comm::self_communicator(), testing::alone(recipe_of(more)));
  return losses;
}

int run(int argc, char** argv) {
  const comm::Launch launch = comm::detect_launch();
  const int wanted = argc > 1 ? std::atoi(argv[1]) : 0;
  VT_CHECK(launch.size == wanted, "test_parallel_mpi needs mpirun -n {} but runs as {}", wanted,
           launch.describe());
  const auto world = comm::world_communicator(launch);
  double worst_first = 0, worst_all = 0;
  int failed = 0, count = 0;
  for (const Layout& layout : layouts(wanted)) {
    if (argc > 2 && layout.name().find(argv[2]) == std::string::npos) continue;
    config::Recipe recipe = recipe_of(layout.more);
    lay_out(recipe, layout);
    std::string problem;
    std::vector<double> found;
    try {
      found = losses_of(*world, recipe);
    } catch (const core::ConfigError& error) {  // alike on every rank
      problem = error.what();
    }
    ++count;
    if (world->rank() != 0) continue;
    const std::vector<double>& expected = expected_of(layout.more);
    const double first = worst_of(found, expected, 1), all = worst_of(found, expected, SIZE_MAX);
    const bool passed = problem.empty() && first <= kFirst && all <= kAll;
    worst_first = std::max(worst_first, first), worst_all = std::max(worst_all, all);
    failed += passed ? 0 : 1;
    std::printf("%-58s %9.2g %9.2g  %s\n", layout.name().c_str(), first, all,
                passed ? "ok" : "FAILED");
    if (!problem.empty()) std::printf("    %s\n", problem.c_str());
    std::fflush(stdout);
  }
  if (world->rank() == 0) {
    const std::vector<double>& expected = expected_of("");
    std::printf("one rank: loss %.6f, after %d steps %.6f\n", expected.front(),
                static_cast<int>(kSteps), expected.back());
    std::printf(
        "%d layouts of %d ranks: worst first step %.2g (allowed %.0e), %d steps %.2g "
        "(allowed %.0e)\n",
        count, wanted, worst_first, kFirst, static_cast<int>(kSteps), worst_all, kAll);
}
return comm::max(*world, failed) > 0 ? 1 : 0;
}

}  // namespace
}  // namespace vitrail

int main(int argc, char** argv) {
  try {
    return vitrail::run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 3;
  }
}
