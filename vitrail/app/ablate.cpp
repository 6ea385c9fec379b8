// vitrail ablate: trains every combination of a study's changes with every seed and puts the numbers into one table.

#include "vitrail/train/ablate.h"

#include <cstdio>
#include <filesystem>

#include "vitrail/app/verbs.h"
#include "vitrail/core/error.h"

namespace vitrail::app {

namespace {

struct Arguments {
  std::string study;
  train::AblateOptions options;
};

void ablate(Arguments& arguments, Session& session) {
  VT_REQUIRE(ConfigError, session.launch().size == 1,
             "[ablate] must be started as one process, which starts the runs itself, but got {}",
             session.launch().size);
  arguments.options.program = std::filesystem::read_symlink("/proc/self/exe").string();
  arguments.options.say = [](const std::string& line) {
    fmt::print("{}\n", line);
    std::fflush(stdout);
  };
  train::run_study(config::load_study(arguments.study), arguments.options);
}

}  // namespace

void add_ablate(Program& program) {
  auto* verb = program.cli.add_subcommand(
      "ablate", "train every combination of a study's changes with every seed, and compare them");
  auto arguments = std::make_shared<Arguments>();
  verb->add_option("STUDY", arguments->study, "study file (YAML), e.g. recipes/studies/digits.yaml")
      ->required();
  verb->add_flag("--dry-run", arguments->options.dry_run,
                 "print cells and runs with what is there of them, and start nothing");
  verb->add_option("--jobs", arguments->options.jobs,
                   "runs at once; default: one a GPU, or one where there is none");
  verb->add_option("--only", arguments->options.only,
                   "regular expression: start only runs CELL/seed-S in which it is found");
  verb->callback([&program, arguments] {
    program.selected = [arguments](Session& session) { ablate(*arguments, session); };
  });
}

}  // namespace vitrail::app
