#include "vitrail/train/kernel_profile.h"

#include <algorithm>
#include <array>
#include <map>
#include <string_view>
#include <utility>

#include <fmt/format.h>
#include <torch/csrc/autograd/profiler_kineto.h>

#include "vitrail/core/error.h"
#include "vitrail/parallel/device.h"

namespace vitrail::train {
namespace {

using torch::autograd::profiler::KinetoEvent;

/// Host calls that a steady step should not make. Waits for events between streams are no such calls.
constexpr std::array kWaits{"cudaMalloc",
                            "cudaMallocAsync",
                            "cudaFree",
                            "cudaFreeAsync",
                            "cudaHostAlloc",
                            "cudaMallocHost",
                            "cudaFreeHost",
                            "cudaMemcpy",
                            "cudaStreamSynchronize",
                            "cudaDeviceSynchronize",
                            "cudaEventSynchronize",
                            "cuMemCreate",
                            "cuMemAlloc_v2",
                            "cuMemFree_v2",
                            "cuStreamSynchronize"};

struct Sums {
  std::map<std::string, KernelTime> by_name;

  void add(const std::string& name, double ms, int64_t steps) {
    KernelTime& entry = by_name[name];
    entry.name = name;
    entry.calls += 1.0 / static_cast<double>(steps);
    entry.ms += ms / static_cast<double>(steps);
  }
  std::vector<KernelTime> longest_first() const {
    std::vector<KernelTime> all;
    for (const auto& [name, entry] : by_name) all.push_back(entry);
    std::stable_sort(all.begin(), all.end(),
                     [](const KernelTime& a, const KernelTime& b) { return a.ms > b.ms; });
    return all;
  }
};

/// Time covered by at least one of the ranges [start, end).
double covered_ns(std::vector<std::pair<uint64_t, uint64_t>> ranges) {
  std::sort(ranges.begin(), ranges.end());
  uint64_t total = 0, until = 0;
  for (const auto& [start, end] : ranges) {
    if (end <= until) continue;
    total += end - std::max(start, until);
    until = end;
  }
  return static_cast<double>(total);
}

KernelProfile summed(const std::vector<KinetoEvent>& events, int64_t steps) {
  KernelProfile profile{.steps = steps};
  Sums kernels, waits;
  std::vector<std::pair<uint64_t, uint64_t>> ranges;
  for (const KinetoEvent& event : events) {
    const std::string name = event.name();
    const double ms = static_cast<double>(event.durationNs()) * 1e-6;
    if (event.deviceType() == c10::DeviceType::CUDA) {
      if (event.durationNs() == 0) continue;
      kernels.add(short_kernel_name(name), ms, steps);
      ranges.emplace_back(event.startNs(), event.endNs());
    } else if (std::find(kWaits.begin(), kWaits.end(), std::string_view(name)) != kWaits.end()) {
      waits.add(name, ms, steps);
    }
  }
  profile.kernels = kernels.longest_first();
  profile.waits = waits.longest_first();
  if (ranges.empty()) return profile;
  uint64_t first = ranges[0].first, last = ranges[0].second;
  for (const auto& [start, end] : ranges)
    first = std::min(first, start), last = std::max(last, end);
  profile.span_ms = static_cast<double>(last - first) * 1e-6 / static_cast<double>(steps);
  profile.busy_ms = covered_ns(std::move(ranges)) * 1e-6 / static_cast<double>(steps);
  return profile;
}

}  // namespace

std::string short_kernel_name(const std::string& name) {
  constexpr std::string_view kUnnamed = "(anonymous namespace)";
  std::string plain;
  int depth = 0;
  for (size_t i = 0; i < name.size(); ++i) {
    const char c = name[i];
    if (c == '<') ++depth;
    if (depth == 0) {
      if (name.compare(i, kUnnamed.size(), kUnnamed) == 0) {
        plain += kUnnamed;
        i += kUnnamed.size() - 1;
        continue;
      }
      if (c == '(') break;
      plain += c;
    }
    if (c == '>' && depth > 0) --depth;
  }
  for (const std::string_view prefix : {"void ", "at::native::"})
    if (plain.starts_with(prefix)) plain.erase(0, prefix.size());
  while (plain.ends_with(' ')) plain.pop_back();
  return plain;
}

KernelProfile profile_kernels(at::Device device, int64_t steps, const std::function<void()>& step,
                              const std::string& path) {
  namespace profiler = torch::autograd::profiler;
  using torch::profiler::impl::ActivityType;
  using torch::profiler::impl::ProfilerConfig;
  using torch::profiler::impl::ProfilerState;
  parallel::synchronize(device);
  const ProfilerConfig config(ProfilerState::KINETO);
  const std::set<ActivityType> activities{ActivityType::CPU, ActivityType::CUDA};
  profiler::prepareProfiler(config, activities);
  profiler::enableProfiler(config, activities);
  for (int64_t i = 0; i < steps; ++i) step();
  parallel::synchronize(device);
  const auto result = profiler::disableProfiler();
  result->save(path);
  KernelProfile profile = summed(result->events(), steps);
  VT_CHECK(!profile.kernels.empty(),
           "[bench] the profiler must see kernels but saw none; is libcupti found and allowed?");
  return profile;
}

std::string describe(const KernelProfile& profile, size_t rows) {
  std::string text = fmt::format(
      "{} steps under the profiler: {:.2f} ms each, {:.2f} with a kernel running\n{:>9} {:>6} "
      "{:>8}  {}\n",
      profile.steps, profile.span_ms, profile.busy_ms, "ms/step", "%", "calls", "kernel");
  double rest = 0;
  for (size_t i = 0; i < profile.kernels.size(); ++i) {
    const KernelTime& kernel = profile.kernels[i];
    if (i >= rows) {
      rest += kernel.ms;
      continue;
    }
    text += fmt::format("{:>9.3f} {:>6.1f} {:>8.1f}  {}\n", kernel.ms,
                        100.0 * kernel.ms / profile.busy_ms, kernel.calls, kernel.name);
  }
  if (rest > 0)
    text +=
        fmt::format("{:>9.3f} {:>6.1f} {:>8}  others\n", rest, 100.0 * rest / profile.busy_ms, "");
  if (profile.waits.empty())
    text += "no call of the host that allocates memory or waits for the device";
  else
    text += "calls of the host that allocate memory or wait for the device:";
  for (const KernelTime& wait : profile.waits)
    text += fmt::format("\n{:>9.3f} {:>6} {:>8.1f}  {}", wait.ms, "", wait.calls, wait.name);
  return text;
}

}  // namespace vitrail::train
