#pragma once
/// What a GPU does in a step, kernel by kernel, and which calls of the host allocate memory or wait for the device.

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include <c10/core/Device.h>

namespace vitrail::train {

/// One kernel, or copy or fill of memory, by its name without template arguments.
struct KernelTime {
  std::string name;
  double calls = 0, ms = 0;  // of one step
};

struct KernelProfile {
  int64_t steps = 0;
  double span_ms = 0;  // from the start of the first kernel to the end of the last, of one step
  double busy_ms = 0;  // in which any kernel runs, of one step
  std::vector<KernelTime> kernels;  // longest first
  /// Calls of the CUDA runtime that allocate or free memory or wait for the device, within the steps; ms of the host.
  std::vector<KernelTime> waits;
};

/// Runs `step` that many times under the profiler and writes a Chrome trace to `path`.
/// The steps are slower than others; shares are what counts.
/// throws Error when the profiler sees no kernel (its library is missing or not allowed).
KernelProfile profile_kernels(at::Device device, int64_t steps, const std::function<void()>& step,
                              const std::string& path);

/// A table, the longest `rows` kernels first.
std::string describe(const KernelProfile& profile, size_t rows = 40);

/// "void vitrail::kernels::gelu<__nv_bfloat16, 4>(float const*)" -> "vitrail::kernels::gelu".
std::string short_kernel_name(const std::string& name);

}  // namespace vitrail::train
