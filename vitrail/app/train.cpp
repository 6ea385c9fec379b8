// vitrail train: trains, evaluates, checkpoints, reports.

#include <fstream>
#include <sstream>

#include "vitrail/app/verbs.h"
#include "vitrail/app/version.h"
#include "vitrail/train/loop.h"

namespace vitrail::app {

namespace {

struct Arguments {
  RecipeArguments recipe;
  train::TrainOptions options;
};

/// The arguments as they were typed, as far as Linux tells.
std::string command_line() {
  std::ifstream in("/proc/self/cmdline", std::ios::binary);
  std::ostringstream text;
  const char* separator = "";
  for (std::string argument; std::getline(in, argument, '\0'); separator = " ")
    text << separator << argument;
  return text.str();
}

}  // namespace

void add_train(Program& program) {
  auto* verb =
      program.cli.add_subcommand("train", "train, evaluate, save checkpoints and write the report");
  auto arguments = std::make_shared<Arguments>();
  arguments->recipe.add(*verb);
  arguments->recipe.add_deepspeed(*verb);
  verb->add_option(
          "--resume", arguments->options.resume,
          "auto: newest valid checkpoint of the run, if any; never; or a checkpoint or run folder")
      ->capture_default_str();
  verb->add_flag("--dry-run", arguments->options.dry_run,
                 "build everything and print the plan, but run no step");
  verb->add_option("--trace", arguments->options.trace,
                   "file for a timeline of steps 10 to 12 (chrome://tracing, ui.perfetto.dev)");
  verb->callback([&program, arguments] {
    program.selected = [arguments](Session& session) {
      const config::ResolvedRecipe resolved = arguments->recipe.load(session);
      if (session.is_main_rank() && !arguments->recipe.converted().empty())
        fmt::print("{}\n", arguments->recipe.converted());
      arguments->options.launch = session.launch();
      arguments->options.version = program_version();
      arguments->options.libraries = version_text();
      arguments->options.command_line = command_line();
      train::run_training(resolved, session.world(), arguments->options);
    };
  });
}

}  // namespace vitrail::app
