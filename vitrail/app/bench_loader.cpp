// vitrail bench loader: what a recipe's data pipeline delivers with nothing behind it.

#include "vitrail/data/bench_loader.h"

#include <memory>
#include <string>

#include "vitrail/app/bench.h"
#include "vitrail/data/augment_batch.h"
#include "vitrail/parallel/device.h"
#include "vitrail/train/assembly.h"

namespace vitrail::app {
namespace {

struct Arguments {
  RecipeArguments recipe;
  data::LoaderBenchOptions options;
  std::string device = "auto", json;
};

void run(const Arguments& arguments) {
  check_folder("bench", "--json", arguments.json);
  const config::Recipe recipe = arguments.recipe.load().recipe;
  const at::Device device = bench_device(arguments.device);
  parallel::set_device(device);
  data::LoaderBenchOptions options = arguments.options;
  if (device.is_cuda()) {
    options.deliver = [&recipe, device](data::Batch batch) {
      data::augmented(train::on_device(std::move(batch), device), recipe.model.image_size);
    };
    options.settle = [device] { parallel::synchronize(device); };
  }
  const data::LoaderOptions loader = data::loader_options(recipe, 0, 1, device.is_cuda());
  data::LoaderBench result = data::bench_loader(recipe, arguments.recipe.path(), loader, options);
  result.machine = parallel::device_name(at::kCPU);
  if (device.is_cuda()) result.device = parallel::device_name(device);
  publish(describe(result), to_json(result), arguments.json);
}

}  // namespace

void add_bench_loader(CLI::App& bench, Program& program) {
  auto* verb = bench.add_subcommand(
      "loader",
      "images/s of a recipe's training data with no model behind it, and where the time goes");
  auto arguments = std::make_shared<Arguments>();
  arguments->recipe.add(*verb);
  verb->add_option("--runs", arguments->options.runs, "the median of them is reported")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  verb->add_option("--batches", arguments->options.batches,
                   "batches of a run; 0 = as many as come in --seconds")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  verb->add_option("--seconds", arguments->options.seconds, "length of a run")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  verb->add_option("--warmup", arguments->options.warmup, "batches before the first run")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  verb->add_option("--stages", arguments->options.stages,
                   "samples whose reading, decoding and transform are timed one by one; 0 = none")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  verb->add_option("--device", arguments->device,
                   "cuda (or auto where a GPU is): each batch is also uploaded and augmented there")
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
