// `vitrail weights`: import, export, inspect and diff of weights files.

#include "vitrail/models/weights.h"

#include <fmt/format.h>

#include "vitrail/app/verbs.h"

namespace vitrail::app {
namespace {

struct Arguments {
  std::string file, other, output;
  std::string from = "auto", to = "timm";
};
using Work = void (*)(const Arguments& arguments);

void import(const Arguments& arguments) {
  const int64_t count = models::import_weights(arguments.file, arguments.from, arguments.output);
  fmt::print("{}: {} tensors\n", arguments.output, count);
}

void export_(const Arguments& arguments) {
  const int64_t count = models::export_weights(arguments.file, arguments.to, arguments.output);
  fmt::print("{}: {} tensors, names as in {}\n", arguments.output, count, arguments.to);
}

void inspect(const Arguments& arguments) {
  fmt::print("{}", models::inspect_weights(arguments.file));
}

void diff(const Arguments& arguments) {
  fmt::print("{}", models::diff_weights(arguments.file, arguments.other));
}

CLI::App* add(Program& program, CLI::App& verb, const char* name, const char* text,
              const std::shared_ptr<Arguments>& arguments, Work work) {
  CLI::App* sub = verb.add_subcommand(name, text);
  sub->add_option("FILE", arguments->file, "safetensors file")->required();
  sub->callback([&program, arguments, work] {
    program.selected = [arguments, work](Session&) { work(*arguments); };
  });
  return sub;
}

}  // namespace

void add_weights(Program& program) {
  auto* verb =
      program.cli.add_subcommand("weights", "import, export, inspect and compare weights files");
  verb->require_subcommand(1);
  auto arguments = std::make_shared<Arguments>();
  CLI::App* sub =
      add(program, *verb, "import", "another program's names to ours", arguments, import);
  sub->add_option("--from", arguments->from, "naming scheme of FILE")
      ->check(CLI::IsMember({"auto", "vitrail", "timm", "mae", "hf"}));
  sub->add_option("--output", arguments->output, "safetensors file to write")->required();
  sub = add(program, *verb, "export", "our names to another program's", arguments, export_);
  sub->add_option("--to", arguments->to, "naming scheme to write")
      ->check(CLI::IsMember({"vitrail", "timm", "mae", "hf"}))
      ->required();
  sub->add_option("--output", arguments->output, "safetensors file to write")->required();
  add(program, *verb, "inspect", "names, types, shapes and counts", arguments, inspect);
  sub = add(program, *verb, "diff", "tensors that differ, with the largest absolute difference",
            arguments, diff);
  sub->add_option("OTHER", arguments->other, "safetensors file to compare with")->required();
}

}  // namespace vitrail::app
