// vitrail plan: memory, operations, communication and time of a recipe on N GPUs, without one.

#include "vitrail/train/plan.h"

#include <algorithm>

#include "vitrail/app/bench.h"
#include "vitrail/app/verbs.h"
#include "vitrail/core/error.h"
#include "vitrail/train/plan_groups.h"
#include "vitrail/train/plan_search.h"

namespace vitrail::app {
namespace {

struct Arguments {
  RecipeArguments recipe;
  int64_t gpus = 0;
  double gpu_memory = 0;
  std::string machine = "h200-8", json;
  bool search = false, table = false, rehearse = false;
};

/// The GPUs that the recipe's own axes ask for, when they say so; else those of one host.
int64_t default_gpus(const config::Parallel& parallel, const train::Machine& machine) {
  const bool open = parallel.replicate == -1 || parallel.shard.value_or(1) == -1;
  const int64_t inner = parallel.pipeline * parallel.sequence * parallel.tensor;
  if (parallel.strategy == "none") return 1;
  if (open) return std::max(machine.gpus_per_host, inner);
  return parallel.replicate * parallel.shard.value_or(1) * inner;
}

std::string strategies_table(train::PlanSubject& subject, const config::Recipe& recipe,
                             const train::Machine& machine, int64_t gpus) {
  std::vector<train::Plan> plans;
  for (const char* strategy : {"ddp", "zero1", "zero2", "hybrid", "zero3"}) {
    config::Recipe one = recipe;
    one.parallel.strategy.value = strategy;
    one.parallel.replicate = -1;
    one.parallel.shard.reset();
    if (std::string(strategy) == "ddp") one.parallel.shard_optimizer.value = "group";
    plans.push_back(train::make_plan(subject, one, machine,
                                     train::plan_mesh(one, gpus, machine.gpus_per_host)));
  }
  return to_table(plans);
}

void search(train::PlanSubject& subject, const config::Recipe& recipe,
            const train::Machine& machine, const Arguments& arguments) {
  const train::SearchResult found = train::search_layouts(subject, recipe, machine, arguments.gpus);
  VT_REQUIRE(
      ConfigError, !found.best.empty(),
      "[plan] no layout of this recipe on {} GPUs of {:.1f} GiB fits: {} tried, {} against the "
      "rules, {} too large{}",
      arguments.gpus, machine.memory_gib, found.tried, found.refused, found.too_large,
      found.smallest
          ? fmt::format("; the smallest needs {:.1f} GiB ({})",
                        (found.smallest->peak_bytes + found.smallest->context_bytes) / 0x1p30,
                        recipe_lines(*found.smallest))
          : "");
  const train::Plan& best = found.best.front();
  const std::string text = fmt::format(
      "{} layouts of {} GPUs tried, {} against the rules, {} too large\n\n{}\nbest, for the "
      "recipe:\n{}",
      found.tried, arguments.gpus, found.refused, found.too_large, to_table(found.best),
      recipe_lines(best));
  publish(text, to_json(best), arguments.json);
}

void run(Arguments arguments) {
  check_folder("plan", "--json", arguments.json);
  const config::Recipe recipe = arguments.recipe.load(arguments.gpus).recipe;
  train::Machine machine = train::load_machine(arguments.machine, train::machine_folders());
  if (arguments.gpu_memory > 0) machine.memory_gib = arguments.gpu_memory;
  if (arguments.gpus == 0) arguments.gpus = default_gpus(recipe.parallel, machine);
  VT_REQUIRE(ConfigError, arguments.gpus <= machine.gpus_per_host || machine.between_hosts.gb_s > 0,
             "[plan] {} GPUs are more than a host of {} has ({}), and its table has no "
             "links.between_hosts",
             arguments.gpus, machine.name, machine.gpus_per_host);
  train::PlanSubject subject(recipe);
  if (arguments.search) return search(subject, recipe, machine, arguments);
  if (arguments.table) {
    fmt::print("{}", strategies_table(subject, recipe, machine, arguments.gpus));
    return;
  }
  const train::MeshSizes sizes = train::plan_mesh(recipe, arguments.gpus, machine.gpus_per_host);
  const train::Plan plan = train::make_plan(subject, recipe, machine, sizes);
  std::string text = to_text(plan);
  if (arguments.rehearse) text += "\n" + to_text(train::rehearse(subject, recipe, sizes));
  publish(text, to_json(plan), arguments.json);
}

}  // namespace

void add_plan(Program& program) {
  auto* verb = program.cli.add_subcommand(
      "plan", "memory, operations, communication and time of a layout on N GPUs, without one");
  auto arguments = std::make_shared<Arguments>();
  arguments->recipe.add(*verb);
  arguments->recipe.add_deepspeed(*verb);
  verb->add_option("--gpus", arguments->gpus,
                   "GPUs; default: what the recipe's axes need, else one host")
      ->check(CLI::PositiveNumber);
  verb->add_option("--gpu-memory", arguments->gpu_memory, "GiB of one GPU; default: the machine's")
      ->check(CLI::PositiveNumber);
  verb->add_option("--machine", arguments->machine,
                   "table of rates and links: a name in bench/machines, or a file")
      ->capture_default_str();
  verb->add_option("--json", arguments->json, "file for the plan as JSON; - = stdout");
  auto* search =
      verb->add_flag("--search", arguments->search, "try all layouts, show the best that fit");
  auto* table = verb->add_flag("--table", arguments->table, "one line for each strategy");
  auto* rehearse =
      verb->add_flag("--dry-run", arguments->rehearse,
                     "also build the layout and the groups of every rank and check them");
  search->excludes(table)->excludes(rehearse);
  table->excludes(rehearse);
  verb->callback([&program, arguments] {
    program.selected = [arguments](Session& session) {
      if (session.is_main_rank()) run(*arguments);
    };
  });
}

}  // namespace vitrail::app
