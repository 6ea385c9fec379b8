#include "vitrail/parallel/device.h"

#include <chrono>
#include <cstdlib>
#include <cstring>

#include "vitrail/core/error.h"
#include "vitrail/parallel/host.h"

namespace vitrail::parallel {
namespace {

void need_cpu(at::Device device) {
  VT_CHECK(device.is_cpu(),
           "[device] this build knows only the CPU but got {}; configure with -DVITRAIL_CUDA=ON",
           device.str());
}

}  // namespace

int gpu_count() { return 0; }

std::string device_name(at::Device device) {
  need_cpu(device);
  return host_name_of_cpu();
}

void set_device(at::Device device) { need_cpu(device); }

void* current_stream(at::Device device) {
  need_cpu(device);
  return nullptr;
}

void* side_stream(at::Device device) {
  need_cpu(device);
  return nullptr;
}

void synchronize(at::Device device) { need_cpu(device); }

int64_t peak_memory_bytes(at::Device device) {
  need_cpu(device);
  return host_peak_bytes();
}

void reset_peak_memory(at::Device device) {
  need_cpu(device);
  reset_host_peak();
}

int64_t total_memory_bytes(at::Device device) {
  need_cpu(device);
  return host_total_bytes();
}

PinnedMemory::PinnedMemory(at::Device device, int64_t bytes) : bytes_(bytes) {
  need_cpu(device);
  if (bytes > 0) data_ = host_pages(bytes);
}
PinnedMemory::~PinnedMemory() { std::free(data_); }

PinnedMemory& PinnedMemory::operator=(PinnedMemory&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  std::swap(locked_, other.locked_);
  return *this;
}

void copy_async(at::Device device, void* to, const void* from, int64_t bytes, void* /*stream*/) {
  need_cpu(device);
  std::memcpy(to, from, static_cast<size_t>(bytes));
}

struct Event::State {
  std::chrono::steady_clock::time_point time;
};

Event::Event(at::Device device, bool /*timing*/) : state_(std::make_unique<State>()) {
  need_cpu(device);
}
Event::~Event() = default;
Event::Event(Event&&) noexcept = default;
Event& Event::operator=(Event&&) noexcept = default;
void Event::record(void* /*stream*/) { state_->time = std::chrono::steady_clock::now(); }
void Event::make_wait(void* /*stream*/) const {}
void Event::synchronize() const {}
double Event::ms_since(const Event& earlier) const {
  return std::chrono::duration<double, std::milli>(state_->time - earlier.state_->time).count();
}

}  // namespace vitrail::parallel
