#include "vitrail/ops/random.h"

#include <limits>
#include <vector>

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include "vitrail/core/error.h"
#include "vitrail/kernels/philox.h"

namespace vitrail::ops {
namespace {

/// The cudaStream_t on which torch works now; through the virtual guard, so that this file needs no CUDA header.
void* current_stream(at::Device device) {
  const c10::Stream stream = c10::impl::VirtualGuardImpl(device.type()).getStream(device);
  return stream.native_handle();
}

/// 1 / (1 - rate) where the uniform says keep, else 0; in the type of `like`.
at::Tensor keep_scale(const at::Tensor& uniforms, double rate, const at::Tensor& like) {
  return uniforms.ge(rate).to(like.scalar_type()).div_(1.0 - rate);
}

void check_rate(const char* what, double rate) {
  VT_CHECK(rate >= 0.0 && rate < 1.0, "[{}] rate must be in [0, 1) but got {}", what, rate);
}

at::Tensor checked_ids(const at::Tensor& sample_ids, int64_t per_sample) {
  VT_CHECK(sample_ids.defined() && sample_ids.dim() == 1 && sample_ids.scalar_type() == at::kLong,
           "[uniform] sample_ids must be an int64 vector but got {}",
           sample_ids.defined() ? fmt::format("{} axes", sample_ids.dim()) : "nothing");
  VT_CHECK(per_sample >= 0 && per_sample <= std::numeric_limits<uint32_t>::max(),
           "[uniform] values per sample must be below 2^32 but got {}", per_sample);
  return sample_ids.contiguous();
}

kernels::PhiloxWindow kernel_window(const at::Tensor& x, const Window& window) {
  kernels::PhiloxWindow result;
  result.axes = static_cast<int>(x.dim()) - 1;
  VT_CHECK(result.axes >= 1 && result.axes <= kernels::PhiloxWindow::kMaxAxes &&
               window.whole.size() == static_cast<size_t>(result.axes) &&
               window.start.size() == window.whole.size(),
           "[dropout] a window must have the {} axes of a sample, 1 to {}, but has {}", result.axes,
           kernels::PhiloxWindow::kMaxAxes, window.whole.size());
  for (int axis = 0; axis < result.axes; ++axis) {
    result.extent[axis] = x.size(axis + 1);
    result.start[axis] = window.start[axis];
    result.whole[axis] = window.whole[axis];
  }
  return result;
}

/// Uniforms of the elements of x, -1 past the end of the whole.
at::Tensor uniform_of_part(const at::Tensor& x, const core::DrawKey& key,
                           const at::Tensor& sample_ids, const Window& window) {
  const kernels::PhiloxWindow part = kernel_window(x, window);
  int64_t per_sample = 1;
  for (const int64_t extent : window.whole) per_sample *= extent;
  const at::Tensor ids = checked_ids(sample_ids, per_sample);
  at::Tensor out = at::empty(x.sizes(), ids.options().dtype(at::kFloat));
  if (ids.is_cuda()) {
    const c10::DeviceGuard guard(ids.device());
    kernels::philox_uniform_window(out.mutable_data_ptr<float>(), ids.const_data_ptr<int64_t>(),
                                   ids.size(0), part, key, current_stream(ids.device()));
  } else {
    kernels::philox_uniform_window_cpu(out.mutable_data_ptr<float>(), ids.const_data_ptr<int64_t>(),
                                       ids.size(0), part, key);
  }
  return out;
}

}  // namespace

at::Tensor uniform(const core::DrawKey& key, const at::Tensor& sample_ids, int64_t per_sample) {
  const at::Tensor ids = checked_ids(sample_ids, per_sample);
  at::Tensor out = at::empty({ids.size(0), per_sample}, ids.options().dtype(at::kFloat));
  if (ids.is_cuda()) {
    const c10::DeviceGuard guard(ids.device());
    kernels::philox_uniform(out.mutable_data_ptr<float>(), ids.const_data_ptr<int64_t>(),
                            ids.size(0), per_sample, key, current_stream(ids.device()));
  } else {
    kernels::philox_uniform_cpu(out.mutable_data_ptr<float>(), ids.const_data_ptr<int64_t>(),
                                ids.size(0), per_sample, key);
  }
  return out;
}

at::Tensor dropout(const at::Tensor& x, double rate, const core::DrawKey& key,
                   const at::Tensor& sample_ids) {
  check_rate("dropout", rate);
  if (rate == 0.0) return x;
  const at::Tensor uniforms = uniform(key, sample_ids, x.numel() / x.size(0));
  return x * keep_scale(uniforms, rate, x).view(x.sizes());
}

at::Tensor dropout(const at::Tensor& x, double rate, const core::DrawKey& key,
                   const at::Tensor& sample_ids, const Window& window) {
  check_rate("dropout", rate);
  if (rate == 0.0) return x;
  return x * keep_scale(uniform_of_part(x, key, sample_ids, window), rate, x);
}

at::Tensor drop_path(const at::Tensor& x, double rate, const core::DrawKey& key,
                     const at::Tensor& sample_ids) {
  check_rate("drop_path", rate);
  if (rate == 0.0) return x;
  std::vector<int64_t> shape(x.dim(), 1);
  shape[0] = x.size(0);
  return x * keep_scale(uniform(key, sample_ids, 1), rate, x).view(shape);
}

}  // namespace vitrail::ops
