#pragma once
/// Streams, events, memory and names of devices behind one interface; the only place that calls
/// CUDA through torch.
///
/// Every function takes the device it is about and works for the CPU too (streams are null, events
/// are the host's clock), so callers hold no case distinction. In a build without CUDA a CUDA
/// device is an Error.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include <c10/core/Device.h>

namespace vitrail::parallel {

/// Visible GPUs; 0 in a build without CUDA.
int gpu_count();
/// "NVIDIA H200", or the CPU's model name.
std::string device_name(at::Device device);
/// Makes `device` the calling thread's current one.
void set_device(at::Device device);

/// The stream (a cudaStream_t) that tensor operations of this thread use; null on the CPU.
void* current_stream(at::Device device);
/// A stream of high priority beside the current one, taken from a pool; null on the CPU.
void* side_stream(at::Device device);
/// Waits until the device has done all it was given.
void synchronize(at::Device device);

/// Most bytes of tensors alive at once since the last reset: the caching allocator's count on a
/// GPU, the process's peak resident memory on the CPU.
int64_t peak_memory_bytes(at::Device device);
void reset_peak_memory(at::Device device);
/// Total memory of the device (the machine, for the CPU).
int64_t total_memory_bytes(at::Device device);

/// Host memory that a GPU copies from and to by itself while both go on (page-locked); plain memory for the CPU.
/// Begins at a page. Whoever frees it has waited for all copies.
class PinnedMemory {
 public:
  PinnedMemory() = default;
  /// throws OutOfMemoryError with the bytes asked for.
  PinnedMemory(at::Device device, int64_t bytes);
  ~PinnedMemory();
  PinnedMemory(PinnedMemory&& other) noexcept { *this = std::move(other); }
  PinnedMemory& operator=(PinnedMemory&& other) noexcept;

  std::byte* data() const { return data_; }
  int64_t bytes() const { return bytes_; }

 private:
  std::byte* data_ = nullptr;
  int64_t bytes_ = 0;
  bool locked_ = false;
};

/// Copies between pinned host memory and memory of `device`, either way, in the order of `stream`; the host does not
/// wait. On the CPU the copy is done on return.
void copy_async(at::Device device, void* to, const void* from, int64_t bytes, void* stream);

/// A point in a stream's work. On the CPU work is done when it was issued, so an event is only a
/// time.
class Event {
 public:
  explicit Event(at::Device device, bool timing = false);
  ~Event();
  Event(Event&&) noexcept;
  Event& operator=(Event&&) noexcept;

  void record(void* stream);
  /// Work queued later on `stream` starts after this point; the host does not wait.
  void make_wait(void* stream) const;
  /// The host waits for this point.
  void synchronize() const;
  /// Milliseconds from `earlier` to here; both recorded with timing; waits for this point.
  double ms_since(const Event& earlier) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace vitrail::parallel
