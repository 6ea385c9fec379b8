#include "vitrail/kernels/cutlass/gemm_gelu_check.h"

#include <cuda_runtime.h>

#include "vitrail/core/error.h"
#include "vitrail/kernels/gemm_table.h"

namespace vitrail::kernels {
namespace {

int attribute(cudaDeviceAttr key, int device) {
  int value = 0;
  VT_CHECK(cudaDeviceGetAttribute(&value, key, device) == cudaSuccess,
           "[gemm] GPU {} must answer what it is", device);
  return value;
}

}  // namespace

int current_device() {
  int device = 0;
  VT_CHECK(cudaGetDevice(&device) == cudaSuccess, "[gemm] a GPU must be current");
  return device;
}

int multiprocessors(int device) { return attribute(cudaDevAttrMultiProcessorCount, device); }

bool is_capability_90(int device) {
  return attribute(cudaDevAttrComputeCapabilityMajor, device) == 9 &&
         attribute(cudaDevAttrComputeCapabilityMinor, device) == 0;
}

void refuse_gemm_gelu(const GemmShape& shape, const char* why) {
  core::fail("[gemm] {} with GELU cannot run: {}", to_words(shape), why);
}

}  // namespace vitrail::kernels
