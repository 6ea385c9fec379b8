// vitrail check: validates a recipe and prints it resolved, with the origin of every value.

#include "vitrail/app/verbs.h"

namespace vitrail::app {

namespace {

struct Arguments {
  std::string path;
  std::vector<std::string> overrides;
  bool reference = false;
  bool no_origin = false;
};

void check(const Arguments& arguments) {
  if (arguments.reference) {
    fmt::print("{}", config::recipe_reference_markdown());
    return;
  }
  VT_REQUIRE(ConfigError, !arguments.path.empty(),
             "[check] a recipe file must be given; see vitrail check --help");
  const config::ResolvedRecipe resolved = config::load_recipe(arguments.path, arguments.overrides);
  fmt::print("{}",
             arguments.no_origin ? config::to_yaml(resolved.recipe) : config::to_yaml(resolved));
}

}  // namespace

void add_check(Program& program) {
  auto* verb = program.cli.add_subcommand(
      "check", "validate a recipe and print it resolved, with the origin of every value");
  auto arguments = std::make_shared<Arguments>();
  verb->add_option("RECIPE", arguments->path, "recipe file (YAML)");
  verb->add_option("overrides", arguments->overrides,
                   "key.path=value, e.g. train.optimizer.lr=3e-4 data.sources[0].root=/data");
  verb->add_flag("--reference", arguments->reference,
                 "print the reference of all keys (Markdown) instead");
  verb->add_flag("--no-origin", arguments->no_origin, "leave out where each value came from");
  verb->callback([&program, arguments] {
    program.selected = [arguments](Session& session) {
      if (session.is_main_rank()) check(*arguments);
    };
  });
}

}  // namespace vitrail::app
