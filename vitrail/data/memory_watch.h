#pragma once
/// How much host memory this process holds and may still take.

#include <cstdint>
#include <string>

namespace vitrail::data {

/// All in bytes.
struct HostMemory {
  int64_t rss_bytes = 0;        // resident in this process
  int64_t available_bytes = 0;  // that can still be taken: the least of machine and control group
  int64_t limit_bytes = 0;      // of the machine or the control group, whichever is less

  /// Less than a tenth of the limit is left.
  bool is_scarce() const { return available_bytes < limit_bytes / 10; }
};

/// Reads MemTotal and MemAvailable of the machine, the memory controllers (v1 and v2) of this process's
/// control group and of the groups above it, of which file caches count as free, and its resident
/// size. What the system does not tell is 0, for limit and available 2^62.
/// `root` stands for "/".
/// Time     about 0.1 ms.
HostMemory host_memory(const std::string& root = "/");

}  // namespace vitrail::data
