#include "vitrail/comm/launch.h"

#include <charconv>
#include <cstdlib>
#include <optional>
#include <string_view>
#include <vector>

#include <unistd.h>

#include "vitrail/core/error.h"

namespace vitrail::comm {
namespace {

using Get = std::function<const char*(const char*)>;

std::string host_name() {
  char text[256] = {};
  return gethostname(text, sizeof(text) - 1) == 0 ? text : "unknown-host";
}

bool is_set(const Get& get, const char* variable) {
  const char* text = get(variable);
  return text != nullptr && *text != '\0';
}

/// The variable as a whole number >= 0; throws CommError when it is anything else.
std::optional<int> number(const Get& get, const char* variable) {
  if (!is_set(get, variable)) return std::nullopt;
  const std::string_view text = get(variable);
  int value = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  VT_REQUIRE(CommError, error == std::errc() && end == text.data() + text.size() && value >= 0,
             "[launch] {} must be a whole number >= 0 but is '{}'; unset it or start with mpirun, "
             "srun or torchrun",
             variable, text);
  return value;
}

/// The names under which a launcher tells rank, size, local rank and local size.
struct Names {
  const char *launcher, *rank, *size, *local_rank, *local_size;
};

/// nullopt when neither rank nor size is set; throws when only one is, or rank >= size.
std::optional<Launch> read(const Get& get, const Names& names) {
  const std::optional<int> rank = number(get, names.rank), size = number(get, names.size);
  if (!rank && !size) return std::nullopt;
  VT_REQUIRE(CommError, rank && size, "[launch] {} is set but {} is not; set both or none",
             rank ? names.rank : names.size, rank ? names.size : names.rank);
  VT_REQUIRE(CommError, *rank < *size, "[launch] {} must be below {} but they are {} and {}",
             names.rank, names.size, *rank, *size);
  Launch launch;
  launch.launcher = names.launcher;
  launch.rank = *rank;
  launch.size = *size;
  // Without local variables all ranks are taken to be on one host.
  launch.local_rank = number(get, names.local_rank).value_or(*rank);
  launch.local_size = number(get, names.local_size).value_or(*size);
  return launch;
}

void check_local(const Launch& launch, const Names& names) {
  VT_REQUIRE(CommError, launch.local_rank < launch.local_size && launch.local_size <= launch.size,
             "[launch] {} and {} must satisfy local rank < local size <= {} but are {} and {}",
             names.local_rank, names.local_size, launch.size, launch.local_rank, launch.local_size);
}

/// Entry `node` of SLURM's "4(x2),3": tasks per node with repeats. nullopt when it cannot be read.
std::optional<int> tasks_on_node(std::string_view list, int node) {
  while (!list.empty()) {
    const std::string_view entry = list.substr(0, list.find(','));
    list.remove_prefix(std::min(list.size(), entry.size() + 1));
    int tasks = 0, repeats = 1;
    const char* last = entry.data() + entry.size();
    auto [end, error] = std::from_chars(entry.data(), last, tasks);
    if (error != std::errc()) return std::nullopt;
    if (last - end > 2 && *end == '(') std::from_chars(end + 2, last, repeats);
    if (node < repeats) return tasks;
    node -= repeats;
  }
  return std::nullopt;
}

constexpr Names kOpenMpi{"mpirun", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE",
                         "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"};
constexpr Names kTorchrun{"torchrun", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"};
constexpr Names kPmi{"mpiexec", "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"};

/// A task of a job step. The environment of an allocation alone (sbatch script, salloc shell) is
/// none: it has no step id, or one of the reserved ones from 0xfffffff0 up (batch, extern,
/// interactive).
bool is_slurm_task(const Get& get) {
  if (!is_set(get, "SLURM_PROCID") || !is_set(get, "SLURM_STEP_ID")) return false;
  const std::string_view text = get("SLURM_STEP_ID");
  uint64_t step = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), step);
  return error == std::errc() && step < 0xfffffff0u;
}

std::optional<Launch> read_slurm(const Get& get) {
  if (!is_slurm_task(get)) return std::nullopt;
  // SLURM_NTASKS may be the allocation's; the step's own count is what was started.
  const char* size = is_set(get, "SLURM_STEP_NUM_TASKS") ? "SLURM_STEP_NUM_TASKS" : "SLURM_NTASKS";
  const Names names{"srun", "SLURM_PROCID", size, "SLURM_LOCALID", "SLURM_STEP_TASKS_PER_NODE"};
  // Not a plain number, so hidden from the common reader.
  const Get without_list = [&](const char* variable) {
    return std::string_view(variable) == names.local_size ? nullptr : get(variable);
  };
  std::optional<Launch> launch = read(without_list, names);
  if (launch && is_set(get, names.local_size))
    launch->local_size =
        tasks_on_node(get(names.local_size), number(get, "SLURM_NODEID").value_or(0))
            .value_or(launch->size);
  if (launch) check_local(*launch, names);
  return launch;
}

std::optional<Launch> read_pmi(const Get& get) {
  std::optional<Launch> launch = read(get, kPmi);
  if (!launch) return launch;
  if (const std::optional<Launch> slurm = read_slurm(get);
      slurm && slurm->rank == launch->rank && slurm->size == launch->size)
    return slurm;  // srun --mpi=pmi2 sets PMI_* too
  check_local(*launch, kPmi);
  return launch;
}

}  // namespace

std::string Launch::describe() const {
  if (launcher == "none") return fmt::format("one process on {}, no launcher", host);
  return fmt::format("rank {} of {} on {} (local rank {}), started by {}", rank, size, host,
                     local_rank, launcher);
}

Launch detect_launch(const Get& get) {
  // Innermost first: mpirun and torchrun run inside a SLURM job and inherit its variables, not the
  // other way round.
  std::optional<Launch> launch = read(get, kOpenMpi);
  if (launch) check_local(*launch, kOpenMpi);
  if (!launch && (launch = read(get, kTorchrun))) check_local(*launch, kTorchrun);
  if (!launch) launch = read_pmi(get);
  if (!launch) launch = read_slurm(get);
  if (!launch) launch = Launch{};
  launch->host = host_name();
  return *launch;
}

Launch detect_launch() {
  return detect_launch([](const char* variable) { return std::getenv(variable); });
}

}  // namespace vitrail::comm
