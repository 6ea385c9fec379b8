// vitrail bench: times of single parts, each beside what bounds it.

#include "vitrail/app/bench.h"

#include <cstdio>
#include <fstream>
#include <memory>

#include "vitrail/app/version.h"
#include "vitrail/core/error.h"
#include "vitrail/parallel/device.h"
#include "vitrail/train/bench_optimizer.h"
#include "vitrail/train/bench_step.h"

namespace vitrail::app {

void publish(const std::string& line, const std::string& object, const std::string& json) {
  if (json == "-") {
    fmt::print("{}\n", object);
    return;
  }
  fmt::print("{}\n", line);
  if (json.empty()) return;
  std::ofstream file(json);
  file << object << '\n';
  file.close();
  VT_CHECK(file, "[bench] {} must be writable", json);
}

at::Device bench_device(const std::string& name) {
  const bool gpu = name == "cuda" || (name == "auto" && parallel::gpu_count() > 0);
  VT_REQUIRE(ConfigError, !gpu || parallel::gpu_count() > 0,
             "[bench] --device cuda needs a visible GPU but there is none");
  return gpu ? at::Device(at::kCUDA, 0) : at::Device(at::kCPU);
}

namespace {

void add_optimizer(CLI::App& bench, Program& program) {
  struct Arguments {
    int64_t count = 25'165'824;
    std::string device = "auto", json;
    bool bf16 = false;
  };
  auto* verb = bench.add_subcommand(
      "optimizer", "one AdamW update against a copy of the same bytes and torch's own");
  auto arguments = std::make_shared<Arguments>();
  verb->add_option("--count", arguments->count, "elements")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  verb->add_option("--device", arguments->device, "auto, cpu or cuda")
      ->check(CLI::IsMember({"auto", "cpu", "cuda"}))
      ->capture_default_str();
  verb->add_flag("--bf16", arguments->bf16, "also write bf16 compute weights");
  verb->add_option("--json", arguments->json, "file for the result as JSON; - = stdout");
  verb->callback([&program, arguments] {
    program.selected = [arguments](Session&) {
      check_folder("bench", "--json", arguments->json);
      const auto result = train::bench_optimizer(arguments->count, bench_device(arguments->device),
                                                 arguments->bf16);
      publish(train::describe(result), train::to_json(result), arguments->json);
    };
  });
}

void add_step(CLI::App& bench, Program& program) {
  struct Arguments {
    RecipeArguments recipe;
    train::StepBenchOptions options;
    std::string json;
  };
  auto* verb = bench.add_subcommand(
      "step",
      "whole training steps of a recipe on random data; under mpirun on all ranks in the recipe's "
      "layout");
  auto arguments = std::make_shared<Arguments>();
  arguments->recipe.add(*verb);
  arguments->recipe.add_deepspeed(*verb);
  verb->add_option("--steps", arguments->options.steps, "timed steps")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  verb->add_option("--warmup", arguments->options.warmup, "steps before")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  verb->add_flag(
      "--ceiling", arguments->options.ceiling,
      "also time the bare matrix products, attention and optimizer bytes at the same shapes");
  verb->add_option(
      "--profile", arguments->options.profile,
      "on a GPU: file for a Chrome trace of three more steps with every kernel; prints the longest "
      "kernels and the host's calls that allocate or wait");
  verb->add_option("--json", arguments->json, "file for the result as JSON; - = stdout");
  verb->callback([&program, arguments] {
    program.selected = [arguments](Session& session) {
      if (session.is_main_rank()) check_folder("bench", "--profile", arguments->options.profile);
      if (session.is_main_rank()) check_folder("bench", "--json", arguments->json);
      const auto resolved = arguments->recipe.load(session);
      arguments->options.launch = session.launch();
      arguments->options.version = program_version();
      const auto result = train::bench_step(resolved, session.world(), arguments->recipe.path(),
                                            arguments->options);
      if (!session.is_main_rank()) return;
      publish(train::describe(result), train::to_json(result), arguments->json);
    };
  });
}

}  // namespace

void add_bench(Program& program) {
  auto* bench =
      program.cli.add_subcommand("bench", "times of single parts, each beside what bounds it");
  bench->require_subcommand(1);
  add_optimizer(*bench, program);
  add_step(*bench, program);
  add_bench_attention(*bench, program);
  add_bench_comm(*bench, program);
  add_bench_gemm(*bench, program);
  add_bench_loader(*bench, program);
  add_bench_patch(*bench, program);
}

}  // namespace vitrail::app
