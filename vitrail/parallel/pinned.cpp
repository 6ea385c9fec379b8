#include "vitrail/parallel/pinned.h"

#include <cstring>

#include <ATen/ops/from_blob.h>

namespace vitrail::parallel {
namespace {

/// Large batches differ by a few tokens from step to step; rounded up they share buffers.
constexpr int64_t kStep = 1 << 16;

}  // namespace

at::Tensor pinned_zeros(int64_t count, at::ScalarType type, at::Device device) {
  const int64_t bytes = count * static_cast<int64_t>(c10::elementSize(type));
  auto memory = std::make_shared<PinnedMemory>(device, bytes);
  if (bytes > 0) std::memset(memory->data(), 0, static_cast<size_t>(bytes));
  void* data = memory->data();
  return at::from_blob(
      data, {count}, [memory](void*) {}, at::TensorOptions().dtype(type).device(at::kCPU));
}

PinnedPool::~PinnedPool() {
  for (const auto& [bytes, buffer] : free_) buffer->last_use.synchronize();
}

std::unique_ptr<PinnedBuffer> PinnedPool::take(int64_t bytes) {
  const int64_t needed = (bytes + kStep - 1) / kStep * kStep;
  const auto found = free_.lower_bound(needed);
  if (found != free_.end() && found->first < 2 * needed) {
    std::unique_ptr<PinnedBuffer> buffer = std::move(found->second);
    free_.erase(found);
    return buffer;
  }
  auto buffer = std::make_unique<PinnedBuffer>(device_, needed);
  bytes_ += needed;
  return buffer;
}

void PinnedPool::give_back(std::unique_ptr<PinnedBuffer> buffer) {
  const int64_t bytes = buffer->memory.bytes();
  free_.emplace(bytes, std::move(buffer));
}

}  // namespace vitrail::parallel
