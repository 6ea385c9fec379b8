// vitrail convert: other programs' settings as a recipe.

#include "vitrail/config/convert.h"

#include <algorithm>
#include <fstream>
#include <sstream>

#include "vitrail/app/verbs.h"
#include "vitrail/config/layered.h"
#include "vitrail/core/atomic_file.h"
#include "vitrail/core/error.h"

namespace vitrail::app {
namespace {

struct Arguments {
  std::string from, file, recipe, output;
  int64_t ranks = 0;
};

/// What a file's ending says about where it comes from.
std::string system_of(const std::string& file) {
  const auto ends = [&](const char* ending) { return file.ends_with(ending); };
  if (ends(".json")) return "deepspeed";
  if (ends(".toml")) return "torchtitan-mae";
  if (ends(".yaml") || ends(".yml")) return "ucf-vit";
  throw core::ConfigError(fmt::format(
      "[convert] {}: its ending does not say what it is; give --from deepspeed, ucf-vit or "
      "torchtitan-mae",
      file));
}

config::Conversion convert_file(const Arguments& arguments, const config::Recipe& base) {
  const std::string system = arguments.from.empty() ? system_of(arguments.file) : arguments.from;
  const std::string text = config::read_text_file(arguments.file, system);
  const config::ConvertOptions options{.base = base, .data_ranks = arguments.ranks};
  if (system == "deepspeed") return config::convert_deepspeed(text, arguments.file, options);
  if (system == "ucf-vit") return config::convert_ucf_vit(text, arguments.file, options);
  return config::convert_torchtitan_mae(text, arguments.file, options);
}

std::string commented(const std::string& text) {
  std::string lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) lines += "# " + line + "\n";
  return lines;
}

void write(const std::string& path, const std::string& text) {
  core::replace_file(path, [&](const std::string& temporary) {
    std::ofstream file(temporary, std::ios::binary);
    file << text;
    file.close();
    VT_CHECK(file, "[convert] {} must be writable", path);
    return 0;
  });
}

/// The table first, so that a refusal is explained line by line too.
void convert(const Arguments& arguments) {
  const bool adds = !arguments.recipe.empty();
  const std::string below = adds ? config::read_text_file(arguments.recipe) : "";
  const config::Recipe base =
      adds ? config::load_recipe(arguments.recipe, {}).recipe : config::Recipe{};
  const config::Conversion conversion = convert_file(arguments, base);
  const bool to_file = !arguments.output.empty();
  const std::string table = conversion.table();
  fmt::print("{}", to_file ? table : commented(table));
  conversion.throw_if_any();
  const std::string yaml = config::merged_yaml(below, arguments.recipe, conversion.settings);
  config::parse_recipe(yaml, to_file ? arguments.output : "the recipe", {});
  const std::string whole = fmt::format("# From {}{} by `vitrail convert`.\n{}", arguments.file,
                                        adds ? " laid over " + arguments.recipe : "", yaml);
  if (to_file)
    write(arguments.output, whole);
  else
    fmt::print("{}", whole);
}

}  // namespace

void add_convert(Program& program) {
  auto* verb = program.cli.add_subcommand(
      "convert", "make a recipe of a DeepSpeed, UCF-VIT or torchtitan-mae configuration");
  auto arguments = std::make_shared<Arguments>();
  verb->add_option("FILE", arguments->file, "configuration: JSON, YAML or TOML")->required();
  verb->add_option("RECIPE", arguments->recipe, "recipe (YAML) that it is laid over");
  verb->add_option("--from", arguments->from,
                   "deepspeed, ucf-vit or torchtitan-mae; default: by the file's ending")
      ->check(CLI::IsMember({"deepspeed", "ucf-vit", "torchtitan-mae"}));
  verb->add_option("--output", arguments->output,
                   "file for the recipe; default: stdout, with the table as comments");
  verb->add_option("--ranks", arguments->ranks,
                   "data ranks that will run it; default: those that the file is written for")
      ->check(CLI::PositiveNumber);
  verb->callback([&program, arguments] {
    program.selected = [arguments](Session& session) {
      if (session.is_main_rank()) convert(*arguments);
    };
  });
}

}  // namespace vitrail::app
