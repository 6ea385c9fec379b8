#include "vitrail/ops/heads.h"

#include <vector>

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include "vitrail/kernels/heads.h"
#include "vitrail/ops/norm.h"
#include "vitrail/ops/on_device.h"

namespace vitrail::ops {
namespace {

at::Tensor widened(const at::Tensor& x) { return x.to(statistics_type(x.scalar_type())); }

at::Tensor turned(const at::Tensor& x_BLNE, const Rotary& rotary) {
  return rotary.defined() ? rotate(x_BLNE.transpose(1, 2), rotary).transpose(1, 2) : x_BLNE;
}

/// By minus the angles: the gradient of turning.
Rotary reversed(const Rotary& rotary) {
  return rotary.defined() ? Rotary{rotary.cos, rotary.sin.neg()} : rotary;
}

at::Tensor plain_prepared(const at::Tensor& x_BLNE, bool has_norm, const NormWeights& norm,
                          const Rotary& rotary) {
  at::Tensor wide = widened(x_BLNE);
  if (has_norm) wide = plain_affine(plain_norm(wide, norm).normed, norm);
  return turned(wide, rotary).to(x_BLNE.scalar_type());
}

void plain_backward(const at::Tensor& dx_BLNE, const at::Tensor& x_BLNE, bool has_norm,
                    const NormWeights& norm, const Rotary& rotary, const at::Tensor& weight_sums,
                    const at::Tensor& bias_sums) {
  at::Tensor wide = turned(widened(dx_BLNE), reversed(rotary));
  if (has_norm)
    wide =
        plain_norm_backward(wide, plain_norm(widened(x_BLNE), norm), norm, weight_sums, bias_sums);
  dx_BLNE.copy_(wide);
}

kernels::NormParameters kernel_norm(const NormWeights& norm) {
  return {bf16_in(norm.weight_D), bf16_in(norm.bias_D), static_cast<float>(norm.eps), norm.is_rms};
}

/// All but where q and k go. The tables must outlive the launch's preparation only.
kernels::Heads kernel_task(const at::Tensor& qkv_BLF, const HeadsOptions& options,
                           const at::Tensor& cos, const at::Tensor& sin) {
  kernels::Heads task;
  task.shape = {.samples = qkv_BLF.size(0),
                .tokens = qkv_BLF.size(1),
                .heads = options.heads,
                .kv_heads = options.kv_heads,
                .head_width = options.head_width};
  task.qkv = bf16_in(qkv_BLF);
  task.has_norm = options.has_norm;
  if (options.has_norm) {
    task.q_norm = kernel_norm(options.q_norm);
    task.k_norm = kernel_norm(options.k_norm);
  }
  task.cos = f32_in(cos);
  task.sin = f32_in(sin);
  if (cos.defined() && cos.size(0) > 1) task.table_stride = cos.size(1) * cos.size(2);
  return task;
}

at::Tensor dense(const at::Tensor& table) { return table.defined() ? table.contiguous() : table; }

}  // namespace

Heads split_heads(const at::Tensor& qkv_BLF, const HeadsOptions& options) {
  const at::Tensor qkv_BLNE =
      qkv_BLF.view({qkv_BLF.size(0), qkv_BLF.size(1), -1, options.head_width});
  const std::vector<at::Tensor> parts =
      qkv_BLNE.split_with_sizes({options.heads, options.kv_heads, options.kv_heads}, 2);
  return {parts[0], parts[1], parts[2]};
}

Heads prepare_heads(const at::Tensor& qkv_BLF, const HeadsOptions& options) {
  Heads given = split_heads(qkv_BLF, options);
  if (!options.has_norm && !options.rotary.defined()) return given;
  // Rows as long as those of qkv: library attention reads k and v at the same strides.
  const at::Tensor place_BLF = options.has_norm ? at::empty_like(qkv_BLF) : qkv_BLF;
  Heads result = split_heads(place_BLF, options);
  result.v_BLNE = given.v_BLNE;
  if (!runs_kernels(qkv_BLF)) {
    result.q_BLNE.copy_(
        plain_prepared(given.q_BLNE, options.has_norm, options.q_norm, options.rotary));
    result.k_BLNE.copy_(
        plain_prepared(given.k_BLNE, options.has_norm, options.k_norm, options.rotary));
    return result;
  }
  const OnDevice on(qkv_BLF);
  const at::Tensor cos = dense(options.rotary.cos), sin = dense(options.rotary.sin);
  kernels::Heads task = kernel_task(qkv_BLF, options, cos, sin);
  task.qk = bf16_out(place_BLF);
  task.qk_token_stride = result.q_BLNE.stride(1);
  kernels::prepare_heads(task, on.stream());
  return result;
}

void prepare_heads_backward(const at::Tensor& dqkv_BLF, const at::Tensor& qkv_BLF,
                            const HeadsOptions& options, const HeadsSums& sums) {
  if (!options.has_norm && !options.rotary.defined()) return;
  if (!runs_kernels(dqkv_BLF)) {
    const Heads x = split_heads(qkv_BLF, options), dx = split_heads(dqkv_BLF, options);
    plain_backward(dx.q_BLNE, x.q_BLNE, options.has_norm, options.q_norm, options.rotary,
                   sums.q_weight, sums.q_bias);
    plain_backward(dx.k_BLNE, x.k_BLNE, options.has_norm, options.k_norm, options.rotary,
                   sums.k_weight, sums.k_bias);
    return;
  }
  const OnDevice on(dqkv_BLF);
  const at::Tensor cos = dense(options.rotary.cos), sin = dense(options.rotary.sin);
  kernels::HeadsBackward task;
  task.forward = kernel_task(qkv_BLF, options, cos, sin);
  task.dqkv = bf16_out(dqkv_BLF);
  task.dq_weight = f32_out(sums.q_weight);
  task.dq_bias = f32_out(sums.q_bias);
  task.dk_weight = f32_out(sums.k_weight);
  task.dk_bias = f32_out(sums.k_bias);
  at::Tensor partials;
  if (options.has_norm)
    partials = at::empty({kernels::heads_partials(task.forward.shape)},
                         dqkv_BLF.options().dtype(at::kFloat));
  task.partials = f32_out(partials);
  kernels::prepare_heads_backward(task, on.stream());
}

}  // namespace vitrail::ops
