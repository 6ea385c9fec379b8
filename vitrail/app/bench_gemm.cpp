// vitrail bench gemm: the matrix products of a recipe's blocks, as the library chooses and as timing finds best.

#include "vitrail/train/bench_gemm.h"

#include <memory>
#include <string>

#include "vitrail/app/bench.h"

namespace vitrail::app {
namespace {

struct Arguments {
  RecipeArguments recipe;
  train::GemmBenchOptions options;
  std::string device = "auto", json;
};

void run(const Arguments& arguments) {
  check_folder("bench", "--json", arguments.json);
  check_folder("bench", "--table", arguments.options.table);
  const config::Recipe recipe = arguments.recipe.load().recipe;
  const train::GemmBench result = train::bench_gemm(
      recipe, arguments.recipe.path(), arguments.options, bench_device(arguments.device));
  publish(train::describe(result), train::to_json(result), arguments.json);
}

}  // namespace

void add_bench_gemm(CLI::App& bench, Program& program) {
  auto* verb = bench.add_subcommand(
      "gemm", "matrix products of a recipe's blocks: the library's own choice against the fastest");
  auto arguments = std::make_shared<Arguments>();
  arguments->recipe.add(*verb);
  verb->add_option("--seconds", arguments->options.seconds, "timed for each shape")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  verb->add_option("--table", arguments->options.table, "file for the choices");
  verb->add_option("--device", arguments->device, "auto, cpu or cuda")
      ->check(CLI::IsMember({"auto", "cpu", "cuda"}))
      ->capture_default_str();
  verb->add_option("--json", arguments->json, "file for the result as JSON; - = stdout");
  verb->callback([&program, arguments] {
    program.selected = [arguments](Session& session) {
      if (session.is_main_rank()) run(*arguments);
    };
  });
}

}  // namespace vitrail::app
