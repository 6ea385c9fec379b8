#include "vitrail/parallel/halo.h"

#include <utility>
#include <vector>

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/convolution.h>
#include <ATen/ops/empty_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include "vitrail/core/error.h"
#include "vitrail/ops/norm.h"
#include "vitrail/parallel/device.h"
#include "vitrail/parallel/exchange.h"
#include "vitrail/parallel/token_border.h"

namespace vitrail::parallel {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr int64_t kRows = 2;   // the divided axis
constexpr double kEps = 1e-5;  // of nn::instance_norm

int64_t address(comm::Communicator& group) { return reinterpret_cast<int64_t>(&group); }
comm::Communicator& group_at(const at::IValue& address) {
  return *reinterpret_cast<comm::Communicator*>(address.toInt());
}

/// What the rank before sends on (`to_next`), or the rank behind sends back; zeros where there is none.
at::Tensor shifted(const at::Tensor& rows, bool to_next, comm::Communicator& group) {
  const int ranks = group.size(), rank = group.rank();
  const int next = (rank + 1) % ranks, previous = (rank + ranks - 1) % ranks;
  const at::Tensor out = rows.contiguous();
  at::Tensor in = at::empty_like(out);
  // Round the ends too, so that all ranks do the same; what comes that way is thrown away.
  group
      .send_receive(buffer_of(out), to_next ? next : previous, buffer_of(in),
                    to_next ? previous : next, current_stream(out.device()))
      .wait();
  const bool is_end = to_next ? rank == 0 : rank + 1 == ranks;
  return is_end ? in.zero_() : in;
}

struct WithHalo : torch::autograd::Function<WithHalo> {
  static at::Tensor forward(AutogradContext* node, const at::Tensor& x, int64_t width,
                            int64_t group_address) {
    node->saved_data["width"] = width;
    node->saved_data["group"] = group_address;
    comm::Communicator& group = group_at(group_address);
    const int64_t rows = x.size(kRows);
    const at::Tensor before = shifted(x.narrow(kRows, rows - width, width), true, group);
    const at::Tensor behind = shifted(x.narrow(kRows, 0, width), false, group);
    return at::cat({before, x, behind}, kRows);
  }

  /// Gradients of borrowed rows go home.
  static variable_list backward(AutogradContext* node, const variable_list& gradients) {
    const int64_t width = node->saved_data["width"].toInt();
    comm::Communicator& group = group_at(node->saved_data["group"]);
    const int64_t rows = gradients[0].size(kRows) - 2 * width;
    const at::Tensor dx = gradients[0].narrow(kRows, width, rows).clone();
    const at::Tensor of_last = shifted(gradients[0].narrow(kRows, 0, width), false, group);
    const at::Tensor of_first =
        shifted(gradients[0].narrow(kRows, width + rows, width), true, group);
    dx.narrow(kRows, rows - width, width).add_(of_last);
    dx.narrow(kRows, 0, width).add_(of_first);
    return {dx, {}, {}};
  }
};

/// The sum over all ranks, whose gradient is the sum of all ranks' gradients.
struct SumOverSlabs : torch::autograd::Function<SumOverSlabs> {
  static at::Tensor forward(AutogradContext* node, const at::Tensor& x, int64_t group_address) {
    node->saved_data["group"] = group_address;
    return summed(x, group_at(group_address));
  }
  static variable_list backward(AutogradContext* node, const variable_list& gradients) {
    return {summed(gradients[0], group_at(node->saved_data["group"])), {}};
  }
  static at::Tensor summed(const at::Tensor& x, comm::Communicator& group) {
    const at::Tensor sum = x.contiguous().clone();
    group.all_reduce(buffer_of(sum), comm::Reduce::sum, current_stream(sum.device())).wait();
    return sum;
  }
};

/// Mean over the space axes of the whole map, [B, C, 1...].
at::Tensor mean_over_map(const at::Tensor& x, comm::Communicator& group) {
  std::vector<int64_t> space;
  int64_t places = group.size();
  for (int64_t axis = kRows; axis < x.dim(); ++axis) space.push_back(axis), places *= x.size(axis);
  return SumOverSlabs::apply(x.sum(space, /*keepdim=*/true), address(group)) /
         static_cast<double>(places);
}

}  // namespace

at::Tensor enter_slab(const at::Tensor& x, comm::Communicator& group) {
  VT_REQUIRE(ConfigError, x.size(kRows) % group.size() == 0,
             "[halo] the number of ranks must divide the rows of a map but got {} and {}",
             group.size(), x.size(kRows));
  // Rows take the place of tokens.
  nn::Context unused;
  return TokenBorder(group, group.size())
      .enter(x.transpose(1, kRows), unused)
      .transpose(1, kRows)
      .contiguous();
}

at::Tensor leave_slab(const at::Tensor& x, comm::Communicator& group) {
  return TokenBorder(group, group.size())
      .leave(x.transpose(1, kRows), x.size(kRows) * group.size())
      .transpose(1, kRows);
}

at::Tensor with_halo(const at::Tensor& x, int64_t width, comm::Communicator& group) {
  VT_CHECK(width >= 0 && width <= x.size(kRows),
           "[halo] a slab must have at least the {} rows that are borrowed but has {}", width,
           x.size(kRows));
  return width == 0 ? x : WithHalo::apply(x, width, address(group));
}

at::Tensor slab_conv(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                     comm::Communicator& group) {
  const auto axes = static_cast<size_t>(weight.dim() - 2);
  const int64_t halo = weight.size(2) / 2;
  std::vector<int64_t> padding(axes, halo), ones(axes, 1), zeros(axes, 0);
  padding[0] = 0;  // the neighbours' rows lie there
  const std::optional<at::Tensor> shift = bias.defined() ? std::optional(bias) : std::nullopt;
  return at::convolution(with_halo(x, halo, group), weight, shift, ones, padding, ones, false,
                         zeros, 1);
}

at::Tensor slab_instance_norm(const at::Tensor& x, comm::Communicator& group) {
  const at::Tensor wide = x.to(ops::statistics_type(x.scalar_type()));
  const at::Tensor centred = wide - mean_over_map(wide, group);
  const at::Tensor variance = mean_over_map(centred * centred, group);
  return (centred * (variance + kEps).rsqrt()).to(x.scalar_type());
}

}  // namespace vitrail::parallel
