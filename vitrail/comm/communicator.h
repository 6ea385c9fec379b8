#pragma once
/// A group of ranks that exchange buffers.
///
/// A group of one is valid: every collective then copies or returns at once, so callers never test
/// for it. Order      every rank of a group issues the same collectives in the same order. Stream
/// `stream` is a cudaStream_t for device buffers (work is queued on it) and ignored for host
/// buffers. Memory     buffers stay alive and untouched until the returned Work is done. Bits host
/// groups add in rank order, ((x0 + x1) + x2) + ..., bf16 and f16 in fp32: every rank, every run
/// and
///            every host backend gets the same bits (docs/comm.md).
/// Types      f32 f64 f16 bf16 i64 i32 u8; sums of integers wrap.
/// Errors     CommError naming group, collective and peer; after abort() every call throws it.

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "vitrail/core/dtype.h"
#include "vitrail/core/error.h"

namespace vitrail::comm {

using Stream = void*;

struct Buffer {
  void* data = nullptr;
  int64_t count = 0;
  core::DType dtype = core::DType::f32;
  int64_t bytes() const { return count * core::size_bytes(dtype); }
};

/// average = sum / size: in host groups one division in the type of the accumulator (fp32 for bf16,
/// f16 and f32; f64 for f64), rounded once to the element type; nccl multiplies by 1/size first.
/// Integers have no average (CommError). In host groups max and min are NaN if any value is.
enum class Reduce { sum, average, max, min };
const char* name(Reduce op);

/// A collective under way. wait() returns when the result may be read by the host (host buffers) or
/// by work queued later on the stream (device buffers). Movable; the destructor waits, but where an
/// exception destroys it, it gives the group up first: peers may never come.
class Work {
 public:
  Work() = default;
  explicit Work(std::function<void()> finish, std::function<void()> give_up = {});
  Work(Work&& other) noexcept;
  Work& operator=(Work&& other) noexcept;
  ~Work();
  void wait();

 private:
  std::function<void()> finish_, give_up_;
  int exceptions_at_start_ = 0;
};

class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  /// "self", "thread", "mpi", "tcp", "nccl".
  virtual std::string backend() const = 0;

  virtual Work all_reduce(Buffer inout, Reduce op, Stream stream = nullptr) = 0;
  /// out.count == size() * in.count; `in` may be this rank's own part of `out`
  virtual Work all_gather(Buffer in, Buffer out, Stream stream = nullptr) = 0;
  /// in.count == size() * out.count
  virtual Work reduce_scatter(Buffer in, Buffer out, Reduce op, Stream stream = nullptr) = 0;
  virtual Work broadcast(Buffer inout, int root, Stream stream = nullptr) = 0;
  /// in.count == out.count, both multiples of size(); in and out do not overlap
  virtual Work all_to_all(Buffer in, Buffer out, Stream stream = nullptr) = 0;
  virtual Work send(Buffer in, int to, Stream stream = nullptr) = 0;
  virtual Work receive(Buffer out, int from, Stream stream = nullptr) = 0;
  /// send and receive as one call: the shift of a ring, which on a device would block as two. To
  /// itself: a copy.
  virtual Work send_receive(Buffer in, int to, Buffer out, int from, Stream stream = nullptr) = 0;
  virtual void barrier() = 0;

  /// Ranks that pass the same color (>= 0) form a group, ordered by key, then rank. Every rank of
  /// this group must call it.
  virtual std::unique_ptr<Communicator> split(int color, int key) = 0;
  /// Wakes every rank that waits, here and on the peers; later calls throw CommError, also on
  /// groups related by split. mpi: ends the job, this process included, with `exit_code`
  /// (MPI_Abort).
  virtual void abort(int exit_code = static_cast<int>(core::ExitCode::comm)) noexcept = 0;
  /// The last 64 collectives of this group with state and seconds, one a line; for error reports.
  virtual std::string flight_record() const { return {}; }
};

/// A group of one.
std::unique_ptr<Communicator> self_communicator();

/// Runs `body` on `size` threads, each with its own rank of one group; rethrows the first exception
/// after aborting the others. For tests of anything that takes a Communicator.
void run_thread_group(int size, const std::function<void(Communicator&)>& body);

// Small conveniences on host values, used by the training loop.
double sum(Communicator& group, double value);
double max(Communicator& group, double value);
/// True on every rank iff true on all.
bool all_agree(Communicator& group, bool value);
/// Every rank's bytes, in rank order.
std::vector<std::string> gather_strings(Communicator& group, const std::string& mine);

}  // namespace vitrail::comm
