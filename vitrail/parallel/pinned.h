#pragma once
/// Page-locked host memory as tensors and as buffers that are used again.

#include <cstdint>
#include <map>
#include <memory>

#include <ATen/core/Tensor.h>

#include "vitrail/parallel/device.h"

namespace vitrail::parallel {

/// A zeroed CPU tensor of one axis in memory that `device` copies from and to by itself.
at::Tensor pinned_zeros(int64_t count, at::ScalarType type, at::Device device);

/// A buffer and the point after which nobody uses what it held before: new uses wait for it.
struct PinnedBuffer {
  PinnedBuffer(at::Device device, int64_t bytes) : memory(device, bytes), last_use(device) {}
  PinnedMemory memory;
  Event last_use;
};

/// Buffers by size. Page-locking memory takes long, so what is given back is kept.
/// Threads  one at a time.
class PinnedPool {
 public:
  explicit PinnedPool(at::Device device) : device_(device) {}
  ~PinnedPool();
  /// The smallest free buffer of at least this size that is not twice as large, or a new one.
  std::unique_ptr<PinnedBuffer> take(int64_t bytes);
  /// last_use has been recorded.
  void give_back(std::unique_ptr<PinnedBuffer> buffer);
  /// Of all buffers there are, in use or free.
  int64_t bytes() const { return bytes_; }

 private:
  at::Device device_;
  std::multimap<int64_t, std::unique_ptr<PinnedBuffer>> free_;
  int64_t bytes_ = 0;
};

}  // namespace vitrail::parallel
