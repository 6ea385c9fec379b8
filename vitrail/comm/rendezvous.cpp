#include "vitrail/comm/rendezvous.h"

#include <charconv>

#include "vitrail/comm/host_communicator.h"
#include "vitrail/comm/socket.h"

namespace vitrail::comm {
namespace {

using Get = std::function<const char*(const char*)>;

std::string text_of(const Get& get, const char* variable) {
  const char* text = get(variable);
  return text == nullptr ? "" : text;
}

uint64_t number_of(const Get& get, const char* variable) {
  const std::string text = text_of(get, variable);
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  VT_REQUIRE(CommError, error == std::errc() && end == text.data() + text.size(),
             "[rendezvous] {} must be a whole number but is '{}'", variable, text);
  return value;
}

int port_of(const Get& get, const char* variable) {
  const uint64_t port = number_of(get, variable);
  VT_REQUIRE(CommError, port >= 1 && port <= 65535,
             "[rendezvous] {} must be in 1 ... 65535 but is {}", variable, port);
  return static_cast<int>(port);
}

Rendezvous from_slurm(const Get& get) {
  Rendezvous meeting;
  meeting.address = first_host(text_of(get, "SLURM_STEP_NODELIST"));
  const uint64_t job = number_of(get, "SLURM_JOB_ID"), step = number_of(get, "SLURM_STEP_ID");
  // Below the range that Linux gives to outgoing connections (32768 and up).
  meeting.port = static_cast<int>(15000 + (job * 131 + step * 17) % 15000);
  meeting.token = fmt::format("slurm-{}.{}", job, step);
  return meeting;
}

Rendezvous from_master(const Get& get) {
  Rendezvous meeting;
  meeting.address = text_of(get, "MASTER_ADDR");
  VT_REQUIRE(CommError, !meeting.address.empty() && !text_of(get, "MASTER_PORT").empty(),
             "[rendezvous] several ranks without MPI need MASTER_ADDR and MASTER_PORT, rank 0's "
             "host and a free port");
  meeting.port = port_of(get, "MASTER_PORT");
  if (text_of(get, "TORCHELASTIC_USE_AGENT_STORE") == "True")
    meeting.port = meeting.port % 65535 + 1;
  meeting.token = text_of(get, "TORCHELASTIC_RUN_ID");
  if (meeting.token == "none") meeting.token.clear();  // torchrun's default is no secret
  return meeting;
}

}  // namespace

std::string first_host(const std::string& slurm_list) {
  const std::string first = slurm_list.substr(0, slurm_list.find_first_of(",["));
  VT_REQUIRE(CommError, !slurm_list.empty(),
             "[rendezvous] SLURM_STEP_NODELIST is empty; set MASTER_ADDR and MASTER_PORT");
  if (first.size() == slurm_list.size() || slurm_list[first.size()] == ',') return first;
  const size_t open = first.size();
  const size_t close = slurm_list.find(']', open), end = slurm_list.find_first_of(",-]", open + 1);
  const std::string digits =
      slurm_list.substr(open + 1, end == std::string::npos ? 0 : end - open - 1);
  VT_REQUIRE(
      CommError,
      close != std::string::npos && !digits.empty() &&
          digits.find_first_not_of("0123456789") == std::string::npos,
      "[rendezvous] SLURM_STEP_NODELIST '{}' cannot be read; set MASTER_ADDR and MASTER_PORT",
      slurm_list);
  // What follows the bracket belongs to the name too: rack[1-2]-gpu.
  const size_t tail = slurm_list.find_first_of(",[", close);
  return first + digits +
         slurm_list.substr(close + 1,
                           (tail == std::string::npos ? slurm_list.size() : tail) - close - 1);
}

Rendezvous find_rendezvous(const Launch& launch, const Get& get) {
  const bool has_master =
      !text_of(get, "MASTER_ADDR").empty() && !text_of(get, "MASTER_PORT").empty();
  Rendezvous meeting =
      launch.launcher == "srun" && !has_master ? from_slurm(get) : from_master(get);
  if (!text_of(get, "VITRAIL_COMM_PORT").empty()) meeting.port = port_of(get, "VITRAIL_COMM_PORT");
  if (const std::string token = text_of(get, "VITRAIL_JOB_TOKEN"); !token.empty())
    meeting.token = token;
  VT_REQUIRE(CommError, meeting.token.size() <= Rendezvous::kMaxToken,
             "[rendezvous] the job token must be at most {} bytes but has {}",
             Rendezvous::kMaxToken, meeting.token.size());
  if (meeting.token.empty()) {
    VT_REQUIRE(
        CommError, is_loopback(meeting.address),
        "[rendezvous] ranks that meet at {} need a job token, so that no other program joins; set "
        "VITRAIL_JOB_TOKEN to the same random text on every rank",
        meeting.address);
    meeting.token = fmt::format("vitrail-{}", meeting.port);
  }
  return meeting;
}

std::unique_ptr<Communicator> tcp_communicator(int rank, int size, const Rendezvous& rendezvous) {
  return std::make_unique<HostCommunicator>(tcp_transport(rank, size, rendezvous), "world",
                                            std::make_shared<Family>());
}

}  // namespace vitrail::comm
