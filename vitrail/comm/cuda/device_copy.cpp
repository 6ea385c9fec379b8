#include <cuda_runtime_api.h>

#include "vitrail/comm/self.h"

namespace vitrail::comm {

void copy_on_device(void* to, const void* from, int64_t bytes, Stream stream) {
  const cudaError_t error = cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDefault,
                                            static_cast<cudaStream_t>(stream));
  VT_REQUIRE(CommError, error == cudaSuccess, "[comm] copy of {} bytes on the device: {}", bytes,
             cudaGetErrorString(error));
}

}  // namespace vitrail::comm
