#include "vitrail/core/log.h"

#include <atomic>
#include <mutex>

#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include "vitrail/core/error.h"

namespace vitrail::core {
namespace {

/// Both sinks take part in every line; the file comes and goes.
struct Log {
  spdlog::sinks::stderr_sink_mt terminal;
  std::mutex mutex;
  std::shared_ptr<spdlog::sinks::basic_file_sink_mt> file;
  std::atomic<int> rank{0};

  Log() { terminal.set_pattern("%H:%M:%S %v"); }

  void write(spdlog::level::level_enum level, std::string_view line) {
    const spdlog::details::log_msg message("", level,
                                           spdlog::string_view_t(line.data(), line.size()));
    terminal.log(message);
    terminal.flush();
    const std::lock_guard lock(mutex);
    if (file) file->log(message), file->flush();
  }
};

/// Never destroyed: threads may still log while the program ends.
Log& log() {
  static Log* const instance = new Log;
  return *instance;
}

}  // namespace

void set_log_rank(int rank) { log().rank = rank; }

void set_log_file(const std::string& path) {
  std::shared_ptr<spdlog::sinks::basic_file_sink_mt> file;
  if (!path.empty()) try {
      file = std::make_shared<spdlog::sinks::basic_file_sink_mt>(path);
      file->set_pattern("%Y-%m-%dT%H:%M:%S%z %v");
    } catch (const spdlog::spdlog_ex& error) {
      fail("[log] {}: cannot be opened: {}", path, error.what());
    }
  const std::lock_guard lock(log().mutex);
  log().file = std::move(file);
}

void log_info_line(std::string_view line) {
  if (log().rank == 0) log().write(spdlog::level::info, line);
}

void log_warning_line(std::string_view line) {
  const int rank = log().rank;
  log().write(spdlog::level::warn, rank == 0 ? fmt::format("warning: {}", line)
                                             : fmt::format("warning (rank {}): {}", rank, line));
}

}  // namespace vitrail::core
