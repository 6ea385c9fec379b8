// vitrail report: (re)builds the HTML report of one run, or a comparison of several.

#include "vitrail/train/report.h"

#include "vitrail/app/verbs.h"

namespace vitrail::app {

namespace {

struct Arguments {
  std::vector<std::string> folders;
  std::string output;
};

}  // namespace

void add_report(Program& program) {
  auto* verb = program.cli.add_subcommand(
      "report", "build the HTML report of a run, or a comparison of several runs");
  auto arguments = std::make_shared<Arguments>();
  verb->add_option("RUN_FOLDER", arguments->folders, "folder(s) of runs, e.g. runs/digits")
      ->required();
  verb->add_option(
      "--output", arguments->output,
      "file to write; default: RUN_FOLDER/report.html, or comparison.html for several runs");
  verb->callback([&program, arguments] {
    program.selected = [arguments](Session&) {
      const bool one = arguments->folders.size() == 1;
      const std::string path =
          one ? train::write_report(arguments->folders.front(), arguments->output)
              : train::write_comparison(arguments->folders, arguments->output.empty()
                                                                ? "comparison.html"
                                                                : arguments->output);
      fmt::print("{}\n", path);
    };
  });
}

}  // namespace vitrail::app
