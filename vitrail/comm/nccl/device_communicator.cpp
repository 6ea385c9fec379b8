// The rendezvous of a device group: one rank makes the id, the host group carries it.

#include <cstring>

#include <cuda_runtime_api.h>
#include <nccl.h>

#include "nccl_communicator.h"
#include "vitrail/comm/launch.h"
#include "vitrail/comm/self.h"

namespace vitrail::comm {
namespace {

/// The GPU's own number, which is the same in every process and container.
std::string gpu_of(int device) {
  cudaDeviceProp properties{};
  const cudaError_t error = cudaGetDeviceProperties(&properties, device);
  VT_REQUIRE(CommError, error == cudaSuccess, "[nccl] CUDA device {} cannot be used: {}", device,
             cudaGetErrorString(error));
  std::string text;
  for (const char byte : properties.uuid.bytes)
    text += fmt::format("{:02x}", static_cast<unsigned char>(byte));
  return text;
}

/// NCCL would hang or fail obscurely. Every rank sees the same list, so every rank throws.
void require_one_rank_per_gpu(Communicator& host, int device) {
  // A rank without its device must still answer, or the others would wait for it.
  std::string mine, problem;
  try {
    mine = gpu_of(device);
  } catch (const core::CommError& error) {
    problem = error.what();
  }
  const std::vector<std::string> gpus = gather_strings(host, mine);
  if (!problem.empty()) throw core::CommError(problem);
  for (size_t one = 0; one < gpus.size(); ++one) {
    VT_REQUIRE(CommError, !gpus[one].empty(), "[nccl] rank {} has no usable CUDA device", one);
    for (size_t other = 0; other < one; ++other)
      VT_REQUIRE(CommError, gpus[one] != gpus[other],
                 "[nccl] ranks {} and {} use one GPU ({}), but each rank needs its own; start at "
                 "most one rank a GPU and "
                 "give rank r of a host device r, or check CUDA_VISIBLE_DEVICES",
                 other, one, gpus[one]);
  }
}

}  // namespace

std::unique_ptr<Communicator> device_communicator(Communicator& host, int device) {
  if (host.size() == 1) return device_self_communicator();
  require_one_rank_per_gpu(host, device);
  ncclUniqueId id{};
  // Rank 0's failure is told to all by an id of zeros, which NCCL never makes.
  const bool made = host.rank() != 0 || ncclGetUniqueId(&id) == ncclSuccess;
  if (!made) std::memset(&id, 0, sizeof(id));
  host.broadcast({&id, static_cast<int64_t>(sizeof(id)), core::DType::u8}, 0).wait();
  const ncclUniqueId none{};
  VT_REQUIRE(CommError, std::memcmp(&id, &none, sizeof(id)) != 0,
             "[nccl] rank 0 could not start NCCL's rendezvous: {}", ncclGetLastError(nullptr));
  return std::make_unique<NcclCommunicator>(host, device, host.rank(), host.size(), id);
}

}  // namespace vitrail::comm
