#pragma once
/// The last collectives of a group, kept for error reports.

#include <array>
#include <chrono>
#include <cstdint>
#include <mutex>
#include <string>

#include "vitrail/core/dtype.h"

namespace vitrail::comm {

class FlightRecorder {
 public:
  static constexpr uint64_t kKept = 64;

  /// Threads    any.
  /// returns    the collective's number in its group, from 0.
  uint64_t add(const char* collective, int64_t count, core::DType dtype);
  void started(uint64_t number);
  void finished(uint64_t number);
  void failed(uint64_t number);
  /// "#12 all_reduce 1000 x f32: running, 3.2 s" a line, oldest first; seconds since the start, or
  /// from start to end.
  std::string text(uint64_t last = kKept) const;

 private:
  using Clock = std::chrono::steady_clock;
  enum class State : uint8_t { queued, running, done, failed };
  struct Entry {
    uint64_t number = 0;
    const char* collective = nullptr;
    int64_t count = 0;
    core::DType dtype = core::DType::f32;
    State state = State::queued;
    Clock::time_point start, end;
  };
  void change(uint64_t number, State state);

  mutable std::mutex mutex_;
  std::array<Entry, kKept> entries_{};
  uint64_t next_ = 0;
};

}  // namespace vitrail::comm
