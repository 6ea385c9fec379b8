#pragma once
/// Work of a GPU that is recorded once and then repeated as one launch (a CUDA graph).
///
/// What is repeated is every kernel with its arguments as they were: the same memory, the same numbers. So the work must
/// read what changes from tensors that stay, must not wait for the device, and must not draw by numbers of the host.

#include <functional>
#include <memory>

#include <c10/core/Device.h>

namespace vitrail::parallel {

class Graph {
 public:
  /// throws Error for the CPU and in a build without CUDA.
  explicit Graph(at::Device device);
  ~Graph();

  /// Runs the work, on the stream on which it will be recorded, after all that the current stream has been given.
  /// Libraries choose and allocate in the first runs what must not happen in a recording.
  void run(const std::function<void()>& work);
  /// Records the work without running it. Memory of tensors made in it belongs to the graph as long as that lives, and
  /// every replay overwrites it. throws Error when something in it cannot be recorded; the graph is then useless.
  void record(const std::function<void()>& work);
  /// Runs what was recorded, in the current stream's order.
  void replay();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace vitrail::parallel
