#pragma once
/// What kernels take of tensors: raw pointers, and the stream on which torch works now.

#include <cstdint>

#include <ATen/core/Tensor.h>
#include <c10/core/DeviceGuard.h>

namespace vitrail::ops {

/// Kernels read and write 16 bytes at a time.
constexpr uintptr_t kKernelAlign = 16;

/// Null for an undefined tensor. throws Error for another element type, or memory that is not contiguous and aligned.
const uint16_t* bf16_in(const at::Tensor& x);
uint16_t* bf16_out(const at::Tensor& x);
const float* f32_in(const at::Tensor& x);
float* f32_out(const at::Tensor& x);
/// The same without asking for contiguous memory; strides are the caller's business.
const uint16_t* bf16_strided_in(const at::Tensor& x);
uint16_t* bf16_strided_out(const at::Tensor& x);

/// Whether the kernels of fused blocks run on this tensor: CUDA, bf16. Others take plain ATen.
inline bool runs_kernels(const at::Tensor& x) {
  return x.is_cuda() && x.scalar_type() == at::kBFloat16;
}

/// The cudaStream_t on which torch works now.
void* current_stream(at::Device device);

/// While one lives, x's device is the current one.
class OnDevice {
 public:
  explicit OnDevice(const at::Tensor& x);
  /// A cudaStream_t.
  void* stream() const { return stream_; }

 private:
  c10::DeviceGuard guard_;
  void* stream_;
};

}  // namespace vitrail::ops
