// vitrail data inspect | dump: what the sources of a recipe hold, and the samples as the model gets
// them.

#include <cstdio>

#include <unistd.h>

#include "vitrail/app/output.h"
#include "vitrail/app/verbs.h"
#include "vitrail/core/clock.h"
#include "vitrail/core/error.h"
#include "vitrail/data/dump.h"
#include "vitrail/data/inspect.h"

namespace vitrail::app {
namespace {

struct InspectArguments {
  RecipeArguments recipe;
  std::string contact_sheet, statistics;
  bool json = false;
  int64_t samples = 100'000;
};

struct DumpArguments {
  RecipeArguments recipe;
  std::string output;
  int64_t count = 0, data_rank = 0, data_ranks = 1, epoch = 0;
  bool raw = false;
};

/// A line on the terminal that is written over until the source is read; nothing where stderr is a
/// file or the source is small.
data::Progress progress_of(const std::string& name) {
  if (isatty(STDERR_FILENO) == 0) return {};
  const auto clock = std::make_shared<core::Stopwatch>();
  return [name, clock, shown = false](int64_t done, int64_t total) mutable {
    constexpr double kQuietSeconds = 1.0;
    const bool is_last = done == total;
    if (is_last ? !shown : clock->seconds() < kQuietSeconds) return;
    clock->restart();
    shown = true;
    fmt::print(stderr, "\r\033[K{}",
               is_last ? "" : fmt::format("{}: {} of {} read", name, done, total));
    std::fflush(stderr);
  };
}

/// Those of section data: what is evaluated is scaled as what was trained on.
void write_training_statistics(
    const std::vector<std::pair<std::string, data::SourceReport>>& reports,
    const std::string& path) {
  data::StatisticsFile file;
  for (const auto& [section, report] : reports) {
    if (section != "data") continue;
    VT_REQUIRE(DataError, !report.statistics.raw.empty(),
               "[data] source '{}': no values were read, so that there are no statistics",
               report.name);
    file.emplace_back(report.name, report.statistics);
  }
  data::write_statistics(file, path);
}

void run_inspect(const InspectArguments& arguments) {
  // Before an hour of reading, not after it.
  check_folder("data", "--statistics", arguments.statistics);
  check_folder("data", "--contact-sheet", arguments.contact_sheet);
  const config::Recipe recipe = arguments.recipe.load().recipe;
  VT_REQUIRE(ConfigError, arguments.samples >= 1, "[data] --samples must be at least 1 but is {}",
             arguments.samples);
  std::vector<std::pair<std::string, data::SourceReport>> reports;
  const auto inspect = [&](const char* section, const std::vector<config::Source>& sources) {
    for (const config::Source& source : sources) {
      reports.emplace_back(
          section, data::inspect(source, recipe.model, recipe.data.workers, arguments.samples,
                                 progress_of(data::source_name(source))));
      if (!arguments.json) fmt::print("{} {}", section, to_text(reports.back().second));
    }
  };
  inspect("data", recipe.data.sources);
  inspect("eval", recipe.eval.sources);
  if (arguments.json) fmt::print("{}", to_json(reports));
  if (!arguments.statistics.empty()) write_training_statistics(reports, arguments.statistics);
  if (!arguments.contact_sheet.empty())
    data::write_contact_sheet(recipe.data.sources, recipe.model, arguments.contact_sheet);
  if (arguments.json) return;
  for (const std::string& path : {arguments.statistics, arguments.contact_sheet})
    if (!path.empty()) fmt::print("wrote {}\n", path);
}

void run_dump(const DumpArguments& arguments) {
  const config::Recipe recipe = arguments.recipe.load().recipe;
  data::LoaderOptions options =
      data::loader_options(recipe, arguments.data_rank, arguments.data_ranks, false);
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
  verb->add_option("--statistics", arguments->statistics,
                   "JSON file for the statistics of every training source, for source.statistics");
  verb->add_flag("--json", arguments->json, "print the whole report as JSON");
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
