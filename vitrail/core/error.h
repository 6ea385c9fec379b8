#pragma once
/// Errors: kinds, the exit code of each, and VT_CHECK.
///
/// Form of a message: `[where] what must hold but got what[; what to do]`. The library throws and never prints or
/// exits; app/main catches once. A user can trigger it = exception; only a bug can = assert.

#include <stdexcept>
#include <string>
#include <utility>

#include <fmt/format.h>

namespace vitrail::core {

/// What the program returns to the shell (see `vitrail --help`).
enum class ExitCode : int {
  success = 0,
  other = 1,
  config = 2,
  data = 3,
  checkpoint = 4,
  comm = 5,
  non_finite = 6,
  out_of_memory = 7,
  preempted = 75,
};

class Error : public std::runtime_error {
 public:
  explicit Error(const std::string& message, ExitCode exit_code = ExitCode::other)
      : std::runtime_error(message), exit_code_(exit_code) {}
  ExitCode exit_code() const noexcept { return exit_code_; }

 private:
  ExitCode exit_code_;
};

/// A recipe or command line that must be refused before anything is allocated. May hold several lines, one a problem.
struct ConfigError : Error {
  explicit ConfigError(const std::string& message) : Error(message, ExitCode::config) {}
};
/// A data file or folder that cannot be used; names it.
struct DataError : Error {
  explicit DataError(const std::string& message) : Error(message, ExitCode::data) {}
};
/// A checkpoint or weights file that cannot be used; names file and tensor.
struct CheckpointError : Error {
  explicit CheckpointError(const std::string& message) : Error(message, ExitCode::checkpoint) {}
};
/// A peer or collective that failed; names both.
struct CommError : Error {
  explicit CommError(const std::string& message) : Error(message, ExitCode::comm) {}
};
/// Loss or gradient became NaN or infinite under the policy `stop`.
struct NonFiniteError : Error {
  explicit NonFiniteError(const std::string& message) : Error(message, ExitCode::non_finite) {}
};
struct OutOfMemoryError : Error {
  explicit OutOfMemoryError(const std::string& message) : Error(message, ExitCode::out_of_memory) {}
};
/// The run was asked to stop and saved its state: run the same command again.
struct Preempted : Error {
  explicit Preempted(const std::string& message) : Error(message, ExitCode::preempted) {}
};

/// Throws Kind with a formatted message: `fail<DataError>("[data] {}: no such file", path)`.
template <class Kind = Error, class... Args>
[[noreturn]] void fail(fmt::format_string<Args...> format, Args&&... args) {
  throw Kind(fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace vitrail::core

/// Throws core::Error unless `condition` holds; kept in release builds. The rest is a fmt format and its arguments.
#define VT_CHECK(condition, ...) \
  do {                           \
    if (!(condition)) [[unlikely]] \
      ::vitrail::core::fail<::vitrail::core::Error>(__VA_ARGS__); \
  } while (false)
/// The same with a kind: VT_REQUIRE(DataError, !paths.empty(), "[data] ...", ...).
#define VT_REQUIRE(Kind, condition, ...) \
  do {                                   \
    if (!(condition)) [[unlikely]]       \
      ::vitrail::core::fail<::vitrail::core::Kind>(__VA_ARGS__); \
  } while (false)
