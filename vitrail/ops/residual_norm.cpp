#include "vitrail/ops/residual_norm.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>

#include "vitrail/kernels/fp8.h"
#include "vitrail/kernels/residual_norm.h"
#include "vitrail/ops/norm.h"
#include "vitrail/ops/on_device.h"

namespace vitrail::ops {
namespace {

at::Tensor widened(const at::Tensor& x) { return x.to(statistics_type(x.scalar_type())); }

at::Tensor scaled(at::Tensor wide_BLD, const BranchScales& scales) {
  if (scales.gamma_D.defined()) wide_BLD = wide_BLD * widened(scales.gamma_D);
  if (scales.keep_B.defined()) wide_BLD = wide_BLD * scales.keep_B.unsqueeze(1).unsqueeze(2);
  return wide_BLD;
}

/// Sum over all but the last axis.
at::Tensor column_sum(const at::Tensor& x) { return x.reshape({-1, x.size(-1)}).sum(0); }

void add_to(const at::Tensor& place, const at::Tensor& values) {
  if (place.defined()) place.add_(values);
}

/// Gradient of the branch out of that of the sum, both wide.
at::Tensor plain_branch(const at::Tensor& wide_dsum, const at::Tensor& branch_BLD,
                        const BranchScales& scales, const ResidualSums& sums) {
  if (sums.gamma_D.defined()) {
    const at::Tensor kept = scaled(widened(branch_BLD), {{}, scales.keep_B});
    sums.gamma_D.add_(column_sum(kept * wide_dsum));
  }
  at::Tensor dbranch = scaled(wide_dsum, scales);
  if (sums.branch_D.defined()) sums.branch_D.add_(column_sum(dbranch));
  return dbranch;
}

kernels::RowShape row_shape(const at::Tensor& x_BLD) {
  return {x_BLD.size(0), x_BLD.size(1), x_BLD.size(2)};
}

kernels::NormParameters kernel_norm(const NormWeights& norm) {
  return {bf16_in(norm.weight_D), bf16_in(norm.bias_D), static_cast<float>(norm.eps), norm.is_rms};
}

kernels::Branch kernel_branch(const at::Tensor& branch_BLD, const BranchScales& scales) {
  return {bf16_in(branch_BLD), bf16_in(scales.gamma_D), f32_in(scales.keep_B)};
}

Normed norm_on_gpu(const at::Tensor& x_BLD, const at::Tensor& branch_BLD,
                   const BranchScales& scales, const NormWeights& norm, const NormCodes& codes) {
  const OnDevice on(x_BLD);
  const auto statistics = x_BLD.options().dtype(at::kFloat);
  Normed result;
  result.sum_BLD = branch_BLD.defined() ? at::empty_like(x_BLD) : x_BLD;
  if (codes.wants_y) result.y_BLD = at::empty_like(x_BLD);
  result.rstd = at::empty({x_BLD.size(0), x_BLD.size(1)}, statistics);
  if (!norm.is_rms) result.mean = at::empty_like(result.rstd);
  kernels::ResidualNorm task;
  task.shape = row_shape(x_BLD);
  task.x = bf16_in(x_BLD);
  if (branch_BLD.defined()) {
    task.branch = kernel_branch(branch_BLD, scales);
    task.sum = bf16_out(result.sum_BLD);
  }
  task.norm = kernel_norm(norm);
  task.y = bf16_out(result.y_BLD);
  task.mean = f32_out(result.mean);
  task.rstd = f32_out(result.rstd);
  if (codes.codes) {
    *codes.codes = empty_codes(x_BLD);
    task.codes = rows_out(*codes.codes);
  }
  kernels::residual_norm(task, on.stream());
  return result;
}

/// What backward with and without a norm have in common; `partials` is made here.
kernels::ResidualNormBackward backward_task(const at::Tensor& dsum_BLD,
                                            const at::Tensor& branch_BLD,
                                            const BranchScales& scales, const ResidualSums& sums,
                                            const at::Tensor& like_BLD, at::Tensor& partials,
                                            at::Tensor& dbranch_BLD) {
  kernels::ResidualNormBackward task;
  task.shape = row_shape(like_BLD);
  partials = at::empty({kernels::residual_norm_partials(task.shape)},
                       like_BLD.options().dtype(at::kFloat));
  task.dsum = bf16_in(dsum_BLD);
  task.branch = kernel_branch(branch_BLD, scales);
  if (scales.any()) dbranch_BLD = at::empty_like(like_BLD);
  task.dbranch = bf16_out(dbranch_BLD);
  task.dgamma = f32_out(sums.gamma_D);
  task.branch_sums = f32_out(sums.branch_D);
  task.partials = f32_out(partials);
  return task;
}

ResidualGradients backward_on_gpu(const ResidualNormBackward& given) {
  const OnDevice on(given.dy_BLD);
  ResidualGradients result;
  at::Tensor partials;
  kernels::ResidualNormBackward task =
      backward_task(given.dsum_BLD, given.branch_BLD, given.scales, given.sums, given.dy_BLD,
                    partials, result.dbranch_BLD);
  result.dx_BLD = at::empty_like(given.dy_BLD);
  task.dy = bf16_in(given.dy_BLD);
  task.sum = bf16_in(given.normed.sum_BLD);
  task.mean = f32_in(given.normed.mean);
  task.rstd = f32_in(given.normed.rstd);
  task.norm = kernel_norm(given.norm);
  task.dx = bf16_out(result.dx_BLD);
  task.dweight = f32_out(given.sums.weight_D);
  task.dbias = f32_out(given.sums.bias_D);
  kernels::residual_norm_backward(task, on.stream());
  if (!given.scales.any()) result.dbranch_BLD = result.dx_BLD;
  return result;
}

}  // namespace

PlainNorm plain_norm(const at::Tensor& wide, const NormWeights& norm) {
  PlainNorm result;
  at::Tensor centered = wide;
  if (!norm.is_rms) {
    result.mean = wide.mean(-1, /*keepdim=*/true);
    centered = wide - result.mean;
  }
  result.rstd = centered.square().mean(-1, /*keepdim=*/true).add_(norm.eps).rsqrt_();
  result.normed = centered * result.rstd;
  return result;
}

at::Tensor plain_affine(const at::Tensor& normed, const NormWeights& norm) {
  const at::Tensor y = normed * norm.weight_D;
  return norm.bias_D.defined() ? y + norm.bias_D : y;
}

at::Tensor plain_norm_backward(const at::Tensor& wide_dy, const PlainNorm& forward,
                               const NormWeights& norm, const at::Tensor& weight_gradient,
                               const at::Tensor& bias_gradient) {
  add_to(weight_gradient, column_sum(wide_dy * forward.normed));
  add_to(bias_gradient, column_sum(wide_dy));
  const at::Tensor dnormed = wide_dy * norm.weight_D;
  at::Tensor dx = dnormed - forward.normed * (dnormed * forward.normed).mean(-1, /*keepdim=*/true);
  if (!norm.is_rms) dx = dx - dnormed.mean(-1, /*keepdim=*/true);
  return dx * forward.rstd;
}

Normed residual_norm(const at::Tensor& x_BLD, const at::Tensor& branch_BLD,
                     const BranchScales& scales, const NormWeights& norm, const NormCodes& codes) {
  if (runs_kernels(x_BLD)) return norm_on_gpu(x_BLD, branch_BLD, scales, norm, codes);
  Normed result;
  result.sum_BLD = branch_BLD.defined() ? residual_sum(x_BLD, branch_BLD, scales) : x_BLD;
  const PlainNorm plain = plain_norm(widened(result.sum_BLD), norm);
  result.y_BLD = plain_affine(plain.normed, norm).to(x_BLD.scalar_type());
  if (plain.mean.defined()) result.mean = plain.mean.squeeze(-1);
  result.rstd = plain.rstd.squeeze(-1);
  if (codes.codes) *codes.codes = quantize(result.y_BLD);
  if (!codes.wants_y) result.y_BLD.reset();
  return result;
}

at::Tensor residual_sum(const at::Tensor& x_BLD, const at::Tensor& branch_BLD,
                        const BranchScales& scales) {
  if (!runs_kernels(x_BLD))
    return (widened(x_BLD) + scaled(widened(branch_BLD), scales)).to(x_BLD.scalar_type());
  const OnDevice on(x_BLD);
  const at::Tensor sum_BLD = at::empty_like(x_BLD);
  kernels::ResidualNorm task;
  task.shape = row_shape(x_BLD);
  task.x = bf16_in(x_BLD);
  task.branch = kernel_branch(branch_BLD, scales);
  task.sum = bf16_out(sum_BLD);
  kernels::residual_norm(task, on.stream());
  return sum_BLD;
}

ResidualGradients residual_norm_backward(const ResidualNormBackward& task) {
  if (runs_kernels(task.dy_BLD)) return backward_on_gpu(task);
  const at::ScalarType type = task.dy_BLD.scalar_type();
  PlainNorm forward;
  forward.rstd = task.normed.rstd.unsqueeze(-1);
  forward.normed = widened(task.normed.sum_BLD);
  if (!task.norm.is_rms) forward.normed = forward.normed - task.normed.mean.unsqueeze(-1);
  forward.normed = forward.normed * forward.rstd;
  at::Tensor dx = plain_norm_backward(widened(task.dy_BLD), forward, task.norm, task.sums.weight_D,
                                      task.sums.bias_D);
  if (task.dsum_BLD.defined()) dx = dx + task.dsum_BLD;
  ResidualGradients result;
  const at::Tensor dbranch = plain_branch(dx, task.branch_BLD, task.scales, task.sums);
  result.dx_BLD = dx.to(type);
  result.dbranch_BLD = task.scales.any() ? dbranch.to(type) : result.dx_BLD;
  return result;
}

at::Tensor residual_sum_backward(const at::Tensor& dsum_BLD, const at::Tensor& branch_BLD,
                                 const BranchScales& scales, const ResidualSums& sums) {
  if (!runs_kernels(dsum_BLD))
    return plain_branch(widened(dsum_BLD), branch_BLD, scales, sums).to(dsum_BLD.scalar_type());
  const OnDevice on(dsum_BLD);
  at::Tensor partials, dbranch_BLD;
  kernels::residual_norm_backward(
      backward_task(dsum_BLD, branch_BLD, scales, sums, dsum_BLD, partials, dbranch_BLD),
      on.stream());
  return scales.any() ? dbranch_BLD : dsum_BLD;
}

}  // namespace vitrail::ops
