#include "vitrail/comm/flight_recorder.h"

#include <algorithm>

#include <fmt/format.h>

namespace vitrail::comm {

uint64_t FlightRecorder::add(const char* collective, int64_t count, core::DType dtype) {
  const std::lock_guard lock(mutex_);
  const Clock::time_point now = Clock::now();
  entries_[next_ % kKept] = {next_, collective, count, dtype, State::queued, now, now};
  return next_++;
}

void FlightRecorder::change(uint64_t number, State state) {
  const std::lock_guard lock(mutex_);
  Entry& entry = entries_[number % kKept];
  if (entry.number != number || entry.collective == nullptr) return;  // already overwritten
  entry.state = state;
  (state == State::running ? entry.start : entry.end) = Clock::now();
}

void FlightRecorder::started(uint64_t number) { change(number, State::running); }
void FlightRecorder::finished(uint64_t number) { change(number, State::done); }
void FlightRecorder::failed(uint64_t number) { change(number, State::failed); }

std::string FlightRecorder::text(uint64_t last) const {
  constexpr const char* names[] = {"queued", "running", "done", "failed"};
  const std::lock_guard lock(mutex_);
  std::string lines;
  for (uint64_t number = next_ - std::min({next_, kKept, last}); number < next_; ++number) {
    const Entry& entry = entries_[number % kKept];
    const bool over = entry.state == State::done || entry.state == State::failed;
    const std::chrono::duration<double> seconds = (over ? entry.end : Clock::now()) - entry.start;
    lines +=
        fmt::format("#{} {} {} x {}: {}, {:.3g} s\n", number, entry.collective, entry.count,
                    core::name(entry.dtype), names[static_cast<int>(entry.state)], seconds.count());
  }
  return lines;
}

}  // namespace vitrail::comm
