#pragma once
/// The stream on which torch works now, without a CUDA header.

#include <c10/core/Device.h>
#include <c10/core/impl/VirtualGuardImpl.h>

namespace vitrail::patching {

/// A cudaStream_t of a GPU.
inline void* current_stream(c10::Device device) {
  return c10::impl::VirtualGuardImpl(device.type()).getStream(device).native_handle();
}

}  // namespace vitrail::patching
