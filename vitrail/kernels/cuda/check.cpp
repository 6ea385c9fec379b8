#include <cuda_runtime.h>

#include "vitrail/core/error.h"

namespace vitrail::kernels {

void check_launch(const char* where) {
  const cudaError_t status = cudaGetLastError();
  VT_CHECK(status == cudaSuccess, "[kernels] the launch of {} must succeed but CUDA says: {}",
           where, cudaGetErrorString(status));
}

}  // namespace vitrail::kernels
