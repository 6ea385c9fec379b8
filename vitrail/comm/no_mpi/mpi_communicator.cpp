#include "vitrail/comm/mpi_backend.h"

namespace vitrail::comm {

std::unique_ptr<Communicator> mpi_communicator(const Launch& launch) {
  if (launch.launcher == "srun") return nullptr;
  core::fail<core::CommError>(
      "[launch] {} started {} ranks but this build has no MPI; install Open MPI (apt: "
      "libopenmpi-dev openmpi-bin) and "
      "configure again, or set VITRAIL_COMM_BACKEND=tcp with MASTER_ADDR and MASTER_PORT",
      launch.launcher, launch.size);
}

}  // namespace vitrail::comm
