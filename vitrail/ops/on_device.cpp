#include "vitrail/ops/on_device.h"

#include <c10/core/impl/VirtualGuardImpl.h>

#include "vitrail/core/error.h"

namespace vitrail::ops {
namespace {

void* place_of(const at::Tensor& x, at::ScalarType type, bool contiguous) {
  if (!x.defined()) return nullptr;
  VT_CHECK(x.scalar_type() == type, "[kernels] a tensor must hold {} but holds {}",
           c10::toString(type), c10::toString(x.scalar_type()));
  VT_CHECK(!contiguous || x.is_contiguous(),
           "[kernels] a tensor of {} values must be contiguous but is not", x.numel());
  void* place = const_cast<void*>(x.const_data_ptr());
  VT_CHECK(reinterpret_cast<uintptr_t>(place) % kKernelAlign == 0,
           "[kernels] memory must begin at a multiple of {} bytes but begins {} past one",
           kKernelAlign, reinterpret_cast<uintptr_t>(place) % kKernelAlign);
  return place;
}

}  // namespace

const uint16_t* bf16_in(const at::Tensor& x) { return bf16_out(x); }
uint16_t* bf16_out(const at::Tensor& x) {
  return static_cast<uint16_t*>(place_of(x, at::kBFloat16, true));
}
const float* f32_in(const at::Tensor& x) { return f32_out(x); }
float* f32_out(const at::Tensor& x) { return static_cast<float*>(place_of(x, at::kFloat, true)); }
const uint16_t* bf16_strided_in(const at::Tensor& x) { return bf16_strided_out(x); }
uint16_t* bf16_strided_out(const at::Tensor& x) {
  return static_cast<uint16_t*>(place_of(x, at::kBFloat16, false));
}

// Through the virtual guard, so that this file needs no CUDA header.
void* current_stream(at::Device device) {
  return c10::impl::VirtualGuardImpl(device.type()).getStream(device).native_handle();
}

OnDevice::OnDevice(const at::Tensor& x) : guard_(x.device()), stream_(current_stream(x.device())) {}

}  // namespace vitrail::ops
