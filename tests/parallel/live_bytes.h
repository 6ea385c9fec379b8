#pragma once
/// Bytes of tensors that the calling thread allocates on the CPU.

#include <algorithm>
#include <cstdint>
#include <memory>

#include <c10/core/Allocator.h>
#include <c10/util/ThreadLocalDebugInfo.h>

namespace vitrail::testing {

/// Counts while it lives; what was alive before counts nothing, backward of this thread does.
class LiveBytes {
 public:
  LiveBytes()
      : counts_(std::make_shared<Counts>()), guard_(c10::DebugInfoKind::PROFILER_STATE, counts_) {}
  /// Most bytes alive at once, and those of the largest single tensor.
  int64_t peak() const { return counts_->peak; }
  int64_t largest() const { return counts_->largest; }

 private:
  struct Counts : c10::MemoryReportingInfoBase {
    void reportMemoryUsage(void* /*memory*/, int64_t bytes, size_t /*allocated*/,
                           size_t /*reserved*/, c10::Device /*device*/) override {
      live += bytes;
      peak = std::max(peak, live), largest = std::max(largest, bytes);
    }
    bool memoryProfilingEnabled() const override { return true; }
    int64_t live = 0, peak = 0, largest = 0;
  };
  std::shared_ptr<Counts> counts_;
  c10::DebugInfoGuard guard_;
};

}  // namespace vitrail::testing
