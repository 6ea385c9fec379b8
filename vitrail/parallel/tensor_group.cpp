#include "vitrail/parallel/tensor_group.h"

#include <utility>
#include <vector>

#include <ATen/ops/empty.h>

#include "vitrail/core/error.h"
#include "vitrail/parallel/exchange.h"
#include "vitrail/parallel/timeline.h"

namespace vitrail::parallel {
TensorGroup::TensorGroup(Groups& groups)
    : device_(groups.device()),
      group_(groups.along({comm::Axis::tensor})),
      side_(side_stream(device_)) {}

template <class Call>
Pending TensorGroup::start(Where where, at::Tensor input, at::Tensor result, Call&& call) const {
  Pending pending{std::move(result), std::move(input), {}, std::nullopt};
  void* compute = current_stream(device_);
  if (where == Where::here) {
    const TimedScope timed(device_, Lane::blocking, compute, "tensor exchange");
    pending.work = call(compute);
    return pending;
  }
  Event before(device_);
  before.record(compute);
  before.make_wait(side_);
  const TimedScope timed(device_, Lane::exchange, side_, "tensor exchange");
  pending.work = call(side_);
  pending.done.emplace(device_);
  pending.done->record(side_);
  return pending;
}

Pending TensorGroup::all_reduce(const at::Tensor& x, Where where) const {
  VT_CHECK(x.is_contiguous(), "[tensor] what is summed must be contiguous");
  return start(where, x, x, [&](comm::Stream stream) {
    return group_.all_reduce(buffer_of(x), comm::Reduce::sum, stream);
  });
}

Pending TensorGroup::all_gather(const at::Tensor& x, Where where) const {
  std::vector<int64_t> shape = x.sizes().vec();
  shape.insert(shape.begin(), size());
  at::Tensor in = x.contiguous(), out = at::empty(shape, x.options());
  return start(where, in, out, [&](comm::Stream stream) {
    return group_.all_gather(buffer_of(in), buffer_of(out), stream);
  });
}

Pending TensorGroup::reduce_scatter(const at::Tensor& x, Where where) const {
  const std::vector<int64_t> shape(x.sizes().begin() + 1, x.sizes().end());
  at::Tensor in = x.contiguous(), out = at::empty(shape, x.options());
  return start(where, in, out, [&](comm::Stream stream) {
    return group_.reduce_scatter(buffer_of(in), buffer_of(out), comm::Reduce::sum, stream);
  });
}

at::Tensor TensorGroup::await(Pending& pending) const {
  const auto wait = [&] {
    pending.work.wait();
    if (pending.done) pending.done->make_wait(current_stream(device_));
  };
  if (pending.done || device_.is_cpu()) {
    const TimedScope timed(device_, Lane::blocking, current_stream(device_),
                           "wait for tensor ranks");
    wait();
  } else {
    wait();  // the compute stream itself carried it
  }
  pending.input.reset();
  return std::exchange(pending.result, {});
}

}  // namespace vitrail::parallel
