#include "vitrail/parallel/exchange.h"

#include <algorithm>

#include <ATen/TensorOperators.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include "vitrail/ops/dtype.h"
#include "vitrail/parallel/device.h"
#include "vitrail/parallel/timeline.h"

namespace vitrail::parallel {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

at::Tensor exchanged(const at::Tensor& x, comm::Communicator& group) {
  const at::Tensor in = x.contiguous();
  at::Tensor out = at::empty_like(in);
  const TimedScope timed(in.device(), Lane::blocking, current_stream(in.device()), "all-to-all");
  group.all_to_all(buffer_of(in), buffer_of(out), current_stream(in.device())).wait();
  return out;
}

/// The communicator as a value that an autograd node can keep.
int64_t address(comm::Communicator& group) { return reinterpret_cast<int64_t>(&group); }
comm::Communicator& group_at(const at::IValue& address) {
  return *reinterpret_cast<comm::Communicator*>(address.toInt());
}

struct AllToAll : torch::autograd::Function<AllToAll> {
  static at::Tensor forward(AutogradContext* node, const at::Tensor& x, int64_t group) {
    node->saved_data["group"] = group;
    return exchanged(x, group_at(group));
  }
  static variable_list backward(AutogradContext* node, const variable_list& gradients) {
    return {exchanged(gradients[0], group_at(node->saved_data["group"])), {}};
  }
};

struct SumGradients : torch::autograd::Function<SumGradients> {
  static at::Tensor forward(AutogradContext* node, const at::Tensor& x, int64_t group,
                            double scale) {
    node->saved_data["group"] = group;
    node->saved_data["scale"] = scale;
    return x.view_as(x);
  }
  static variable_list backward(AutogradContext* node, const variable_list& gradients) {
    const at::Tensor sum = gradients[0].contiguous().clone();
    const TimedScope timed(sum.device(), Lane::blocking, current_stream(sum.device()),
                           "sum gradients");
    group_at(node->saved_data["group"])
        .all_reduce(buffer_of(sum), comm::Reduce::sum, current_stream(sum.device()))
        .wait();
    return {sum * node->saved_data["scale"].toDouble(), {}, {}};
  }
};

}  // namespace

comm::Buffer buffer_of(const at::Tensor& tensor) {
  return {tensor.data_ptr(), tensor.numel(), ops::dtype_of(tensor.scalar_type())};
}

at::Tensor padded_narrow(const at::Tensor& x, int64_t dim, int64_t start, int64_t count) {
  const int64_t first = std::min(start, x.size(dim));
  const int64_t there = std::min(count, x.size(dim) - first);
  const at::Tensor part = x.narrow(dim, first, there);
  if (there == count) return part;
  std::vector<int64_t> pad(2 * (x.dim() - dim), 0);  // pairs from the last axis on
  pad.back() = count - there;
  return at::constant_pad_nd(part, pad);
}

at::Tensor gather_runs(const at::Tensor& x, int64_t whole, comm::Communicator& group) {
  const at::Tensor in = x.contiguous();
  std::vector<int64_t> shape = in.sizes().vec();
  shape.insert(shape.begin(), group.size());
  const at::Tensor out = at::empty(shape, in.options());
  const TimedScope timed(in.device(), Lane::blocking, current_stream(in.device()), "gather tokens");
  group.all_gather(buffer_of(in), buffer_of(out), current_stream(in.device())).wait();
  shape.erase(shape.begin());
  shape[1] *= group.size();
  return out.transpose(0, 1).reshape(shape).narrow(1, 0, whole);
}

at::Tensor all_to_all(const at::Tensor& x, comm::Communicator& group) {
  return group.size() == 1 ? x : AllToAll::apply(x, address(group));
}

at::Tensor sum_gradients(const at::Tensor& x, comm::Communicator& group, double scale) {
  return SumGradients::apply(x, address(group), scale);
}

}  // namespace vitrail::parallel
