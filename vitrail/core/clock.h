#pragma once
/// Time: a stopwatch and the date.

#include <chrono>
#include <cstdint>
#include <string>

namespace vitrail::core {

/// Wall time since construction or restart(); never goes backwards.
class Stopwatch {
 public:
  double ms() const {
    return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start_)
        .count();
  }
  double seconds() const { return ms() / 1000.0; }
  void restart() { start_ = std::chrono::steady_clock::now(); }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

/// The date as ISO 8601 in UTC, to the second: "2026-11-21T09:10:46Z".
std::string utc_now();

/// The same for a given number of seconds since 1970.
std::string utc_text(int64_t unix_seconds);

/// Seconds since 1970, with fraction.
double unix_seconds();

}  // namespace vitrail::core
