// vitrail checkpoint: list, verify, diff, prune, export and reshard saved states.

#include "vitrail/train/checkpoint.h"

#include <algorithm>

#include <fmt/format.h>

#include "vitrail/app/verbs.h"
#include "vitrail/config/recipe.h"
#include "vitrail/core/error.h"
#include "vitrail/core/text.h"
#include "vitrail/train/checkpoint_export.h"
#include "vitrail/train/checkpoint_reshard.h"

namespace vitrail::app {

namespace {

struct Arguments {
  std::string path, other, output;
  bool full = false, ema = false;
  int64_t keep = 3;
  int ranks = 0;
  std::vector<std::string> overrides;
};

void list(const Arguments& arguments) {
  const auto paths = train::list_checkpoints(arguments.path);
  VT_REQUIRE(CheckpointError, !paths.empty(), "[checkpoint] {}: holds no folder step-*",
             arguments.path);
  for (const std::string& path : paths)
    fmt::print("{}\n", train::describe_checkpoint(path, arguments.full));
}

void verify(const Arguments& arguments) {
  auto paths = train::list_checkpoints(arguments.path);
  if (paths.empty()) paths = {arguments.path};
  std::string problems;
  for (const std::string& path : paths) {
    const std::string reason = train::why_invalid(path, arguments.full);
    if (reason.empty())
      fmt::print("{}: valid{}\n", path,
                 arguments.full ? ", every byte" : " (sizes only; --full reads every byte)");
    else
      problems += reason + "\n";
  }
  if (!problems.empty()) throw core::CheckpointError(problems);
}

void diff(const Arguments& arguments) {
  const train::CheckpointReader a(train::resolve_checkpoint(arguments.path));
  const train::CheckpointReader b(train::resolve_checkpoint(arguments.other));
  fmt::print("{}", train::describe_difference(a, b));
}

void prune(const Arguments& arguments) {
  for (const std::string& path :
       train::prune_checkpoints(arguments.path, arguments.keep, /*full=*/true))
    fmt::print("removed {}\n", path);
}

void export_weights(const Arguments& arguments) {
  const auto count = train::export_parameters(arguments.path, arguments.ema, arguments.output);
  fmt::print("{}: {} tensors\n", arguments.output, count);
}

/// Without overrides equal shares of whole tensors; with them the layout that the checkpoint's own recipe then gives.
void reshard(const Arguments& arguments) {
  const train::CheckpointReader checkpoint(train::resolve_checkpoint(arguments.path));
  const train::RankPlan plan =
      arguments.overrides.empty()
          ? train::undivided_plan(checkpoint, std::max(arguments.ranks, 1))
          : train::plan_of(checkpoint,
                           config::parse_recipe(checkpoint.info().recipe,
                                                checkpoint.path() + "/manifest.json: recipe",
                                                arguments.overrides)
                               .recipe,
                           arguments.ranks);
  const train::Resharded done = train::reshard_checkpoint(checkpoint, arguments.output, plan);
  fmt::print("{}: {} files, {}\n", done.path, done.files, core::format_bytes(done.bytes));
}

/// One of the verb's own subcommands.
CLI::App* add(Program& program, CLI::App& verb, const std::shared_ptr<Arguments>& arguments,
              const char* name, const char* help, void (*action)(const Arguments&)) {
  CLI::App* sub = verb.add_subcommand(name, help);
  sub->callback([&program, arguments, action] {
    program.selected = [arguments, action](Session& session) {
      if (session.is_main_rank()) action(*arguments);
    };
  });
  return sub;
}

}  // namespace

void add_checkpoint(Program& program) {
  CLI::App& verb = *program.cli.add_subcommand(
      "checkpoint", "list, verify, compare, prune, export and reshard checkpoints");
  verb.require_subcommand(1);
  auto arguments = std::make_shared<Arguments>();
  const char* folder = "run folder, or folder that holds step-*";

  auto* sub =
      add(program, verb, arguments, "list", "step, time, size, and whether each is valid", list);
  sub->add_option("FOLDER", arguments->path, folder)->required();
  sub->add_flag("--full", arguments->full, "read every byte and compare checksums");

  sub = add(program, verb, arguments, "verify", "check one checkpoint, or all of a folder", verify);
  sub->add_option("PATH", arguments->path, "checkpoint, run folder, or folder that holds step-*")
      ->required();
  sub->add_flag("--full", arguments->full, "read every byte and compare checksums");

  sub = add(program, verb, arguments, "diff",
            "largest difference of each tensor, and of the counters", diff);
  sub->add_option("A", arguments->path, "checkpoint or run folder")->required();
  sub->add_option("B", arguments->other, "checkpoint or run folder")->required();

  sub =
      add(program, verb, arguments, "prune", "remove all but the newest valid checkpoints", prune);
  sub->add_option("FOLDER", arguments->path, folder)->required();
  sub->add_option("--keep", arguments->keep, "valid checkpoints to keep")
      ->check(CLI::PositiveNumber)
      ->required();

  sub = add(program, verb, arguments, "export", "write the weights to one safetensors file",
            export_weights);
  sub->add_option("PATH", arguments->path, "checkpoint or run folder")->required();
  sub->add_option("--output", arguments->output, "file to write")->required();
  sub->add_flag("--ema", arguments->ema, "the moving average instead of the weights");

  sub =
      add(program, verb, arguments, "reshard",
          "write a checkpoint again as another number of ranks, or another layout, would", reshard);
  sub->add_option("PATH", arguments->path, "checkpoint or run folder")->required();
  sub->add_option("overrides", arguments->overrides,
                  "key.path=value of the checkpoint's recipe, e.g. parallel.strategy=zero3 "
                  "parallel.shard=4 parallel.tensor=2; none: equal shares of whole tensors");
  sub->add_option("--output", arguments->output, "folder for step-N")->required();
  sub->add_option("--ranks", arguments->ranks, "files to write, one for each rank")
      ->check(CLI::PositiveNumber);
}

}  // namespace vitrail::app
