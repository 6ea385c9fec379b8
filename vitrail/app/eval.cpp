// vitrail eval: metrics of saved weights on held-out data.

#include <unistd.h>

#include "vitrail/app/verbs.h"
#include "vitrail/app/version.h"
#include "vitrail/train/evaluate.h"
#include "vitrail/train/probe_run.h"

namespace vitrail::app {

namespace {

struct Arguments {
  RecipeArguments recipe;
  train::EvaluateOptions options;
  std::string probe;
  bool json = false;
};

void print_table(const train::SplitResult& result) {
  fmt::print("{:<20}{:>12}\n", result.split, "value");
  fmt::print("{:<20}{:>12}\n", "samples", result.samples);
  for (const auto& [name, value] : result.metrics) fmt::print("{:<20}{:>12.6g}\n", name, value);
}

}  // namespace

void add_eval(Program& program) {
  auto* verb =
      program.cli.add_subcommand("eval", "print the metrics of saved weights on held-out data");
  auto arguments = std::make_shared<Arguments>();
  arguments->recipe.add(*verb);
  arguments->recipe.add_deepspeed(*verb);
  verb->add_option("--weights", arguments->options.weights,
                   "safetensors file, checkpoint folder or run folder; default: newest valid "
                   "checkpoint of the run");
  verb->add_option(
      "--split", arguments->options.split,
      "name of one of eval.sources, or 'train' for data.sources; default: all of eval.sources");
  verb->add_option("--probe", arguments->probe,
                   "instead of the model's own metrics: teach a classifier on the frozen encoder's "
                   "features of data.sources and score it on eval.sources")
      ->check(CLI::IsMember({"linear", "knn"}));
  verb->add_flag("--json", arguments->json, "one JSON line a split, also on a terminal");
  verb->callback([&program, arguments] {
    program.selected = [arguments](Session& session) {
      const config::ResolvedRecipe resolved = arguments->recipe.load(session);
      arguments->options.launch = session.launch();
      arguments->options.version = program_version();
      const auto results =
          arguments->probe.empty()
              ? train::evaluate_recipe(resolved, session.world(), arguments->options)
              : train::probe_recipe(resolved, session.world(), arguments->probe,
                                    arguments->options);
      if (!session.is_main_rank()) return;
      const bool table = !arguments->json && ::isatty(STDOUT_FILENO) == 1;
      for (const train::SplitResult& result : results) {
        if (table)
          print_table(result);
        else
          fmt::print("{}\n", train::to_json(result));
      }
    };
  });
}

}  // namespace vitrail::app
