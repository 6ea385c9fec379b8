#pragma once
/// Time of one AdamW update beside a copy of as many bytes and beside torch's fused AdamW, on
/// random data.

#include <cstdint>
#include <string>

#include <c10/core/Device.h>

namespace vitrail::train {

struct OptimizerBench {
  std::string device;
  int64_t count = 0;
  bool bf16 = false;  // also writes bf16 compute weights
  double ms = 0;      // median of one update
  double gigabytes_per_second = 0;
  double copy_gigabytes_per_second = 0;  // read + write of a copy of the same number of bytes
  double copy_ratio = 0;                 // of the two rates
  double aten_ratio = 0;                 // time of torch's fused AdamW (and the cast) / ours
  int64_t worst_ulp = 0;                 // against the plain loop, over master weights and moments
  // The same update with compact moments (kernels/compact_adamw.h), and its bytes a second over those of the copy.
  double bf16_moments_ms = 0, bf16_moments_ratio = 0;
  double fp8_moments_ms = 0, fp8_moments_ratio = 0;
  int64_t moments_differ = 0;  // master weights whose bits differ from those of the loop on the CPU
};

/// `count` elements; the answer is checked before it is timed.
OptimizerBench bench_optimizer(int64_t count, at::Device device, bool bf16);
/// One line for people.
std::string describe(const OptimizerBench& result);
/// One JSON object.
std::string to_json(const OptimizerBench& result);

/// GB/s, read + write, of a device copy of `bytes` bytes.
double copy_bandwidth(int64_t bytes, at::Device device);
/// Bytes that one AdamW update moves per element.
constexpr int64_t adamw_bytes(bool bf16, bool ema) { return 28 + (bf16 ? 2 : 0) + (ema ? 8 : 0); }
/// The same with moments of two or one bytes.
constexpr int64_t compact_adamw_bytes(bool bf16, int64_t moment_bytes) {
  return 12 + 4 * moment_bytes + (bf16 ? 2 : 0);
}

}  // namespace vitrail::train
