#include "vitrail/ops/activation.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/gelu_backward.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/silu_backward.h>

#include "vitrail/core/error.h"
#include "vitrail/kernels/activation.h"
#include "vitrail/kernels/fp8.h"
#include "vitrail/ops/norm.h"
#include "vitrail/ops/on_device.h"

namespace vitrail::ops {
namespace {

at::Tensor widened(const at::Tensor& x) { return x.to(statistics_type(x.scalar_type())); }

const char* approximation(ActivationKind kind) {
  return kind == ActivationKind::gelu_tanh ? "tanh" : "none";
}

kernels::Activation kernel_task(ActivationKind kind, const at::Tensor& pre,
                                const at::Tensor& gate) {
  kernels::Activation task;
  task.kind = static_cast<kernels::ActivationKind>(kind);
  task.width = pre.size(-1);
  task.rows = pre.numel() / task.width;
  task.pre = bf16_in(pre);
  task.gate = bf16_in(gate);
  return task;
}

static_assert(static_cast<int>(ActivationKind::silu_gate) ==
                  static_cast<int>(kernels::ActivationKind::silu_gate) &&
              static_cast<int>(ActivationKind::gelu_tanh) ==
                  static_cast<int>(kernels::ActivationKind::gelu_tanh));

ActivationGradients backward_on_gpu(const ActivationBackward& given) {
  const OnDevice on(given.dout);
  ActivationGradients result{given.wants_dpre ? given.dout : at::Tensor(), given.gate, {}};
  if (given.wants_out) result.out = at::empty_like(given.pre);
  kernels::ActivationBackward task;
  task.forward = kernel_task(given.kind, given.pre, given.gate);
  task.forward.out = bf16_out(result.out);
  task.dout = bf16_in(given.dout);
  task.dpre = bf16_out(result.dpre);
  task.dgate = bf16_out(result.dgate);
  if (given.dpre_codes) {
    *given.dpre_codes = empty_codes(given.pre);
    task.dpre_codes = rows_out(*given.dpre_codes);
  }
  task.pre_sums = f32_out(given.pre_sums);
  task.gate_sums = f32_out(given.gate_sums);
  at::Tensor partials;
  if (task.pre_sums || task.gate_sums)
    partials = at::empty({kernels::activation_partials(task.forward.rows, task.forward.width)},
                         given.dout.options().dtype(at::kFloat));
  task.partials = f32_out(partials);
  kernels::activation_backward(task, on.stream());
  return result;
}

/// Rows of x as one axis, a view.
at::Tensor as_rows(const at::Tensor& x) {
  if (x.dim() == 2) return x;
  int64_t rows = 1;
  for (int64_t axis = 0; axis + 1 < x.dim(); ++axis) rows *= x.size(axis);
  for (int64_t axis = 0; axis + 2 < x.dim(); ++axis)
    VT_CHECK(x.stride(axis) == x.stride(axis + 1) * x.size(axis + 1),
             "[column_sums] rows must be equally far apart but those of axis {} are not", axis);
  return x.as_strided({rows, x.size(-1)}, {x.stride(-2), x.stride(-1)});
}

}  // namespace

at::Tensor activation(ActivationKind kind, const at::Tensor& pre, const at::Tensor& gate) {
  if (runs_kernels(pre)) {
    const OnDevice on(pre);
    at::Tensor out = at::empty_like(pre);
    kernels::Activation task = kernel_task(kind, pre, gate);
    task.out = bf16_out(out);
    kernels::activation(task, on.stream());
    return out;
  }
  const at::Tensor wide = widened(pre);
  return (kind == ActivationKind::silu_gate ? at::silu(widened(gate)) * wide
                                            : at::gelu(wide, approximation(kind)))
      .to(pre.scalar_type());
}

at::Tensor activation(ActivationKind kind, const at::Tensor& pre, Codes& codes, bool wants_out) {
  if (!runs_kernels(pre)) {
    at::Tensor out = activation(kind, pre, {});
    codes = quantize(out);
    return wants_out ? out : at::Tensor();
  }
  const OnDevice on(pre);
  at::Tensor out = wants_out ? at::empty_like(pre) : at::Tensor();
  codes = empty_codes(pre);
  kernels::Activation task = kernel_task(kind, pre, {});
  task.out = bf16_out(out);
  task.codes = rows_out(codes);
  kernels::activation(task, on.stream());
  return out;
}

ActivationGradients activation_backward(const ActivationBackward& task) {
  if (runs_kernels(task.pre)) return backward_on_gpu(task);
  const at::ScalarType type = task.pre.scalar_type();
  const at::Tensor pre = widened(task.pre), dout = widened(task.dout);
  at::Tensor dpre, dgate, out;
  if (task.kind == ActivationKind::silu_gate) {
    const at::Tensor gate = widened(task.gate), factor = at::silu(gate);
    dpre = dout * factor;
    dgate = at::silu_backward(dout * pre, gate);
    if (task.wants_out) out = factor * pre;
  } else {
    dpre = at::gelu_backward(dout, pre, approximation(task.kind));
    if (task.wants_out) out = at::gelu(pre, approximation(task.kind));
  }
  if (task.pre_sums.defined()) add_column_sums(dpre, task.pre_sums);
  if (task.gate_sums.defined()) add_column_sums(dgate, task.gate_sums);
  const auto narrow = [&](const at::Tensor& x) { return x.defined() ? x.to(type) : x; };
  ActivationGradients result{narrow(dpre), narrow(dgate), narrow(out)};
  if (task.dpre_codes) *task.dpre_codes = quantize(result.dpre);
  if (!task.wants_dpre) result.dpre.reset();
  return result;
}

void add_column_sums(const at::Tensor& x, const at::Tensor& sums) {
  const at::Tensor rows = as_rows(x);
  if (!runs_kernels(x)) {
    sums.add_(rows.sum(0, /*keepdim=*/false, sums.scalar_type()));
    return;
  }
  VT_CHECK(rows.stride(1) == 1,
           "[column_sums] the last axis must be contiguous but its stride is {}", rows.stride(1));
  const OnDevice on(x);
  const at::Tensor partials =
      at::empty({kernels::column_sums_partials(rows.size(0), rows.size(1))}, sums.options());
  kernels::column_sums(bf16_strided_in(rows), rows.size(0), rows.size(1), rows.stride(0),
                       f32_out(partials), f32_out(sums), on.stream());
}

}  // namespace vitrail::ops
