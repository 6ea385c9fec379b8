#include "vitrail/parallel/device.h"

#include <chrono>
#include <cstdlib>
#include <cstring>

#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime.h>

#include "vitrail/core/error.h"
#include "vitrail/parallel/host.h"

namespace vitrail::parallel {
namespace {

void check(cudaError_t status, const char* what) {
  VT_CHECK(status == cudaSuccess, "[device] {} must succeed but CUDA says: {}", what,
           cudaGetErrorString(status));
}

/// torch's index of the device; a device without index is the current one.
c10::DeviceIndex index_of(at::Device device) {
  return device.has_index() ? device.index() : c10::cuda::current_device();
}

cudaStream_t as_stream(void* stream) { return static_cast<cudaStream_t>(stream); }

}  // namespace

int gpu_count() { return c10::cuda::device_count(); }

std::string device_name(at::Device device) {
  if (device.is_cpu()) return host_name_of_cpu();
  cudaDeviceProp properties;
  check(cudaGetDeviceProperties(&properties, index_of(device)), "reading the device's properties");
  return properties.name;
}

void set_device(at::Device device) {
  if (device.is_cuda()) c10::cuda::set_device(index_of(device));
}

void* current_stream(at::Device device) {
  return device.is_cpu() ? nullptr : c10::cuda::getCurrentCUDAStream(index_of(device)).stream();
}

void* side_stream(at::Device device) {
  return device.is_cpu()
             ? nullptr
             : c10::cuda::getStreamFromPool(/*isHighPriority=*/true, index_of(device)).stream();
}

void synchronize(at::Device device) {
  if (device.is_cpu()) return;
  set_device(device);
  c10::cuda::device_synchronize();
}

int64_t peak_memory_bytes(at::Device device) {
  if (device.is_cpu()) return host_peak_bytes();
  return c10::cuda::CUDACachingAllocator::getDeviceStats(index_of(device)).allocated_bytes[0].peak;
}

void reset_peak_memory(at::Device device) {
  if (device.is_cpu()) return reset_host_peak();
  c10::cuda::CUDACachingAllocator::resetPeakStats(index_of(device));
}

int64_t total_memory_bytes(at::Device device) {
  if (device.is_cpu()) return host_total_bytes();
  cudaDeviceProp properties;
  check(cudaGetDeviceProperties(&properties, index_of(device)), "reading the device's properties");
  return static_cast<int64_t>(properties.totalGlobalMem);
}

PinnedMemory::PinnedMemory(at::Device device, int64_t bytes)
    : bytes_(bytes), locked_(device.is_cuda()) {
  if (bytes == 0) return;
  if (!locked_) {
    data_ = host_pages(bytes);
    return;
  }
  set_device(device);
  void* memory = nullptr;
  const cudaError_t status =
      cudaHostAlloc(&memory, static_cast<size_t>(bytes), cudaHostAllocDefault);
  if (status != cudaSuccess) cudaGetLastError();  // else the next call would report it again
  VT_REQUIRE(
      OutOfMemoryError, status == cudaSuccess,
      "[memory] {} bytes of page-locked host memory could not be had: {}; use fewer offloads, "
      "more ranks or another machine",
      bytes, cudaGetErrorString(status));
  data_ = static_cast<std::byte*>(memory);
}

PinnedMemory::~PinnedMemory() {
  if (locked_ && data_)
    cudaFreeHost(data_);
  else
    std::free(data_);
}

PinnedMemory& PinnedMemory::operator=(PinnedMemory&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  std::swap(locked_, other.locked_);
  return *this;
}

void copy_async(at::Device device, void* to, const void* from, int64_t bytes, void* stream) {
  if (device.is_cpu())
    std::memcpy(to, from, static_cast<size_t>(bytes));
  else
    check(
        cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDefault, as_stream(stream)),
        "copying between host and device");
}

struct Event::State {
  cudaEvent_t event = nullptr;  // null on the CPU
  std::chrono::steady_clock::time_point time;
};

Event::Event(at::Device device, bool timing) : state_(std::make_unique<State>()) {
  if (device.is_cpu()) return;
  set_device(device);
  check(
      cudaEventCreateWithFlags(&state_->event, timing ? cudaEventDefault : cudaEventDisableTiming),
      "creating an event");
}

Event::~Event() {
  if (state_ && state_->event) cudaEventDestroy(state_->event);
}

Event::Event(Event&&) noexcept = default;

Event& Event::operator=(Event&& other) noexcept {
  std::swap(state_, other.state_);
  return *this;
}

void Event::record(void* stream) {
  state_->time = std::chrono::steady_clock::now();
  if (state_->event) check(cudaEventRecord(state_->event, as_stream(stream)), "recording an event");
}

void Event::make_wait(void* stream) const {
  if (state_->event)
    check(cudaStreamWaitEvent(as_stream(stream), state_->event, 0), "waiting for an event");
}

void Event::synchronize() const {
  if (state_->event) check(cudaEventSynchronize(state_->event), "waiting for the device");
}

double Event::ms_since(const Event& earlier) const {
  if (!state_->event)
    return std::chrono::duration<double, std::milli>(state_->time - earlier.state_->time).count();
  synchronize();
  float ms = 0;
  check(cudaEventElapsedTime(&ms, earlier.state_->event, state_->event), "reading two events");
  return ms;
}

}  // namespace vitrail::parallel
