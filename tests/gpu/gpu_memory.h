#pragma once
/// Memory of a GPU for the cases that tests/emulation runs in host memory.

#include <vector>

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>

#include "tests/kernels/candidate.h"
#include "vitrail/parallel/device.h"

namespace vitrail::testing {

inline const at::Device kGpu(at::kCUDA, 0);
inline void* stream() { return parallel::current_stream(kGpu); }

class GpuMemory : public Memory {
 public:
  void* allocate(size_t bytes) override {
    blocks_.push_back(at::empty({static_cast<int64_t>(bytes)}, options(kGpu)));
    return blocks_.back().data_ptr();
  }
  void upload(void* to, const void* from, size_t bytes) override {
    view(to, bytes, kGpu).copy_(view(const_cast<void*>(from), bytes, at::kCPU));
  }
  void download(void* to, const void* from, size_t bytes) override {
    view(to, bytes, at::kCPU).copy_(view(const_cast<void*>(from), bytes, kGpu));
  }

 private:
  static at::TensorOptions options(at::Device device) {
    return at::TensorOptions(at::kByte).device(device);
  }
  static at::Tensor view(void* place, size_t bytes, at::Device device) {
    return at::from_blob(place, {static_cast<int64_t>(bytes)}, options(device));
  }
  std::vector<at::Tensor> blocks_;
};

}  // namespace vitrail::testing
