#include "vitrail/train/ablate.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>
#include <regex>
#include <thread>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "vitrail/core/atomic_file.h"
#include "vitrail/core/error.h"
#include "vitrail/core/text.h"
#include "vitrail/parallel/device.h"
#include "vitrail/train/ablate_report.h"
#include "vitrail/train/ablate_runs.h"
#include "vitrail/train/ablate_table.h"
#include "vitrail/train/child_queue.h"
#include "vitrail/train/loop_parts.h"

namespace vitrail::train {

namespace {

namespace fs = std::filesystem;

/// Names of the GPUs that this process may use, as CUDA_VISIBLE_DEVICES takes them.
std::vector<std::string> gpu_names() {
  std::vector<std::string> names;
  if (const char* visible = std::getenv("CUDA_VISIBLE_DEVICES")) {
    const std::string text = visible;
    for (size_t begin = 0; begin < text.size();) {
      const size_t end = std::min(text.find(',', begin), text.size());
      if (end > begin) names.push_back(text.substr(begin, end - begin));
      begin = end + 1;
    }
  }
  const auto count = static_cast<size_t>(parallel::gpu_count());
  if (names.size() > count) names.resize(count);
  for (size_t g = names.size(); g < count; ++g) names.push_back(fmt::format("{}", g));
  return names;
}

/// Runs of one GPU have it alone unless more jobs are asked for.
std::vector<ChildSlot> slots_of(const StudyPlan& plan, int64_t jobs) {
  const bool on_cpu = std::ranges::all_of(
      plan.runs, [](const StudyRun& run) { return run.recipe.run.device == "cpu"; });
  const std::vector<std::string> gpus = on_cpu ? std::vector<std::string>() : gpu_names();
  const auto count = static_cast<size_t>(
      jobs > 0 ? jobs : std::max<int64_t>(1, static_cast<int64_t>(gpus.size())));
  std::vector<ChildSlot> slots;
  for (size_t s = 0; s < std::min(count, plan.runs.size()); ++s)
    slots.push_back(gpus.empty() ? ChildSlot{"the CPU", {}}
                                 : ChildSlot{"GPU " + gpus[s % gpus.size()],
                                             {{"CUDA_VISIBLE_DEVICES", gpus[s % gpus.size()]}}});
  return slots;
}

std::string file_in(const StudyRun& run, const std::string& name) {
  return (fs::path(run.folder) / name).string();
}

/// The last line that says something of a file's end.
std::string last_line(const std::string& path) {
  constexpr std::streamoff kEnd = 16384;
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  if (!file) return "";
  file.seekg(std::max<std::streamoff>(0, static_cast<std::streamoff>(file.tellg()) - kEnd));
  std::string last;
  for (std::string line; std::getline(file, line);)
    if (line.find_first_not_of(" \r\t") != std::string::npos) last = line;
  return last;
}

class StudyWork {
 public:
  StudyWork(const config::Study& study, const AblateOptions& options)
      : options_(options), plan_(plan_study(study)), slots_(slots_of(plan_, options.jobs)) {
    VT_REQUIRE(ConfigError, options.jobs >= 0, "[ablate] --jobs must be at least 1 but is {}",
               options.jobs);
    choose();
  }

  AblateResult operator()() {
    if (options_.dry_run) {
      say_plan();
      return count();
    }
    core::make_directories(plan_.folder);
    const StopSignal stop;
    const int signal = run_all(stop);
    write_tables();
    const AblateResult result = count();
    say_results(result);
    if (signal != 0)
      core::fail<core::Preempted>(
          "[ablate] {} came: {} of {} runs are done, the others saved their state; run the same "
          "command again",
          signal_name(signal), result.done, plan_.runs.size());
    VT_CHECK(failed_.empty(), "[ablate] {} of {} runs failed: {}", failed_.size(),
             plan_.runs.size(), failed_.front());
    return result;
  }

 private:
  struct Chosen {
    size_t run;                       // of the plan
    std::vector<size_t> evaluations;  // of its commands after the training
    bool trains = true;
  };

  void choose() {
    std::regex only;
    try {
      only = std::regex(options_.only);
    } catch (const std::regex_error&) {
      core::fail<core::ConfigError>("[ablate] --only must be a regular expression but is '{}'",
                                    options_.only);
    }
    // Seed by seed, so that every cell has a number early.
    std::vector<size_t> order(plan_.runs.size());
    for (size_t r = 0; r < order.size(); ++r) order[r] = r;
    const auto turn = [&](size_t r) {
      return std::ranges::find(plan_.study.seeds, plan_.runs[r].seed) - plan_.study.seeds.begin();
    };
    std::ranges::stable_sort(order, {}, turn);
    for (const size_t r : order) {
      const RunNumbers numbers = read_run(plan_.study, plan_.runs[r]);
      if (numbers.state == RunNumbers::State::done) continue;
      if (!std::regex_search(plan_.runs[r].name, only)) continue;
      Chosen chosen{r, {}, !numbers.is_trained};
      for (size_t e = 0; e < plan_.study.evaluations.size(); ++e)
        if (chosen.trains || !std::isfinite(numbers.evaluations[e]))
          chosen.evaluations.push_back(e);
      // A failure that was noted after all numbers were there.
      if (!chosen.trains && chosen.evaluations.empty()) {
        note_failure(plan_.runs[r], "");
        continue;
      }
      begins_anew_.push_back(numbers.is_other_recipe);
      chosen_.push_back(std::move(chosen));
    }
  }

  std::vector<std::string> train_arguments(const StudyRun& run, bool anew) const {
    std::vector<std::string> arguments{options_.program, "train", plan_.study.base};
    arguments.insert(arguments.end(), run.set.begin(), run.set.end());
    if (const int64_t threads = threads_of(run); threads > 0)
      arguments.push_back(fmt::format("run.threads={}", threads));
    arguments.insert(arguments.end(), {"--resume", anew ? "never" : "auto"});
    return arguments;
  }

  /// Jobs that share the processor divide its cores; 0: the run's own choice.
  int64_t threads_of(const StudyRun& run) const {
    if (run.recipe.run.threads > 0 || slots_.size() < 2) return 0;
    const int64_t cores = std::max(1u, std::thread::hardware_concurrency());
    return std::max<int64_t>(1, cores / static_cast<int64_t>(slots_.size()));
  }

  std::vector<std::string> eval_arguments(const StudyRun& run,
                                          const config::NamedChanges& evaluation) const {
    std::vector<std::string> arguments{options_.program, "eval", plan_.study.base};
    arguments.insert(arguments.end(), run.set.begin(), run.set.end());
    arguments.insert(arguments.end(), evaluation.set.begin(), evaluation.set.end());
    const char* weights =
        run.recipe.train.ema_decay ? "weights-ema.safetensors" : "weights.safetensors";
    arguments.insert(arguments.end(), {"--weights", file_in(run, weights), "--json"});
    if (!plan_.study.split.empty())
      arguments.insert(arguments.end(), {"--split", plan_.study.split});
    return arguments;
  }

  std::string evaluation_output(const StudyRun& run, size_t evaluation) const {
    return evaluation_path(run, plan_.study.evaluations[evaluation].name) + ".txt";
  }

  ChildJob job_of(size_t c) const {
    const Chosen& chosen = chosen_[c];
    const StudyRun& run = plan_.runs[chosen.run];
    ChildJob job{run.name, {}};
    if (chosen.trains)
      job.commands.push_back({train_arguments(run, begins_anew_[c]), file_in(run, "process.txt")});
    for (const size_t e : chosen.evaluations)
      job.commands.push_back(
          {eval_arguments(run, plan_.study.evaluations[e]), evaluation_output(run, e)});
    return job;
  }

  int run_all(const StopSignal& stop) {
    if (chosen_.empty()) return 0;
    std::vector<ChildJob> jobs;
    for (size_t c = 0; c < chosen_.size(); ++c) jobs.push_back(job_of(c));
    ChildEvents events;
    events.started = [this](size_t job, size_t slot) { begin(job, slot); };
    events.succeeded = [this](size_t job, size_t command) { keep(job, command); };
    events.ended = [this](const ChildEnd& end) { note(end); };
    events.stop = [&stop] { return stop.received(); };
    return run_children(jobs, slots_, events);
  }

  void begin(size_t job, size_t slot) {
    const StudyRun& run = plan_.runs[chosen_[job].run];
    core::make_directories(run.folder);
    note_failure(run, "");
    for (const size_t e : chosen_[job].evaluations) {
      const std::string output = evaluation_output(run, e);
      core::make_directories(fs::path(output).parent_path().string());
      fs::remove(output);
    }
    options_.say(fmt::format("[{}/{}] {} begins on {}{}", job + 1, chosen_.size(), run.name,
                             slots_[slot].name,
                             begins_anew_[job] ? ", anew: its recipe has changed" : ""));
  }

  /// Of the study's evaluations, the one that a command of a job makes; none for the training.
  std::optional<size_t> evaluation_of(size_t job, size_t command) const {
    const Chosen& chosen = chosen_[job];
    if (chosen.trains && command == 0) return {};
    return chosen.evaluations[command - (chosen.trains ? 1 : 0)];
  }

  void keep(size_t job, size_t command) {
    const std::optional<size_t> evaluation = evaluation_of(job, command);
    if (!evaluation) return;
    const StudyRun& run = plan_.runs[chosen_[job].run];
    const std::string path = evaluation_output(run, *evaluation);
    keep_evaluation(run, plan_.study.evaluations[*evaluation],
                    core::read_file(path, int64_t{1} << 24));
    fs::remove(path);
  }

  void note(const ChildEnd& end) {
    const StudyRun& run = plan_.runs[chosen_[end.job].run];
    const auto evaluation = evaluation_of(end.job, end.command);
    if (end.exit_code == 0) {
      const RunNumbers numbers = read_run(plan_.study, run);
      if (numbers.state == RunNumbers::State::done)
        options_.say(fmt::format("{} is done in {}: {} {:.6g}", run.name,
                                 core::format_duration(end.seconds), metric_word(plan_),
                                 numbers.last));
      else
        fail(run,
             "the processes ended well but the run's files lack its numbers; see metric and "
             "split of the study");
    } else if (end.exit_code == static_cast<int>(core::ExitCode::preempted)) {
      options_.say(fmt::format("{} stopped, its state is saved", run.name));
    } else {
      const std::string line =
          last_line(evaluation ? evaluation_output(run, *evaluation) : file_in(run, "process.txt"));
      fail(run, fmt::format("exit code {}{}: {}", end.exit_code,
                            evaluation ? fmt::format(" of the evaluation {}",
                                                     plan_.study.evaluations[*evaluation].name)
                                       : "",
                            line));
    }
    write_tables();
  }

  void fail(const StudyRun& run, const std::string& why) {
    note_failure(run, why);
    failed_.push_back(run.name + ": " + why);
    options_.say(fmt::format("{} failed: {}", run.name, why));
  }

  void write_tables() const {
    const StudyResults results = read_results(plan_);
    const fs::path folder(plan_.folder);
    core::write_file_atomic((folder / "results.csv").string(), results_csv(plan_, results));
    core::write_file_atomic((folder / "results.json").string(), results_json(plan_, results));
    core::write_file_atomic((folder / "report.html").string(), study_page(plan_, results));
  }

  AblateResult count() const {
    AblateResult result{plan_.folder};
    for (const StudyRun& run : plan_.runs) {
      const RunNumbers::State state = read_run(plan_.study, run).state;
      if (state == RunNumbers::State::done)
        ++result.done;
      else if (state == RunNumbers::State::failed)
        ++result.failed;
      else
        ++result.missing;
    }
    return result;
  }

  void say_plan() const {
    options_.say(fmt::format("{}: {} cells, {} runs, {} at once, in {}", plan_.study.name,
                             plan_.cells.size(), plan_.runs.size(), slots_.size(), plan_.folder));
    if (!plan_.study.set.empty())
      options_.say(fmt::format("every run  {}", fmt::join(plan_.study.set, "  ")));
    for (size_t c = 0; c < plan_.cells.size(); ++c) {
      const config::StudyCell& cell = plan_.cells[c];
      const auto own = cell.set.begin() + static_cast<std::ptrdiff_t>(plan_.study.set.size());
      options_.say(fmt::format("{}  {} parameters{}  {}", cell.name, plan_.parameters[c],
                               cell.control.empty() ? "" : ", control " + cell.control,
                               fmt::join(own, cell.set.end(), "  ")));
    }
    for (const StudyRun& run : plan_.runs) {
      const RunNumbers numbers = read_run(plan_.study, run);
      const bool begins = std::ranges::any_of(
          chosen_, [&](const Chosen& chosen) { return &plan_.runs[chosen.run] == &run; });
      options_.say(fmt::format("{}  {}{}{}", run.name, word(numbers.state),
                               numbers.is_other_recipe ? " (of another recipe)" : "",
                               begins ? ", would run" : ""));
    }
  }

  void say_results(const AblateResult& result) const {
    const fs::path folder(plan_.folder);
    options_.say(fmt::format("{} runs done, {} failed, {} missing", result.done, result.failed,
                             result.missing));
    for (const char* name : {"results.csv", "results.json", "report.html"})
      options_.say((folder / name).string());
  }

  AblateOptions options_;
  StudyPlan plan_;
  std::vector<ChildSlot> slots_;
  std::vector<Chosen> chosen_;
  std::vector<bool> begins_anew_;  // of chosen_
  std::vector<std::string> failed_;
};

}  // namespace

AblateResult run_study(const config::Study& study, const AblateOptions& options) {
  return StudyWork(study, options)();
}

}  // namespace vitrail::train
