#pragma once
/// The program's log: lines to stderr and, if asked, to a file as well.
///
/// Threads  any. Rank 0 logs everything, the others only warnings, each with its rank.

#include <string>
#include <string_view>
#include <utility>

#include <fmt/format.h>

namespace vitrail::core {

/// The rank in front of this process's lines; 0 until set.
void set_log_rank(int rank);

/// Also appends every line to `path` (made if missing); an empty path ends that.
/// throws   Error naming the path if it cannot be opened.
void set_log_file(const std::string& path);

/// One finished line each.
void log_info_line(std::string_view line);
void log_warning_line(std::string_view line);

template <class... Args>
void log_info(fmt::format_string<Args...> format, Args&&... args) {
  log_info_line(fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void log_warning(fmt::format_string<Args...> format, Args&&... args) {
  log_warning_line(fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace vitrail::core
