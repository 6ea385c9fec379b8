#include "vitrail/train/child_queue.h"

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <map>
#include <optional>
#include <thread>

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vitrail/core/clock.h"
#include "vitrail/core/error.h"

extern char** environ;

namespace vitrail::train {

namespace {

constexpr auto kPause = std::chrono::milliseconds(20);

/// Arrays that exec takes; made before fork, after which nothing may be allocated.
class Pointers {
 public:
  explicit Pointers(std::vector<std::string> texts) : texts_(std::move(texts)) {
    for (std::string& text : texts_) pointers_.push_back(text.data());
    pointers_.push_back(nullptr);
  }
  char** data() { return pointers_.data(); }

 private:
  std::vector<std::string> texts_;
  std::vector<char*> pointers_;
};

std::vector<std::string> environment_of(const ChildSlot& slot) {
  std::map<std::string, std::string> variables;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string text = *entry;
    const size_t equals = text.find('=');
    if (equals != std::string::npos) variables[text.substr(0, equals)] = text.substr(equals + 1);
  }
  for (const auto& [name, value] : slot.set_env) variables[name] = value;
  std::vector<std::string> texts;
  for (const auto& [name, value] : variables) texts.push_back(name + "=" + value);
  return texts;
}

/// In the child, between fork and exec: system calls alone.
[[noreturn]] void become(char** arguments, char** environment, int output, pid_t parent) {
  ::setpgid(0, 0);  // a terminal's Ctrl-C reaches the parent alone, which hands on what is needed
  ::prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (::getppid() != parent) ::_exit(127);
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  for (const int signal : {SIGTERM, SIGUSR1, SIGINT}) ::signal(signal, SIG_DFL);
  const int nothing = ::open("/dev/null", O_RDONLY);
  if (nothing >= 0) ::dup2(nothing, STDIN_FILENO);
  ::dup2(output, STDOUT_FILENO);
  ::dup2(output, STDERR_FILENO);
  ::execve(arguments[0], arguments, environment);
  ::_exit(127);
}

pid_t start(const ChildCommand& command, const ChildSlot& slot) {
  const int output =
      ::open(command.output.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  VT_CHECK(output >= 0, "[ablate] {} cannot be written: {}", command.output, std::strerror(errno));
  Pointers arguments(command.arguments), environment(environment_of(slot));
  const pid_t parent = ::getpid(), child = ::fork();
  if (child == 0) become(arguments.data(), environment.data(), output, parent);
  const int problem = errno;
  ::close(output);
  VT_CHECK(child > 0, "[ablate] a process for {} could not be made: {}", command.arguments[0],
           std::strerror(problem));
  return child;
}

/// The exit code when the process has ended.
std::optional<int> ended(pid_t child) {
  int status = 0;
  const pid_t found = ::waitpid(child, &status, WNOHANG);
  if (found == 0 || (found < 0 && errno == EINTR)) return {};
  if (found < 0) return 127;
  return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

class Queue {
 public:
  Queue(const std::vector<ChildJob>& jobs, const std::vector<ChildSlot>& slots,
        const ChildEvents& events, double grace_seconds)
      : jobs_(jobs),
        slots_(slots),
        events_(events),
        grace_(grace_seconds),
        running_(slots.size()) {}

  /// What still runs when an event throws is not left behind.
  ~Queue() {
    for (const auto& place : running_)
      if (place) ::kill(place->pid, SIGKILL);
    for (const auto& place : running_)
      if (place) ::waitpid(place->pid, nullptr, 0);
  }

  int operator()() {
    while (true) {
      if (signal_ == 0 && (signal_ = events_.stop ? events_.stop() : 0) != 0) ask_to_end(SIGTERM);
      bool is_busy = false;
      for (size_t s = 0; s < slots_.size(); ++s) {
        if (running_[s]) look_at(s);
        if (!running_[s] && signal_ == 0 && next_ < jobs_.size()) begin(s, next_++);
        is_busy |= running_[s].has_value();
      }
      if (!is_busy && (signal_ != 0 || next_ >= jobs_.size())) return signal_;
      if (signal_ != 0 && asked_.seconds() > grace_) ask_to_end(SIGKILL);
      std::this_thread::sleep_for(kPause);
    }
  }

 private:
  struct Running {
    size_t job, command;
    pid_t pid;
    core::Stopwatch watch;
  };

  void begin(size_t slot, size_t job) {
    if (events_.started) events_.started(job, slot);
    running_[slot] = Running{job, 0, start(jobs_[job].commands[0], slots_[slot]), {}};
  }

  void look_at(size_t slot) {
    const std::optional<int> code = ended(running_[slot]->pid);
    if (!code) return;
    Running& running = *running_[slot];
    const ChildJob& job = jobs_[running.job];
    if (*code == 0 && events_.succeeded) events_.succeeded(running.job, running.command);
    const bool is_last = running.command + 1 == job.commands.size();
    if (*code == 0 && !is_last && signal_ == 0) {
      ++running.command;
      running.pid = start(job.commands[running.command], slots_[slot]);
      return;
    }
    // A job that a signal kept from its next command has not ended well.
    const int result = *code == 0 && !is_last ? static_cast<int>(core::ExitCode::preempted) : *code;
    const ChildEnd end{running.job, running.command, result, running.watch.seconds()};
    running_[slot].reset();
    if (events_.ended) events_.ended(end);
  }

  void ask_to_end(int signal) {
    asked_ = {};
    for (const auto& place : running_)
      if (place) ::kill(place->pid, signal);
  }

  const std::vector<ChildJob>& jobs_;
  const std::vector<ChildSlot>& slots_;
  const ChildEvents& events_;
  double grace_;
  std::vector<std::optional<Running>> running_;
  size_t next_ = 0;
  int signal_ = 0;
  core::Stopwatch asked_;
};

}  // namespace

int run_children(const std::vector<ChildJob>& jobs, const std::vector<ChildSlot>& slots,
                 const ChildEvents& events, double grace_seconds) {
  VT_CHECK(!slots.empty(), "[ablate] there must be a place for processes to run in");
  return Queue(jobs, slots, events, grace_seconds)();
}

}  // namespace vitrail::train
