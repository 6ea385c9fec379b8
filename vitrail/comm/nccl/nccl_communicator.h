#pragma once
/// A group for buffers on one CUDA device a rank, on raw NCCL.
///
/// Stream     collectives are queued on the caller's stream. A stream that is being captured gets
/// no watchdog event. Blocking   communicators are non-blocking (ncclConfig blocking = 0): every
/// call is followed by a poll of the
///            communicator's state, so that abort() and the watchdog always get through.
/// Watchdog   a thread looks at NCCL's state and at an event behind each collective; after
/// VITRAIL_COMM_TIMEOUT_S
///            (default 1800 s) it aborts this rank's communicator, which frees a stuck stream; the
///            next call, wait() or barrier() throws CommError with the record.

#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>

#include <cuda_runtime_api.h>
#include <nccl.h>

#include "vitrail/comm/communicator.h"
#include "vitrail/comm/flight_recorder.h"

namespace vitrail::comm {

class NcclCommunicator final : public Communicator {
 public:
  /// Joins `size` ranks that hold the same id; every rank calls it. `host` outlives the result;
  /// abort() reaches it.
  NcclCommunicator(Communicator& host, int device, int rank, int size, const ncclUniqueId& id);
  ~NcclCommunicator() override;

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  std::string backend() const override { return "nccl"; }

  Work all_reduce(Buffer inout, Reduce op, Stream stream) override;
  Work all_gather(Buffer in, Buffer out, Stream stream) override;
  Work reduce_scatter(Buffer in, Buffer out, Reduce op, Stream stream) override;
  Work broadcast(Buffer inout, int root, Stream stream) override;
  Work all_to_all(Buffer in, Buffer out, Stream stream) override;
  Work send(Buffer in, int to, Stream stream) override;
  Work receive(Buffer out, int from, Stream stream) override;
  Work send_receive(Buffer in, int to, Buffer out, int from, Stream stream) override;
  void barrier() override;
  std::unique_ptr<Communicator> split(int color, int key) override;
  void abort(int exit_code) noexcept override;
  std::string flight_record() const override { return recorder_.text(); }

 private:
  using Clock = std::chrono::steady_clock;
  /// The event behind a collective; `active` until the watchdog saw it pass.
  struct Watched {
    cudaEvent_t event = nullptr;
    uint64_t number = 0;
    const char* collective = "";
    Clock::time_point since;
    bool active = false;
  };

  /// For split: takes over a communicator whose creation is under way.
  NcclCommunicator(Communicator& host, int device, const NcclCommunicator& parent);
  void prepare();
  void start_watching();

  template <class Call>
  Work queue(const char* collective, Buffer buffer, Stream stream, Call&& call);
  void require_open(const char* collective) const;
  void check(ncclResult_t result, const char* what);
  void settle(const char* what);
  void watch(uint64_t number, const char* collective, cudaStream_t stream);
  void guard();
  void look_at_events();
  void fail(const std::string& reason) noexcept;
  void abort_communicator() noexcept;

  Communicator& host_;
  const int device_;
  int rank_ = 0, size_ = 1;
  const std::chrono::duration<double> timeout_;
  FlightRecorder recorder_;

  // NCCL allows one call at a time on a communicator; no call under this lock blocks.
  mutable std::mutex mutex_;
  ncclComm_t comm_ = nullptr;
  std::string failure_;
  std::array<Watched, FlightRecorder::kKept> watched_{};
  size_t next_watched_ = 0;
  std::atomic<bool> failed_{false};

  cudaStream_t own_stream_ = nullptr;  // for barrier()
  void* token_ = nullptr;              // 4 bytes on the device, for barrier()

  std::condition_variable wake_;
  bool stopping_ = false;
  std::thread guard_;
};

}  // namespace vitrail::comm
