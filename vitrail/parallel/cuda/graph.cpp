#include "vitrail/parallel/graph.h"

#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include "vitrail/core/error.h"
#include "vitrail/parallel/device.h"

namespace vitrail::parallel {

struct Graph::State {
  explicit State(at::Device on)
      : device(on),
        stream(c10::cuda::getStreamFromPool(/*isHighPriority=*/false, on.index())),
        before(on),
        after(on) {}

  at::Device device;
  c10::cuda::CUDAStream stream;
  Event before, after;
  at::cuda::CUDAGraph graph;
};

Graph::Graph(at::Device device) {
  VT_CHECK(device.is_cuda(), "[graph] only work of a GPU can be recorded but the device is {}",
           device.str());
  state_ = std::make_unique<State>(device);
}

Graph::~Graph() = default;

void Graph::run(const std::function<void()>& work) {
  void* caller = current_stream(state_->device);
  state_->before.record(caller);
  state_->before.make_wait(state_->stream.stream());
  {
    const c10::cuda::CUDAStreamGuard guard(state_->stream);
    work();
  }
  state_->after.record(state_->stream.stream());
  state_->after.make_wait(caller);
}

void Graph::record(const std::function<void()>& work) {
  synchronize(state_->device);
  // The graph's memory is apart from the plain runs', whose cached blocks it could not use.
  c10::cuda::CUDACachingAllocator::emptyCache();
  const c10::cuda::CUDAStreamGuard guard(state_->stream);
  // Threads that load data go on allocating pinned memory meanwhile.
  state_->graph.capture_begin({0, 0}, cudaStreamCaptureModeThreadLocal);
  try {
    work();
  } catch (...) {
    try {
      state_->graph.capture_end();
    } catch (...) {  // the first error is the one to tell
    }
    throw;
  }
  state_->graph.capture_end();
}

void Graph::replay() { state_->graph.replay(); }

}  // namespace vitrail::parallel
