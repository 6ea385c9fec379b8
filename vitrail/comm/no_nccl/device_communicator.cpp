#include "vitrail/comm/launch.h"
#include "vitrail/comm/self.h"

namespace vitrail::comm {

std::unique_ptr<Communicator> device_communicator(Communicator& host, int) {
  if (host.size() == 1) return device_self_communicator();
  core::fail<core::CommError>(
      "[nccl] {} ranks on GPUs need NCCL but this build has none; configure with -DVITRAIL_CUDA=ON "
      "where nccl.h is found "
      "(it comes with the CUDA build of torch), or set run.device=cpu",
      host.size());
}

}  // namespace vitrail::comm
