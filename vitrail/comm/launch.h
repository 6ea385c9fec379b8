#pragma once
/// How this process was started: which launcher, which rank, how many. srun, mpirun, torchrun-style
/// variables, none.

#include <functional>
#include <memory>
#include <string>

#include "vitrail/comm/communicator.h"

namespace vitrail::comm {

struct Launch {
  std::string launcher = "none";  // "mpirun", "srun", "torchrun", "none"
  int rank = 0, size = 1, local_rank = 0, local_size = 1;
  std::string host;
  /// "rank 1 of 4 on node07 (local rank 1), started by mpirun"
  std::string describe() const;
};

/// Reads the launcher's variables (docs/comm.md; the innermost launcher wins) through `get`
/// (std::getenv in the program, a table in tests). throws CommError when they contradict each
/// other.
Launch detect_launch(const std::function<const char*(const char*)>& get);
Launch detect_launch();

/// The group of all processes for host memory. MPI where a launcher started several processes (srun
/// needs its MPI plugin; torchrun-style variables use the built-in TCP rendezvous), self otherwise.
std::unique_ptr<Communicator> world_communicator(const Launch& launch);

/// A group over the same ranks for buffers on CUDA device `device`; NCCL. `host` carries the
/// rendezvous. throws CommError in a build without NCCL when host.size() > 1.
std::unique_ptr<Communicator> device_communicator(Communicator& host, int device);

}  // namespace vitrail::comm
