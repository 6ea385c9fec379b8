#include "nccl_communicator.h"

#include <exception>

#include "vitrail/comm/host_communicator.h"
#include "vitrail/comm/reduce.h"
#include "vitrail/comm/transport.h"

namespace vitrail::comm {
namespace {

using core::DType;

constexpr double kCollectiveTimeout = 1800;
constexpr std::chrono::milliseconds kLate(200);  // for a collective that is only under way
constexpr double kFinalizeTimeout =
    30;  // how long a group that ends waits for its peers to end too
constexpr auto kLook = std::chrono::milliseconds(100);

ncclDataType_t nccl_type(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return ncclFloat32;
    case DType::f64:
      return ncclFloat64;
    case DType::f16:
      return ncclFloat16;
    case DType::bf16:
      return ncclBfloat16;
    case DType::i64:
      return ncclInt64;
    case DType::i32:
      return ncclInt32;
    default:
      return ncclUint8;
  }
}

ncclRedOp_t nccl_op(Reduce op) {
  switch (op) {
    case Reduce::sum:
      return ncclSum;
    case Reduce::average:
      return ncclAvg;
    case Reduce::max:
      return ncclMax;
    case Reduce::min:
      return ncclMin;
  }
  return ncclSum;
}

void check_cuda(cudaError_t error, const char* what) {
  VT_REQUIRE(CommError, error == cudaSuccess, "[nccl] {}: {}", what, cudaGetErrorString(error));
}

/// Makes `device` current for a scope; the caller's choice comes back.
class DeviceScope {
 public:
  explicit DeviceScope(int device) {
    check_cuda(cudaGetDevice(&before_), "cudaGetDevice");
    check_cuda(cudaSetDevice(device), "cudaSetDevice");
  }
  ~DeviceScope() { cudaSetDevice(before_); }
  DeviceScope(const DeviceScope&) = delete;
  DeviceScope& operator=(const DeviceScope&) = delete;

 private:
  int before_ = 0;
};

char* at(Buffer buffer, int64_t element) {
  return static_cast<char*>(buffer.data) + element * core::size_bytes(buffer.dtype);
}

ncclConfig_t non_blocking() {
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  return config;
}

}  // namespace

NcclCommunicator::NcclCommunicator(Communicator& host, int device, int rank, int size,
                                   const ncclUniqueId& id)
    : host_(host),
      device_(device),
      rank_(rank),
      size_(size),
      timeout_(timeout_setting(kCollectiveTimeout)) {
  const DeviceScope scope(device_);
  ncclConfig_t config = non_blocking();
  try {
    check(ncclCommInitRankConfig(&comm_, size, id, rank, &config), "ncclCommInitRankConfig");
    prepare();
  } catch (...) {
    abort_communicator();
    throw;
  }
  start_watching();
}

NcclCommunicator::NcclCommunicator(Communicator& host, int device, const NcclCommunicator& parent)
    : host_(host), device_(device), timeout_(parent.timeout_) {}

void NcclCommunicator::prepare() {
  check_cuda(cudaStreamCreateWithFlags(&own_stream_, cudaStreamNonBlocking), "cudaStreamCreate");
  check_cuda(cudaMalloc(&token_, 4), "cudaMalloc");
  check_cuda(cudaMemset(token_, 0, 4), "cudaMemset");
  check_cuda(cudaDeviceSynchronize(), "cudaMemset");
  for (Watched& watched : watched_)
    check_cuda(cudaEventCreateWithFlags(&watched.event, cudaEventDisableTiming), "cudaEventCreate");
}

void NcclCommunicator::start_watching() {
  guard_ = std::thread([this] { guard(); });
}

NcclCommunicator::~NcclCommunicator() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  if (guard_.joinable()) guard_.join();
  int before = 0;
  if (cudaGetDevice(&before) != cudaSuccess) return;  // the driver is gone, and everything with it
  cudaSetDevice(device_);
  // An orderly end waits for the peers; a rank that goes because of an exception must not.
  if (comm_ && std::uncaught_exceptions() == 0) {
    ncclResult_t state = ncclCommFinalize(comm_);
    const auto deadline = Clock::now() + std::chrono::duration<double>(kFinalizeTimeout);
    while (state == ncclInProgress && Clock::now() < deadline) {
      std::this_thread::yield();
      if (ncclCommGetAsyncError(comm_, &state) != ncclSuccess) break;
    }
    if (state == ncclSuccess) {
      ncclCommDestroy(comm_);
      comm_ = nullptr;
    }
  }
  abort_communicator();
  for (Watched& watched : watched_)
    if (watched.event) cudaEventDestroy(watched.event);
  if (token_) cudaFree(token_);
  if (own_stream_) cudaStreamDestroy(own_stream_);
  cudaSetDevice(before);
}

// --- calls ---

void NcclCommunicator::require_open(const char* collective) const {
  if (!failed_) return;
  const std::lock_guard lock(mutex_);
  core::fail<core::CommError>("[nccl] {}: rank {} of {}: {}", collective, rank_, size_, failure_);
}

void NcclCommunicator::check(ncclResult_t result, const char* what) {
  if (result == ncclInProgress) return settle(what);
  VT_REQUIRE(CommError, result == ncclSuccess, "[nccl] {} on rank {} of {}: {} ({})", what, rank_,
             size_, ncclGetErrorString(result),
             comm_ ? ncclGetLastError(comm_) : "no communicator");
}

/// Polls until what was started has been taken over by NCCL's own threads or by the stream.
void NcclCommunicator::settle(const char* what) {
  const auto start = Clock::now();
  for (int looks = 0;; ++looks) {
    require_open(what);
    ncclResult_t state = ncclInProgress;
    {
      const std::lock_guard lock(mutex_);
      if (comm_ && ncclCommGetAsyncError(comm_, &state) != ncclSuccess) state = ncclInternalError;
    }
    if (state == ncclSuccess) return;
    if (state != ncclInProgress) check(state, what);
    VT_REQUIRE(CommError, Clock::now() - start < timeout_,
               "[nccl] {} on rank {} of {} took more than {:.6g} s (VITRAIL_COMM_TIMEOUT_S); is a "
               "rank missing?",
               what, rank_, size_, timeout_.count());
    if (looks < 1000)
      std::this_thread::yield();
    else
      std::this_thread::sleep_for(std::chrono::microseconds(100));
  }
}

/// Queues call(comm, stream) as one NCCL group.
template <class Call>
Work NcclCommunicator::queue(const char* collective, Buffer buffer, Stream stream, Call&& call) {
  require_open(collective);
  if (buffer.count == 0) return {};  // counts agree between ranks, so nobody waits
  const DeviceScope scope(device_);
  const auto cuda_stream = static_cast<cudaStream_t>(stream);
  const uint64_t number = recorder_.add(collective, buffer.count, buffer.dtype);
  recorder_.started(number);
  ncclResult_t result = ncclSuccess, end = ncclSuccess;
  {
    const std::lock_guard lock(mutex_);
    VT_REQUIRE(CommError, comm_ != nullptr, "[nccl] {}: rank {} of {}: {}", collective, rank_,
               size_, failure_);
    ncclGroupStart();
    result = call(comm_, cuda_stream);
    end = ncclGroupEnd();
  }
  if (result != ncclSuccess && result != ncclInProgress) check(result, collective);
  check(end, collective);
  watch(number, collective, cuda_stream);
  return Work([this, collective] { require_open(collective); });
}

Work NcclCommunicator::all_reduce(Buffer inout, Reduce op, Stream stream) {
  check_buffer("all_reduce", inout);
  require_reducible("all_reduce", inout.dtype, op);
  return queue("all_reduce", inout, stream, [&](ncclComm_t comm, cudaStream_t on) {
    return ncclAllReduce(inout.data, inout.data, static_cast<size_t>(inout.count),
                         nccl_type(inout.dtype), nccl_op(op), comm, on);
  });
}

Work NcclCommunicator::all_gather(Buffer in, Buffer out, Stream stream) {
  check_gather(size_, in, out);
  return queue("all_gather", in, stream, [&](ncclComm_t comm, cudaStream_t on) {
    return ncclAllGather(in.data, out.data, static_cast<size_t>(in.count), nccl_type(in.dtype),
                         comm, on);
  });
}

Work NcclCommunicator::reduce_scatter(Buffer in, Buffer out, Reduce op, Stream stream) {
  check_scatter(size_, in, out, op);
  return queue("reduce_scatter", out, stream, [&](ncclComm_t comm, cudaStream_t on) {
    return ncclReduceScatter(in.data, out.data, static_cast<size_t>(out.count), nccl_type(in.dtype),
                             nccl_op(op), comm, on);
  });
}

Work NcclCommunicator::broadcast(Buffer inout, int root, Stream stream) {
  check_buffer("broadcast", inout);
  check_peer("broadcast", size_, root);
  return queue("broadcast", inout, stream, [&](ncclComm_t comm, cudaStream_t on) {
    return ncclBroadcast(inout.data, inout.data, static_cast<size_t>(inout.count),
                         nccl_type(inout.dtype), root, comm, on);
  });
}

Work NcclCommunicator::all_to_all(Buffer in, Buffer out, Stream stream) {
  check_all_to_all(size_, in, out);
  const int64_t count = in.count / size_;
  return queue("all_to_all", in, stream, [&](ncclComm_t comm, cudaStream_t on) {
    for (int peer = 0; peer < size_; ++peer) {
      ncclResult_t result = ncclSend(at(in, peer * count), static_cast<size_t>(count),
                                     nccl_type(in.dtype), peer, comm, on);
      if (result != ncclSuccess && result != ncclInProgress) return result;
      result = ncclRecv(at(out, peer * count), static_cast<size_t>(count), nccl_type(in.dtype),
                        peer, comm, on);
      if (result != ncclSuccess && result != ncclInProgress) return result;
    }
    return ncclSuccess;
  });
}

Work NcclCommunicator::send(Buffer in, int to, Stream stream) {
  check_buffer("send", in);
  check_peer("send", size_, to);
  VT_REQUIRE(CommError, to != rank_,
             "[comm] send: rank {} cannot be its own peer; use send_receive", to);
  return queue("send", in, stream, [&](ncclComm_t comm, cudaStream_t on) {
    return ncclSend(in.data, static_cast<size_t>(in.count), nccl_type(in.dtype), to, comm, on);
  });
}

Work NcclCommunicator::receive(Buffer out, int from, Stream stream) {
  check_buffer("receive", out);
  check_peer("receive", size_, from);
  VT_REQUIRE(CommError, from != rank_,
             "[comm] receive: rank {} cannot be its own peer; use send_receive", from);
  return queue("receive", out, stream, [&](ncclComm_t comm, cudaStream_t on) {
    return ncclRecv(out.data, static_cast<size_t>(out.count), nccl_type(out.dtype), from, comm, on);
  });
}

Work NcclCommunicator::send_receive(Buffer in, int to, Buffer out, int from, Stream stream) {
  check_buffer("send_receive", in);
  check_buffer("send_receive", out);
  check_peer("send_receive", size_, to);
  check_peer("send_receive", size_, from);
  const Buffer& larger = in.count > out.count ? in : out;
  return queue("send_receive", larger, stream, [&](ncclComm_t comm, cudaStream_t on) {
    ncclResult_t result = ncclSuccess;
    if (in.count > 0)
      result = ncclSend(in.data, static_cast<size_t>(in.count), nccl_type(in.dtype), to, comm, on);
    if (result != ncclSuccess && result != ncclInProgress) return result;
    if (out.count > 0)
      result =
          ncclRecv(out.data, static_cast<size_t>(out.count), nccl_type(out.dtype), from, comm, on);
    return result;
  });
}

void NcclCommunicator::barrier() {
  all_reduce({token_, 1, DType::i32}, Reduce::max, own_stream_).wait();
  const DeviceScope scope(device_);
  // cudaStreamSynchronize would also return after an abort, but looking is what lets a failure be
  // told at once.
  cudaError_t state = cudaErrorNotReady;
  while ((state = cudaStreamQuery(own_stream_)) == cudaErrorNotReady) {
    require_open("barrier");
    std::this_thread::yield();
  }
  require_open("barrier");
  check_cuda(state, "barrier");
}

std::unique_ptr<Communicator> NcclCommunicator::split(int color, int key) {
  check_color(color);
  require_open("split");
  const DeviceScope scope(device_);
  std::unique_ptr<NcclCommunicator> child(new NcclCommunicator(host_, device_, *this));
  ncclConfig_t config = non_blocking();
  ncclResult_t result = ncclSuccess;
  {
    const std::lock_guard lock(mutex_);
    VT_REQUIRE(CommError, comm_ != nullptr, "[nccl] split: {}", failure_);
    result = ncclCommSplit(comm_, color, key, &child->comm_, &config);
  }
  check(result, "ncclCommSplit");
  settle("ncclCommSplit");
  child->settle("ncclCommSplit");
  check(ncclCommUserRank(child->comm_, &child->rank_), "ncclCommUserRank");
  check(ncclCommCount(child->comm_, &child->size_), "ncclCommCount");
  child->prepare();
  child->start_watching();
  return child;
}

// --- failure ---

void NcclCommunicator::abort_communicator() noexcept {
  const std::lock_guard lock(mutex_);
  if (comm_) ncclCommAbort(comm_);
  comm_ = nullptr;
}

void NcclCommunicator::fail(const std::string& reason) noexcept {
  {
    const std::lock_guard lock(mutex_);
    if (failure_.empty()) failure_ = reason;
  }
  failed_ = true;
  abort_communicator();
}

void NcclCommunicator::abort(int exit_code) noexcept {
  fail("the group was aborted");
  host_.abort(exit_code);  // the peers learn of it from their host group
}

void NcclCommunicator::watch(uint64_t number, const char* collective, cudaStream_t stream) {
  cudaStreamCaptureStatus capture = cudaStreamCaptureStatusNone;
  if (cudaStreamIsCapturing(stream, &capture) != cudaSuccess ||
      capture != cudaStreamCaptureStatusNone)
    return;
  const std::lock_guard lock(mutex_);
  Watched& watched = watched_[next_watched_++ % watched_.size()];
  if (watched.active) recorder_.finished(watched.number);  // 64 collectives ago; no longer watched
  watched = {watched.event, number, collective, Clock::now(), true};
  check_cuda(cudaEventRecord(watched.event, stream), "cudaEventRecord");
}

void NcclCommunicator::look_at_events() {
  std::string reason;
  {
    const std::lock_guard lock(mutex_);
    for (Watched& watched : watched_) {
      if (!watched.active) continue;
      const cudaError_t state = cudaEventQuery(watched.event);
      if (state == cudaSuccess) {
        watched.active = false;
        recorder_.finished(watched.number);
      } else if (state == cudaErrorNotReady && Clock::now() - watched.since > kLate &&
                 termination() == Termination::ends_process) {
        reason =
            fmt::format("was told to end (SIGTERM) while {} #{} is under way; has a rank died?",
                        watched.collective, watched.number);
        break;
      } else if (state == cudaErrorNotReady && Clock::now() - watched.since > timeout_) {
        recorder_.failed(watched.number);
        reason = fmt::format(
            "{} #{} did not end within {:.6g} s (VITRAIL_COMM_TIMEOUT_S); is a rank missing?\n"
            "last collectives of this rank:\n{}",
            watched.collective, watched.number, timeout_.count(), recorder_.text(8));
        break;
      }
    }
    ncclResult_t state = ncclSuccess;
    if (reason.empty() && comm_ && ncclCommGetAsyncError(comm_, &state) == ncclSuccess &&
        state != ncclSuccess && state != ncclInProgress)
      reason = fmt::format("{} ({})", ncclGetErrorString(state), ncclGetLastError(comm_));
  }
  if (!reason.empty()) fail(reason);
}

void NcclCommunicator::guard() {
  cudaSetDevice(device_);
  while (true) {
    {
      std::unique_lock lock(mutex_);
      if (wake_.wait_for(lock, kLook, [&] { return stopping_; })) return;
    }
    if (!failed_) look_at_events();
  }
}

}  // namespace vitrail::comm
