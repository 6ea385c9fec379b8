#include "vitrail/kernels/philox.h"

#include "vitrail/core/error.h"

namespace vitrail::kernels {

void philox_uniform(float*, const int64_t*, int64_t, int64_t, const core::DrawKey&, void*) {
  core::fail(
      "[kernels] philox_uniform on a GPU needs a CUDA build; configure with -DVITRAIL_CUDA=ON");
}

void philox_uniform_window(float*, const int64_t*, int64_t, const PhiloxWindow&,
                           const core::DrawKey&, void*) {
  core::fail(
      "[kernels] philox_uniform_window on a GPU needs a CUDA build; configure with "
      "-DVITRAIL_CUDA=ON");
}

}  // namespace vitrail::kernels
