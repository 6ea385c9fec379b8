#pragma once
/// Timing of repeated work on a device.

#include <algorithm>
#include <chrono>
#include <vector>

#include "vitrail/parallel/device.h"

namespace vitrail::train {

/// Milliseconds of each of `runs` calls, measured on the device's stream (the host's clock on the
/// CPU).
template <class Work>
std::vector<double> time_each(at::Device device, int64_t runs, Work&& work) {
  std::vector<parallel::Event> marks;
  void* stream = parallel::current_stream(device);
  for (int64_t i = 0; i <= runs; ++i) {
    marks.emplace_back(device, /*timing=*/true);
    if (i > 0) work();
    marks.back().record(stream);
  }
  std::vector<double> times;
  for (int64_t i = 1; i <= runs; ++i) times.push_back(marks[i].ms_since(marks[i - 1]));
  return times;
}

/// Milliseconds of one call, the mean over calls that go on for at least `seconds`: a GPU reaches
/// its power cap, and with it its lasting clock, only after a second or so.
template <class Work>
double time_hot(at::Device device, double seconds, Work&& work) {
  using Clock = std::chrono::steady_clock;
  work();
  parallel::synchronize(device);
  const Clock::time_point start = Clock::now();
  int64_t calls = 0;
  double passed = 0;
  for (int64_t burst = 1; passed < seconds; burst = std::min<int64_t>(2 * burst, 64)) {
    for (int64_t i = 0; i < burst; ++i) work();
    parallel::synchronize(device);
    calls += burst;
    passed = std::chrono::duration<double>(Clock::now() - start).count();
  }
  return 1e3 * passed / static_cast<double>(calls);
}

/// The value below which a share `q` of the times lies (nearest rank).
inline double quantile(std::vector<double> times, double q) {
  if (times.empty()) return 0;
  std::sort(times.begin(), times.end());
  return times[static_cast<size_t>(q * static_cast<double>(times.size() - 1) + 0.5)];
}

}  // namespace vitrail::train
