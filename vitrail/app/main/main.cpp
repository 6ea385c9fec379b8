// Entry point: parses the command line, runs one verb, and is the only place that prints an error
// and chooses the exit code.

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <exception>
#include <new>
#include <sstream>
#include <thread>

#include <malloc.h>

#include "vitrail/app/verbs.h"
#include "vitrail/app/version.h"
#include "vitrail/core/did_you_mean.h"
#include "vitrail/core/error.h"

namespace {

using vitrail::app::Program;
using vitrail::app::Session;
using vitrail::core::ExitCode;

/// "[rank 3/16 node07] " when there are several ranks, else nothing.
std::string rank_prefix(const vitrail::comm::Launch& launch) {
  if (launch.size == 1) return "";
  return fmt::format("[rank {}/{} {}] ", launch.rank, launch.size, launch.host);
}

void print_error(const vitrail::comm::Launch& launch, const std::string& message) {
  std::istringstream lines(message);
  for (std::string line; std::getline(lines, line);)
    if (!line.empty()) fmt::print(stderr, "{}{}\n", rank_prefix(launch), line);
}

bool is_out_of_memory(const std::string& message) {
  return message.find("out of memory") != std::string::npos ||
         message.find("can't allocate memory") != std::string::npos;
}

/// c10::Error appends a C++ stack; only its first line is for users.
std::string first_line(const std::string& message) { return message.substr(0, message.find('\n')); }

bool is_verb(const CLI::App& cli, const std::string& word) {
  const auto verbs = cli.get_subcommands(nullptr);
  return std::any_of(verbs.begin(), verbs.end(),
                     [&](const CLI::App* verb) { return verb->get_name() == word; });
}

/// One line for a command line that cannot be understood.
std::string usage_problem(const CLI::App& cli, const CLI::ParseError& error, int argc,
                          char** argv) {
  const std::string first = argc > 1 ? argv[1] : "";
  if (first.empty()) return "a verb must be given, e.g. vitrail train RECIPE; see vitrail --help";
  if (first[0] == '-' || is_verb(cli, first)) {
    const std::string verb = first[0] == '-' ? "" : first + " ";
    return fmt::format("{}; see vitrail {}--help", first_line(error.what()), verb);
  }
  std::vector<std::string> verbs;
  for (const CLI::App* verb : cli.get_subcommands(nullptr)) verbs.push_back(verb->get_name());
  const std::string nearest = vitrail::core::nearest_word(first, verbs);
  return fmt::format("the verb must be one of {} but got '{}'{}", fmt::join(verbs, ", "), first,
                     nearest.empty() ? "" : fmt::format("; did you mean '{}'?", nearest));
}

/// Errors of the recipe arise on all ranks at once. One of them is to speak: the first, which ends the job before the
/// others' patience does; if it found nothing wrong, another speaks.
void let_first_rank_speak(const vitrail::comm::Launch& launch, ExitCode code) {
  if (code == ExitCode::config && launch.rank > 0)
    std::this_thread::sleep_for(std::chrono::milliseconds(1500));
}

/// Runs the verb; on failure prints one line and wakes the other ranks.
ExitCode run_verb(Program& program, Session& session) {
  ExitCode code = ExitCode::success;
  try {
    program.selected(session);
    return code;
  } catch (const vitrail::core::Error& error) {
    code = error.exit_code();
    if (session.shares_error()) {
      if (session.is_main_rank()) print_error({}, error.what());
      return code;
    }
    let_first_rank_speak(session.launch(), code);
    print_error(session.launch(), error.what());
  } catch (const std::bad_alloc&) {
    print_error(session.launch(),
                "[memory] the machine has no memory left; use a smaller batch or model");
    code = ExitCode::out_of_memory;
  } catch (const std::exception& error) {
    print_error(session.launch(), "[error] " + first_line(error.what()));
    code = is_out_of_memory(error.what()) ? ExitCode::out_of_memory : ExitCode::other;
  }
  if (session.has_world() && session.world().size() > 1 && code != ExitCode::preempted)
    session.world().abort(static_cast<int>(code));
  return code;
}

/// Batches and decoded files come and go by the megabyte; giving each back to the system at once would
/// cost a page fault for every 4 KiB of the next (a tenth of a loader's time).
void keep_freed_memory() {
  ::mallopt(M_MMAP_THRESHOLD, 32 << 20);
  ::mallopt(M_TRIM_THRESHOLD, 256 << 20);
}

}  // namespace

int main(int argc, char** argv) {
  keep_freed_memory();
  CLI::App cli{
      "vitrail trains, evaluates and applies vision transformers, from one CPU to many GPUs.",
      "vitrail"};
  cli.set_version_flag("--version", [] { return vitrail::app::version_text(); });
  cli.require_subcommand(1);
  cli.footer(
      "Exit codes: 0 success; 2 usage or recipe error; 3 data error; 4 checkpoint error; 5 "
      "communication error;\n"
      "6 non-finite loss; 7 out of memory; 75 preempted, state saved, run again; 1 anything else.");
  Program program{cli, nullptr};
  for (auto add : {vitrail::app::add_train, vitrail::app::add_eval, vitrail::app::add_predict,
                   vitrail::app::add_sample, vitrail::app::add_forward, vitrail::app::add_weights,
                   vitrail::app::add_checkpoint, vitrail::app::add_check, vitrail::app::add_doctor,
                   vitrail::app::add_report, vitrail::app::add_bench, vitrail::app::add_data,
                   vitrail::app::add_balance, vitrail::app::add_patch, vitrail::app::add_plan,
                   vitrail::app::add_ablate, vitrail::app::add_convert})
    add(program);
  try {
    cli.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return cli.exit(error);  // --help, --version
    fmt::print(stderr, "[usage] {}\n", usage_problem(cli, error, argc, argv));
    return static_cast<int>(ExitCode::config);
  }
  try {
    Session session(vitrail::comm::detect_launch());
    return static_cast<int>(run_verb(program, session));
  } catch (const vitrail::core::Error& error) {
    print_error({}, error.what());
    return static_cast<int>(error.exit_code());
  }
}
