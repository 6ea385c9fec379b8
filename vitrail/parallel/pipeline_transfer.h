#pragma once
/// Lists of tensors on their way between neighbouring stages.
///
/// Order     a queue carries messages from one rank to one other, so that nothing in it can wait for anything but the two.
/// Streams   on a GPU transfers run on the queue's own stream; the compute stream waits for what it receives, and before
///           memory that was sent is used again. The host waits for nothing, once connections stand.

#include <optional>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "vitrail/comm/communicator.h"
#include "vitrail/parallel/device.h"

namespace vitrail::parallel {

/// Type and sides of a tensor that is about to come.
struct TensorShape {
  at::ScalarType dtype = at::kFloat;
  std::vector<int64_t> sides;
};
using Shapes = std::vector<TensorShape>;

/// Undefined tensors have no sides and the type Undefined.
Shapes shapes_of(const std::vector<at::Tensor>& tensors);

/// Tensors under way. Undefined ones keep their place but do not travel.
class Transfer {
 public:
  Transfer() = default;  // of nothing
  Transfer(std::vector<at::Tensor> tensors, std::vector<comm::Work> works, at::Device device,
           Event event);
  /// To be called before the tensors are read (received) or their memory used again (sent): the host waits on the CPU,
  /// the compute stream on a GPU. Gives up the tensors.
  std::vector<at::Tensor> done();

 private:
  std::vector<at::Tensor> tensors_;
  std::vector<comm::Work> works_;
  at::Device device_ = at::kCPU;
  std::optional<Event> event_;
};

/// Between host memories.
Transfer send_shapes(comm::Communicator& host, int to, const Shapes& shapes);
Shapes receive_shapes(comm::Communicator& host, int from);
void broadcast_shapes(comm::Communicator& host, int root, Shapes& shapes);

class TransferQueue {
 public:
  /// `group` is for buffers on `device` and used by this queue only.
  TransferQueue(comm::Communicator& group, at::Device device, int peer);
  /// Makes the connection, since the first transfer of a pair lets the host wait for its peer. Both sides call it, in
  /// the same order of queues.
  void connect(bool sends);
  Transfer send(const std::vector<at::Tensor>& tensors);
  Transfer receive(const Shapes& shapes);
  comm::Communicator& group() { return group_; }
  int peer() const { return peer_; }

 private:
  comm::Communicator& group_;
  at::Device device_;
  int peer_;
  std::string peer_text_;
  void* stream_;
};

}  // namespace vitrail::parallel
