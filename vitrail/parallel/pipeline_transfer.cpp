#include "vitrail/parallel/pipeline_transfer.h"

#include <algorithm>
#include <utility>

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include "vitrail/core/error.h"
#include "vitrail/ops/dtype.h"
#include "vitrail/parallel/timeline.h"

namespace vitrail::parallel {
namespace {

constexpr size_t kNumbers = 256;

comm::Buffer buffer_of(const at::Tensor& tensor) {
  return {tensor.data_ptr(), tensor.numel(), ops::dtype_of(tensor.scalar_type())};
}

at::Tensor blank() { return at::zeros({static_cast<int64_t>(kNumbers)}, at::kLong); }

/// The count, then of each tensor: type, axes, sides.
at::Tensor packed(const Shapes& shapes) {
  std::vector<int64_t> numbers{static_cast<int64_t>(shapes.size())};
  for (const TensorShape& shape : shapes) {
    numbers.push_back(static_cast<int64_t>(shape.dtype));
    numbers.push_back(static_cast<int64_t>(shape.sides.size()));
    numbers.insert(numbers.end(), shape.sides.begin(), shape.sides.end());
  }
  VT_CHECK(numbers.size() <= kNumbers,
           "[pipeline] the shapes of {} tensors must fit {} numbers but take {}", shapes.size(),
           kNumbers, numbers.size());
  const at::Tensor header = blank();
  std::copy(numbers.begin(), numbers.end(), header.data_ptr<int64_t>());
  return header;
}

Shapes unpacked(const at::Tensor& header) {
  const int64_t* next = header.data_ptr<int64_t>();
  Shapes shapes(static_cast<size_t>(*next++));
  for (TensorShape& shape : shapes) {
    shape.dtype = static_cast<at::ScalarType>(*next++);
    shape.sides.resize(static_cast<size_t>(*next++));
    for (int64_t& side : shape.sides) side = *next++;
  }
  return shapes;
}

}  // namespace

Shapes shapes_of(const std::vector<at::Tensor>& tensors) {
  Shapes shapes;
  for (const at::Tensor& tensor : tensors)
    shapes.push_back(tensor.defined() ? TensorShape{tensor.scalar_type(), tensor.sizes().vec()}
                                      : TensorShape{at::ScalarType::Undefined, {}});
  return shapes;
}

Transfer::Transfer(std::vector<at::Tensor> tensors, std::vector<comm::Work> works,
                   at::Device device, Event event)
    : tensors_(std::move(tensors)),
      works_(std::move(works)),
      device_(device),
      event_(std::move(event)) {}

std::vector<at::Tensor> Transfer::done() {
  if (!event_) return std::exchange(tensors_, {});
  const TimedScope timed(device_, Lane::blocking, current_stream(device_), "wait for stage");
  for (comm::Work& work : works_) work.wait();
  works_.clear();
  event_->make_wait(current_stream(device_));
  event_.reset();
  return std::exchange(tensors_, {});
}

Transfer send_shapes(comm::Communicator& host, int to, const Shapes& shapes) {
  const at::Tensor header = packed(shapes);
  std::vector<comm::Work> works;
  works.push_back(host.send(buffer_of(header), to));
  return {{header}, std::move(works), at::kCPU, Event(at::kCPU)};
}

Shapes receive_shapes(comm::Communicator& host, int from) {
  const at::Tensor header = blank();
  host.receive(buffer_of(header), from).wait();
  return unpacked(header);
}

void broadcast_shapes(comm::Communicator& host, int root, Shapes& shapes) {
  const at::Tensor header = host.rank() == root ? packed(shapes) : blank();
  host.broadcast(buffer_of(header), root).wait();
  shapes = unpacked(header);
}

TransferQueue::TransferQueue(comm::Communicator& group, at::Device device, int peer)
    : group_(group),
      device_(device),
      peer_(peer),
      peer_text_(std::to_string(peer)),
      stream_(side_stream(device)) {}

void TransferQueue::connect(bool sends) {
  const at::Tensor token = at::zeros({1}, at::TensorOptions().dtype(at::kFloat).device(device_));
  sends ? send({token}).done() : receive(shapes_of({token})).done();
}

Transfer TransferQueue::send(const std::vector<at::Tensor>& tensors) {
  std::vector<at::Tensor> sent;
  for (const at::Tensor& tensor : tensors)
    sent.push_back(tensor.defined() ? tensor.detach().contiguous() : tensor);
  Event event(device_);
  event.record(current_stream(device_));
  event.make_wait(stream_);
  std::vector<comm::Work> works;
  {
    const TimedScope timed(device_, Lane::exchange, stream_, "send to stage", peer_text_);
    for (const at::Tensor& tensor : sent)
      if (tensor.defined()) works.push_back(group_.send(buffer_of(tensor), peer_, stream_));
  }
  event.record(stream_);
  return {std::move(sent), std::move(works), device_, std::move(event)};
}

Transfer TransferQueue::receive(const Shapes& shapes) {
  std::vector<at::Tensor> tensors;
  for (const TensorShape& shape : shapes)
    tensors.push_back(
        shape.dtype == at::ScalarType::Undefined
            ? at::Tensor()
            : at::empty(shape.sides, at::TensorOptions().dtype(shape.dtype).device(device_)));
  // The memory may be what work that is still queued has just given back.
  Event event(device_);
  event.record(current_stream(device_));
  event.make_wait(stream_);
  std::vector<comm::Work> works;
  {
    const TimedScope timed(device_, Lane::exchange, stream_, "receive from stage", peer_text_);
    for (const at::Tensor& tensor : tensors)
      if (tensor.defined()) works.push_back(group_.receive(buffer_of(tensor), peer_, stream_));
  }
  event.record(stream_);
  return {std::move(tensors), std::move(works), device_, std::move(event)};
}

}  // namespace vitrail::parallel
