// vitrail balance: how many data ranks each source of a recipe gets.

#include "vitrail/data/balance.h"

#include "vitrail/app/verbs.h"

namespace vitrail::app {
namespace {

struct Arguments {
  RecipeArguments recipe;
  int64_t ranks = 0;
  bool json = false;
};

void run(const Arguments& arguments) {
  const data::Balance balance =
      data::balance_recipe(arguments.recipe.load().recipe, arguments.ranks);
  if (arguments.json)
    fmt::print("{}\n", to_json(balance));
  else
    fmt::print("{}", to_text(balance));
}

}  // namespace

void add_balance(Program& program) {
  auto* verb =
      program.cli.add_subcommand("balance", "data ranks of each source, by what it costs to read");
  auto arguments = std::make_shared<Arguments>();
  arguments->recipe.add(*verb);
  verb->add_option("--ranks", arguments->ranks, "data ranks to share out")->required();
  verb->add_flag("--json", arguments->json, "print one JSON object");
  verb->callback([&program, arguments] {
    program.selected = [arguments](Session& session) {
      if (session.is_main_rank()) run(*arguments);
    };
  });
}

}  // namespace vitrail::app
