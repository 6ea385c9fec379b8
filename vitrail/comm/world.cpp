#include <cstdlib>
#include <string_view>

#include "vitrail/comm/launch.h"
#include "vitrail/comm/mpi_backend.h"
#include "vitrail/comm/rendezvous.h"

namespace vitrail::comm {
namespace {

std::string_view wanted_backend() {
  const char* text = std::getenv("VITRAIL_COMM_BACKEND");
  const std::string_view wanted = text == nullptr || *text == '\0' ? "auto" : text;
  VT_REQUIRE(CommError, wanted == "auto" || wanted == "mpi" || wanted == "tcp",
             "[launch] VITRAIL_COMM_BACKEND must be auto, mpi or tcp but is '{}'", wanted);
  return wanted;
}

}  // namespace

std::unique_ptr<Communicator> world_communicator(const Launch& launch) {
  if (launch.size == 1) return self_communicator();
  const std::string_view wanted = wanted_backend();
  const bool tcp = wanted == "tcp" || (wanted == "auto" && launch.launcher == "torchrun");
  if (!tcp) {
    std::unique_ptr<Communicator> world = mpi_communicator(launch);
    if (world) return world;
    VT_REQUIRE(
        CommError, wanted == "auto",
        "[launch] srun started {} ranks but without an MPI plugin; use srun --mpi=pmix or unset "
        "VITRAIL_COMM_BACKEND",
        launch.size);
  }
  const Rendezvous meeting =
      find_rendezvous(launch, [](const char* variable) { return std::getenv(variable); });
  return tcp_communicator(launch.rank, launch.size, meeting);
}

}  // namespace vitrail::comm
