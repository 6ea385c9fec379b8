#pragma once
/// Processes of this host, several at once: each job is a list of commands that run one after the other.

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace vitrail::train {

/// One place in which a job runs.
struct ChildSlot {
  std::string name;                                          // "GPU 3"
  std::vector<std::pair<std::string, std::string>> set_env;  // over this process's environment
};

struct ChildCommand {
  std::vector<std::string> arguments;  // the program's path first
  std::string output;                  // file to which stdout and stderr are appended
};

struct ChildJob {
  std::string name;
  std::vector<ChildCommand> commands;
};

struct ChildEnd {
  size_t job = 0, command = 0;  // the last command that ran
  int exit_code = 0;            // 128 + the signal for a killed one
  double seconds = 0;           // of all its commands
};

struct ChildEvents {
  std::function<void(size_t job, size_t slot)> started;
  /// A command of the job ended well; others may follow.
  std::function<void(size_t job, size_t command)> succeeded;
  std::function<void(const ChildEnd& end)> ended;
  /// Asked all the time: not 0 ends everything.
  std::function<int()> stop;
};

/// Runs the jobs in their order, one a slot at a time. A command that fails ends its job, not the others. When `stop` gives
/// a signal, no further job begins, every running process gets SIGTERM, and the call returns when all have ended (after
/// `grace_seconds` they are killed). The processes end with this one. Returns the signal, or 0.
/// throws Error when a process cannot be made.
int run_children(const std::vector<ChildJob>& jobs, const std::vector<ChildSlot>& slots,
                 const ChildEvents& events, double grace_seconds = 120.0);

}  // namespace vitrail::train
