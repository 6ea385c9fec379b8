#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include <cuda_runtime.h>
#include <cxxabi.h>

#include "vitrail/core/error.h"

namespace vitrail::kernels {
namespace {

std::string name_of(const void* kernel) {
  const char* mangled = nullptr;
  if (cudaFuncGetName(&mangled, kernel) != cudaSuccess || mangled == nullptr)
    return "a kernel without a name";
  const std::unique_ptr<char, decltype(&std::free)> plain(
      abi::__cxa_demangle(mangled, nullptr, nullptr, nullptr), &std::free);
  return plain ? plain.get() : mangled;
}

}  // namespace

void check_launch(const char* where) {
  const cudaError_t status = cudaGetLastError();
  VT_CHECK(status == cudaSuccess, "[kernels] the launch of {} must succeed but CUDA says: {}",
           where, cudaGetErrorString(status));
}

void check_launch(const void* kernel) {
  const cudaError_t status = cudaGetLastError();
  VT_CHECK(status == cudaSuccess, "[kernels] the launch of {} must succeed but CUDA says: {}",
           name_of(kernel), cudaGetErrorString(status));
}

void allow_shared_memory(const void* kernel, size_t bytes) {
  static std::mutex mutex;
  static std::map<std::pair<int, const void*>, size_t> allowed;
  int device = 0;
  VT_CHECK(cudaGetDevice(&device) == cudaSuccess, "[kernels] a GPU must be current");
  const std::scoped_lock lock(mutex);
  size_t& most = allowed[{device, kernel}];
  if (bytes <= most) return;
  const cudaError_t status = cudaFuncSetAttribute(
      kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes));
  VT_CHECK(status == cudaSuccess, "[kernels] {} must be given {} bytes of shared memory but: {}",
           name_of(kernel), bytes, cudaGetErrorString(status));
  most = bytes;
}

}  // namespace vitrail::kernels
