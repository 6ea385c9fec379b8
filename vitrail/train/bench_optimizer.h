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
constexpr int64_t adamw_bytes(bool bf16, bool ema) { return 29 + (bf16 ? 2 : 0) + (ema ? 8 : 0); }

}  // namespace vitrail::train
