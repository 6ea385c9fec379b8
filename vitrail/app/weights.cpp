// `vitrail weights`: import, export, inspect and diff of weights files.

#include "vitrail/models/weights.h"

#include <fmt/format.h>

#include "vitrail/app/verbs.h"

namespace vitrail::app {
namespace {

struct Arguments {
  RecipeArguments recipe;
  std::string file, other, output;
  std::string from = "auto", to = "timm";
  std::vector<int64_t> image_size;
};
using Work = void (*)(const Arguments& arguments);

void print(const std::string& output, const models::Converted& converted) {
  for (const std::string& line : converted.lines) fmt::print("{}\n", line);
  fmt::print("{}: {} tensors, names of {} became those of {}\n", output, converted.tensors,
             models::name(converted.from), models::name(converted.to));
}

void import(const Arguments& arguments) {
  print(arguments.output, models::import_weights(arguments.file, arguments.from, arguments.output,
                                                 arguments.image_size));
}

void export_(const Arguments& arguments) {
  print(arguments.output, models::export_weights(arguments.file, arguments.to, arguments.output,
                                                 arguments.image_size));
}

/// What a run that starts from FILE would start with.
void adapt(const Arguments& arguments) {
  const config::Recipe recipe = arguments.recipe.load().recipe;
  const auto model = models::make_model(recipe.model, static_cast<uint64_t>(recipe.run.seed));
  models::LoadOptions options = models::load_options(recipe.model);
  options.from = arguments.from;
  options.adapt = true;
  const models::LoadReport report = models::load_weights(*model, arguments.file, options);
  models::save_weights(*model, arguments.output);
  for (const std::string& line : report.lines()) fmt::print("{}\n", line);
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
  auto* verb = program.cli.add_subcommand(
      "weights", "import, export, adapt, inspect and compare weights files");
  verb->require_subcommand(1);
  auto arguments = std::make_shared<Arguments>();
  const std::vector<std::string> known = models::naming_words();
  std::vector<std::string> known_or_auto = known;
  known_or_auto.insert(known_or_auto.begin(), "auto");
  const auto add_output = [&](CLI::App* sub) {
    sub->add_option("--output", arguments->output, "safetensors file to write")->required();
  };
  const auto add_from = [&](CLI::App* sub) {
    sub->add_option("--from", arguments->from,
                    "naming scheme of FILE; auto: by names that only one has")
        ->check(CLI::IsMember(known_or_auto));
  };
  const auto add_image_size = [&](CLI::App* sub) {
    sub->add_option(
           "--image-size", arguments->image_size,
           "sides of the image; for ucf-vit with adaptive positions, which count in pixels")
        ->delimiter(',');
  };
  CLI::App* sub =
      add(program, *verb, "import", "another program's names to ours", arguments, import);
  add_from(sub), add_image_size(sub), add_output(sub);
  sub = add(program, *verb, "export", "our names to another program's", arguments, export_);
  sub->add_option("--to", arguments->to, "naming scheme to write")
      ->check(CLI::IsMember(known))
      ->required();
  add_image_size(sub), add_output(sub);
  sub = add(program, *verb, "adapt",
            "make weights fit the model of a recipe: positions, patches, channels, head", arguments,
            adapt);
  arguments->recipe.add(*sub);
  add_from(sub), add_output(sub);
  add(program, *verb, "inspect", "names, types, shapes and counts", arguments, inspect);
  sub = add(program, *verb, "diff", "tensors that differ, with the largest absolute difference",
            arguments, diff);
  sub->add_option("OTHER", arguments->other, "safetensors file to compare with")->required();
}

}  // namespace vitrail::app
