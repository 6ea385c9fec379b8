// Ranks as MPI processes. Only point-to-point calls are used for data: the collectives, and with
// them the order of every sum, are the project's own.

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <thread>

// The C++ bindings that mpi.h pulls in would need a library of their own.
#define OMPI_SKIP_MPICXX 1
#define MPICH_SKIP_MPICXX 1
#include <mpi.h>

#include "vitrail/comm/host_communicator.h"
#include "vitrail/comm/mpi_backend.h"

namespace vitrail::comm {
namespace {

constexpr int kTag = 1;
constexpr int64_t kLargestMessage = int64_t{1} << 30;  // MPI counts are int
constexpr int kSpins = 100;                            // yields before the worker starts to sleep

std::atomic<int> open_groups{0};

void require(int error, const char* what) {
  if (error == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING] = {};
  int length = 0;
  MPI_Error_string(error, text, &length);
  core::fail<core::CommError>("[mpi] {}: {}", what, text);
}

bool is_running() {
  int started = 0, finished = 0;
  MPI_Initialized(&started);
  MPI_Finalized(&finished);
  return started != 0 && finished == 0;
}

void end_job_now(int exit_code) {
  std::fflush(stdout);
  std::fflush(stderr);
  MPI_Abort(MPI_COMM_WORLD, exit_code == 0 ? static_cast<int>(core::ExitCode::comm) : exit_code);
}

// Registered with atexit. A process that exits while a group is open left its main path, and
// MPI_Finalize would wait for peers that wait for it.
void finalize() {
  if (!is_running()) return;
  if (open_groups > 0) end_job_now(static_cast<int>(core::ExitCode::comm));
  MPI_Finalize();
}

void start_mpi() {
  static std::once_flag once;
  std::call_once(once, [] {
    int started = 0, level = MPI_THREAD_SINGLE;
    MPI_Initialized(&started);
    if (started)
      MPI_Query_thread(&level);
    else
      require(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_MULTIPLE, &level), "MPI_Init_thread");
    if (!started) std::atexit(finalize);
    watch_for_termination();
    VT_REQUIRE(CommError, level >= MPI_THREAD_MULTIPLE,
               "[mpi] this MPI library does not let several threads communicate "
               "(MPI_THREAD_MULTIPLE); use another one, "
               "or VITRAIL_COMM_BACKEND=tcp with MASTER_ADDR and MASTER_PORT");
  });
}

class MpiTransport final : public Transport {
 public:
  /// Owns `comm`.
  explicit MpiTransport(MPI_Comm comm) : comm_(comm) {
    ++open_groups;
    MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN);
    MPI_Comm_rank(comm_, &rank_);
    MPI_Comm_size(comm_, &size_);
  }
  ~MpiTransport() override {
    if (active_.empty() && is_running()) MPI_Comm_free(&comm_);
    --open_groups;
  }
  int rank() const override { return rank_; }
  int size() const override { return size_; }
  const char* backend() const override { return "mpi"; }

  RequestPtr start_send(int to, const void* data, int64_t bytes) override {
    return start(to, bytes, false, [&](int64_t offset, int count, MPI_Request* request) {
      return MPI_Isend(static_cast<const char*>(data) + offset, count, MPI_BYTE, to, kTag, comm_,
                       request);
    });
  }
  RequestPtr start_receive(int from, void* data, int64_t bytes) override {
    return start(from, bytes, true, [&](int64_t offset, int count, MPI_Request* request) {
      return MPI_Irecv(static_cast<char*>(data) + offset, count, MPI_BYTE, from, kTag, comm_,
                       request);
    });
  }
  void progress(std::chrono::microseconds patience) override;
  std::unique_ptr<Transport> split(const std::vector<int>& members, int, Waiter&) override;
  void end_job(int exit_code) noexcept override {
    if (is_running()) end_job_now(exit_code);
  }
  void close(const std::string& reason) noexcept override;

 private:
  struct Piece {
    RequestPtr request;
    int bytes = 0;
    bool receives = false;
  };
  template <class Start>
  RequestPtr start(int peer, int64_t bytes, bool receives, Start&& start_piece);
  void check_piece(const Piece& piece, MPI_Status& status) const;

  MPI_Comm comm_;
  int rank_ = 0, size_ = 1, idle_ = 0;
  std::vector<MPI_Request> active_;  // as MPI_Testsome wants them; pieces_ runs beside
  std::vector<Piece> pieces_;
};

template <class Start>
RequestPtr MpiTransport::start(int peer, int64_t bytes, bool receives, Start&& start_piece) {
  auto request = std::make_shared<Request>(peer);
  request->pieces =
      static_cast<int>(std::max<int64_t>(1, (bytes + kLargestMessage - 1) / kLargestMessage));
  for (int piece = 0; piece < request->pieces; ++piece) {
    const int64_t offset = piece * kLargestMessage;
    const int count = static_cast<int>(std::min(kLargestMessage, bytes - offset));
    MPI_Request handle = MPI_REQUEST_NULL;
    require(start_piece(offset, count, &handle), receives ? "MPI_Irecv" : "MPI_Isend");
    active_.push_back(handle);
    pieces_.push_back({request, count, receives});
  }
  idle_ = 0;
  return request;
}

void MpiTransport::check_piece(const Piece& piece, MPI_Status& status) const {
  if (!piece.receives) return;
  int count = 0;
  MPI_Get_count(&status, MPI_BYTE, &count);
  VT_REQUIRE(CommError, count == piece.bytes,
             "[mpi] rank {} sent {} bytes where rank {} expects {}", piece.request->peer, count,
             rank_, piece.bytes);
}

void MpiTransport::progress(std::chrono::microseconds patience) {
  if (active_.empty()) return;
  const int count = static_cast<int>(active_.size());
  int finished = 0;
  std::vector<int> indices(active_.size());
  std::vector<MPI_Status> statuses(active_.size());
  const int error = MPI_Testsome(count, active_.data(), &finished, indices.data(), statuses.data());
  if (error == MPI_ERR_IN_STATUS) {
    for (int i = 0; i < finished; ++i)
      if (statuses[static_cast<size_t>(i)].MPI_ERROR != MPI_ERR_PENDING)
        require(statuses[static_cast<size_t>(i)].MPI_ERROR, "message");
  } else {
    require(error, "MPI_Testsome");
  }
  if (finished == 0) {
    // MPI offers no wait with a time limit. Yielding first keeps short waits short; ranks may share
    // cores.
    if (++idle_ < kSpins)
      std::this_thread::yield();
    else
      std::this_thread::sleep_for(std::min(patience, std::chrono::microseconds(50)));
    return;
  }
  idle_ = 0;
  for (int i = 0; i < finished; ++i) {
    const Piece& piece = pieces_[static_cast<size_t>(indices[static_cast<size_t>(i)])];
    check_piece(piece, statuses[static_cast<size_t>(i)]);
    if (--piece.request->pieces == 0) piece.request->done = true;
  }
  size_t kept = 0;
  for (size_t i = 0; i < active_.size(); ++i) {
    if (active_[i] == MPI_REQUEST_NULL) continue;
    active_[kept] = active_[i];
    pieces_[kept++] = pieces_[i];
  }
  active_.resize(kept);
  pieces_.resize(kept);
}

std::unique_ptr<Transport> MpiTransport::split(const std::vector<int>& members, int, Waiter&) {
  int index = 0;
  while (members[static_cast<size_t>(index)] != rank_) ++index;
  MPI_Comm child = MPI_COMM_NULL;
  require(MPI_Comm_split(comm_, members.front(), index, &child), "MPI_Comm_split");
  return std::make_unique<MpiTransport>(child);
}

// The group has failed and its buffers are about to be freed, so nothing may be received into them
// any more.
void MpiTransport::close(const std::string&) noexcept {
  if (!is_running()) return;
  for (size_t i = 0; i < active_.size(); ++i)
    if (pieces_[i].receives && active_[i] != MPI_REQUEST_NULL) MPI_Cancel(&active_[i]);
  for (size_t i = 0; i < active_.size(); ++i) {
    int done = 0;
    for (int look = 0; look < 1000 && !done && active_[i] != MPI_REQUEST_NULL; ++look) {
      MPI_Test(&active_[i], &done, MPI_STATUS_IGNORE);
      if (!pieces_[i].receives) break;
      if (!done) std::this_thread::sleep_for(std::chrono::microseconds(100));
    }
  }
}

#ifdef OPEN_MPI
constexpr bool kReadsPmi = false;  // Debian's and most others know PMIx only
#else
constexpr bool kReadsPmi = true;
#endif

bool srun_offers_mpi() {
  return std::getenv("PMIX_RANK") || std::getenv("PMIX_NAMESPACE") ||
         (kReadsPmi && (std::getenv("PMI_RANK") || std::getenv("PMI_FD")));
}

}  // namespace

std::unique_ptr<Communicator> mpi_communicator(const Launch& launch) {
  const bool by_srun = launch.launcher == "srun";
  if (by_srun && !srun_offers_mpi()) return nullptr;
  start_mpi();
  int rank = 0, size = 1;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  if (by_srun && size == 1) return nullptr;
  VT_REQUIRE(CommError, size == launch.size && rank == launch.rank,
             "[mpi] {} says rank {} of {} but the MPI library says rank {} of {}; use the mpirun "
             "that belongs to the "
             "library this program is linked with",
             launch.launcher, launch.rank, launch.size, rank, size);
  MPI_Comm world = MPI_COMM_NULL;
  require(MPI_Comm_dup(MPI_COMM_WORLD, &world), "MPI_Comm_dup");
  return std::make_unique<HostCommunicator>(std::make_unique<MpiTransport>(world), "world",
                                            std::make_shared<Family>());
}

}  // namespace vitrail::comm
