#pragma once
/// Memory that units take in turn: a unit's flat tensor owns nothing, it is pointed to a slot while the unit is in use.

#include <cstdint>

#include <ATen/core/Tensor.h>

namespace vitrail::parallel {

/// A tensor whose memory is lent. Views of it, also those that autograd saved, follow when it moves: they share its
/// storage. Nothing of autograd notices, because no operation of torch writes to it.
class MovingTensor {
 public:
  MovingTensor() = default;
  MovingTensor(int64_t count, const at::TensorOptions& options);

  const at::Tensor& tensor() const { return tensor_; }
  bool has_memory() const;
  void point_to(void* data);
  /// From the first call on, an operation that reads the tensor or a view of it is an error of torch.
  void clear() { point_to(nullptr); }

 private:
  at::Tensor tensor_;
};

/// A tensor of this shape without memory.
at::Tensor without_memory(at::IntArrayRef shape, const at::TensorOptions& options);

/// Equal slots of one allocation.
class SlotMemory {
 public:
  SlotMemory() = default;
  SlotMemory(int slots, int64_t count, const at::TensorOptions& options);
  /// The first `count` elements of a slot.
  at::Tensor slot(int i, int64_t count) const { return memory_.narrow(0, i * slot_count_, count); }
  int64_t bytes() const { return memory_.defined() ? static_cast<int64_t>(memory_.nbytes()) : 0; }

 private:
  at::Tensor memory_;
  int64_t slot_count_ = 0;
};

}  // namespace vitrail::parallel
