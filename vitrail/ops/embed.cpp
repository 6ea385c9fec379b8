#include "vitrail/ops/embed.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <torch/csrc/autograd/custom_function.h>

#include "vitrail/kernels/embed.h"
#include "vitrail/ops/on_device.h"
#include "vitrail/ops/patch.h"

namespace vitrail::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// Rows are read 8 values at a time.
constexpr int64_t kWidthUnit = 8;

at::Tensor patches_on_gpu(const at::Tensor& image, int64_t patch) {
  const std::vector<int64_t> grid = patch_grid(image.sizes().slice(2), patch);
  kernels::Patchify task{.samples = image.size(0), .channels = image.size(1), .patch = patch};
  task.is_volume = grid.size() == 3;
  int64_t tokens = 1, values = image.size(1);
  for (size_t axis = 0; axis < grid.size(); ++axis) {
    task.grid[3 - grid.size() + axis] = grid[axis];
    tokens *= grid[axis];
    values *= patch;
  }
  const at::Tensor patches =
      at::empty({image.size(0), tokens, values}, image.options().dtype(at::kBFloat16));
  const OnDevice on(image);
  task.image = f32_in(image);
  task.patches = bf16_out(patches);
  kernels::patchify(task, on.stream());
  return patches;
}

struct Join : torch::autograd::Function<Join> {
  static at::Tensor forward(AutogradContext* node, const at::Tensor& prefix_1PD,
                            const at::Tensor& x_BLD, const at::Tensor& positions_1LD) {
    const int64_t B = x_BLD.size(0), L = x_BLD.size(1), D = x_BLD.size(2), P = prefix_1PD.size(1);
    node->saved_data["prefix"] = P;
    node->saved_data["has_positions"] = positions_1LD.defined();
    const at::Tensor rows = x_BLD.contiguous(), prefix = prefix_1PD.contiguous(),
                     positions =
                         positions_1LD.defined() ? positions_1LD.contiguous() : positions_1LD;
    const at::Tensor all = at::empty({B, P + L, D}, x_BLD.options());
    const OnDevice on(x_BLD);
    kernels::join_tokens({.samples = B,
                          .tokens = L,
                          .prefix = P,
                          .width = D,
                          .rows = bf16_in(rows),
                          .positions = bf16_in(positions),
                          .prefix_rows = bf16_in(prefix),
                          .all = bf16_out(all)},
                         on.stream());
    return all;
  }

  static variable_list backward(AutogradContext* node, const variable_list& gradients) {
    const at::Tensor dall = gradients[0].contiguous();
    const int64_t P = node->saved_data["prefix"].toInt();
    const int64_t B = dall.size(0), L = dall.size(1) - P, D = dall.size(2);
    variable_list result(3);
    if (node->needs_input_grad(0)) result[0] = dall.slice(1, 0, P).sum(0, /*keepdim=*/true);
    if (node->needs_input_grad(1)) {
      result[1] = at::empty({B, L, D}, dall.options());
      const OnDevice on(dall);
      kernels::split_tokens({.samples = B,
                             .tokens = L,
                             .prefix = P,
                             .width = D,
                             .all = bf16_in(dall),
                             .rows = bf16_out(result[1])},
                            on.stream());
    }
    if (node->saved_data["has_positions"].toBool() && node->needs_input_grad(2))
      result[2] = dall.slice(1, P).sum(0, /*keepdim=*/true);
    return result;
  }
};

bool joins_in_one_kernel(const at::Tensor& prefix_1PD, const at::Tensor& x_BLD,
                         const at::Tensor& positions) {
  if (!prefix_1PD.defined() || !runs_kernels(x_BLD) || !runs_kernels(prefix_1PD)) return false;
  if (positions.defined() && (positions.size(0) != 1 || !runs_kernels(positions))) return false;
  return x_BLD.size(2) % kWidthUnit == 0;
}

}  // namespace

at::Tensor embed_patches(const at::Tensor& image, int64_t patch, at::ScalarType dtype) {
  const bool has_kernel = image.is_cuda() && image.scalar_type() == at::kFloat &&
                          dtype == at::kBFloat16 && !image.requires_grad() &&
                          image.is_contiguous() && image.dim() <= 5;
  if (has_kernel) return patches_on_gpu(image, patch);
  return patchify(image.to(dtype), patch, PatchOrder::channel_first);
}

at::Tensor join_tokens(const at::Tensor& prefix_1PD, const at::Tensor& x_BLD,
                       const at::Tensor& positions) {
  if (joins_in_one_kernel(prefix_1PD, x_BLD, positions))
    return Join::apply(prefix_1PD, x_BLD, positions);
  const at::Tensor placed_BLD = positions.defined() ? x_BLD + positions : x_BLD;
  if (!prefix_1PD.defined()) return placed_BLD;
  return at::cat({prefix_1PD.expand({x_BLD.size(0), -1, -1}), placed_BLD}, 1);
}

}  // namespace vitrail::ops
