// vitrail data inspect | dump: what the sources of a recipe hold, and the samples as the model gets
// them.

#include "vitrail/app/verbs.h"
#include "vitrail/core/error.h"
#include "vitrail/data/dump.h"
#include "vitrail/data/inspect.h"

namespace vitrail::app {
namespace {

struct InspectArguments {
  RecipeArguments recipe;
  std::string contact_sheet;
  int64_t samples = 100'000;
};

struct DumpArguments {
  RecipeArguments recipe;
  std::string output;
  int64_t count = 0, data_rank = 0, data_ranks = 1, epoch = 0;
  bool raw = false;
};

void run_inspect(const InspectArguments& arguments) {
  const config::Recipe recipe = arguments.recipe.load().recipe;
  VT_REQUIRE(ConfigError, arguments.samples >= 1, "[data] --samples must be at least 1 but is {}",
             arguments.samples);
  const auto print = [&](const char* section, const std::vector<config::Source>& sources) {
    for (const config::Source& source : sources)
      fmt::print(
          "{} {}", section,
          to_text(data::inspect(source, recipe.model, recipe.data.workers, arguments.samples)));
  };
  print("data", recipe.data.sources);
  print("eval", recipe.eval.sources);
  if (arguments.contact_sheet.empty()) return;
  data::write_contact_sheet(recipe.data.sources, recipe.model, arguments.contact_sheet);
  fmt::print("wrote {}\n", arguments.contact_sheet);
}

void run_dump(const DumpArguments& arguments) {
  const config::Recipe recipe = arguments.recipe.load().recipe;
  data::LoaderOptions options;
  options.global_batch = recipe.data.batch_size;
  options.data_rank = arguments.data_rank;
  options.data_ranks = arguments.data_ranks;
  options.workers = recipe.data.workers;
  options.prefetch = recipe.data.prefetch;
  options.drop_last = recipe.data.drop_last;
  options.skip_errors = recipe.data.on_error == "skip";
  options.seed = static_cast<uint64_t>(recipe.run.seed);
  options.raw = arguments.raw;
  const data::Dump dump =
      data::dump(recipe.data.sources, recipe.model, options, arguments.epoch, arguments.count);
  data::write(dump, arguments.output);
  fmt::print("wrote {} samples to {}\n", dump.index.size(0), arguments.output);
}

void add_inspect(Program& program, CLI::App& parent) {
  auto* verb =
      parent.add_subcommand("inspect", "what is found: classes, shapes, statistics, broken files");
  auto arguments = std::make_shared<InspectArguments>();
  arguments->recipe.add(*verb);
  verb->add_option("--contact-sheet", arguments->contact_sheet,
                   "PNG file with samples of every training source");
  verb->add_option("--samples", arguments->samples, "samples to decode per source, spread evenly")
      ->capture_default_str();
  verb->callback([&program, arguments] {
    program.selected = [arguments](Session& session) {
      if (session.is_main_rank()) run_inspect(*arguments);
    };
  });
}

void add_dump(Program& program, CLI::App& parent) {
  auto* verb = parent.add_subcommand(
      "dump", "the first samples of the global sequence as the model gets them");
  auto arguments = std::make_shared<DumpArguments>();
  arguments->recipe.add(*verb);
  verb->add_option("--count", arguments->count, "samples of the global sequence")->required();
  verb->add_option("--output", arguments->output, "safetensors file to write")->required();
  verb->add_option("--data-rank", arguments->data_rank, "write the part of this rank")
      ->capture_default_str();
  verb->add_option("--data-ranks", arguments->data_ranks, "ranks that share the sequence")
      ->capture_default_str();
  verb->add_option("--epoch", arguments->epoch, "epoch to begin with")->capture_default_str();
  verb->add_flag("--raw", arguments->raw,
                 "before augmentation and normalisation, values in [0, 1]");
  verb->callback([&program, arguments] {
    program.selected = [arguments](Session& session) {
      if (session.is_main_rank()) run_dump(*arguments);
    };
  });
}

}  // namespace

void add_data(Program& program) {
  auto* verb =
      program.cli.add_subcommand("data", "inspect the sources of a recipe, or dump samples");
  verb->require_subcommand(1);
  add_inspect(program, *verb);
  add_dump(program, *verb);
}

}  // namespace vitrail::app
