#pragma once
/// Where and under which token the ranks of a job meet when no MPI connects them.

#include <functional>
#include <string>

#include "vitrail/comm/launch.h"
#include "vitrail/comm/transport.h"

namespace vitrail::comm {

struct Rendezvous {
  std::string address;  // rank 0's host
  int port = 0;
  std::string token;  // at most kMaxToken bytes; a rank with another token is turned away
  static constexpr size_t kMaxToken = 256;
};

/// MASTER_ADDR and MASTER_PORT (port + 1 when TORCHELASTIC_USE_AGENT_STORE says that torchrun's
/// agent holds it), token from VITRAIL_JOB_TOKEN or TORCHELASTIC_RUN_ID. For srun without those:
/// the first host of SLURM_STEP_NODELIST, a port out of job and step id, and the token
/// "slurm-JOB.STEP". VITRAIL_COMM_PORT overrides the port. throws CommError when something is
/// missing or malformed, or a token is missing and the address is not loopback.
Rendezvous find_rendezvous(const Launch& launch,
                           const std::function<const char*(const char*)>& get);

/// "node[07-09,12],login1" -> "node07". throws CommError on anything else.
std::string first_host(const std::string& slurm_list);

/// Connects all ranks with each other; every rank calls it. Timeout VITRAIL_COMM_TIMEOUT_S, default
/// 300 s. throws CommError naming who is missing or was turned away.
std::unique_ptr<Transport> tcp_transport(int rank, int size, const Rendezvous& rendezvous);

/// tcp_transport as a group named "world".
std::unique_ptr<Communicator> tcp_communicator(int rank, int size, const Rendezvous& rendezvous);

}  // namespace vitrail::comm
