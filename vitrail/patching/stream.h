#pragma once
/// The stream on which torch works now, without a CUDA header.

#include <ATen/core/Tensor.h>
#include <c10/core/impl/VirtualGuardImpl.h>

namespace vitrail::patching {

/// A cudaStream_t, of a tensor on a GPU.
inline void* current_stream(const at::Tensor& tensor) {
  const c10::Device device = tensor.device();
  return c10::impl::VirtualGuardImpl(device.type()).getStream(device).native_handle();
}

}  // namespace vitrail::patching
