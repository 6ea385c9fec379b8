#pragma once
/// The MPI backend, from mpi/ or no_mpi/.

#include <functional>
#include <memory>

#include "vitrail/comm/launch.h"

namespace vitrail::comm {

/// All processes that MPI started, or nullptr when MPI cannot see what srun started (its plugin is
/// missing), which is found without starting MPI where possible, since Open MPI ends a process that
/// it cannot place. throws CommError when MPI and the launcher disagree, or in a build without MPI
/// when mpirun was the launcher.
std::unique_ptr<Communicator> mpi_communicator(const Launch& launch);

}  // namespace vitrail::comm
