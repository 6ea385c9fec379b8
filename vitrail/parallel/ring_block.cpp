#include "vitrail/parallel/ring_block.h"

#include <cmath>
#include <limits>
#include <tuple>

#include <ATen/TensorOperators.h>
#include <ATen/ops/_scaled_dot_product_flash_attention.h>
#include <ATen/ops/_scaled_dot_product_flash_attention_backward.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/logaddexp.h>
#include <ATen/ops/matmul.h>

#include "vitrail/ops/norm.h"

namespace vitrail::parallel {
namespace {

constexpr double kNone = -std::numeric_limits<double>::infinity();
constexpr int64_t kFlashWidth = 256, kFlashWidthStep = 8;  // head widths of flash attention

double scale_of(const at::Tensor& q) { return 1.0 / std::sqrt(static_cast<double>(q.size(-1))); }

/// [B, N, T, E] -> [B, Nkv, N / Nkv * T, E]: query heads that share keys as one, so that keys need no copies.
at::Tensor grouped(const at::Tensor& x, int64_t kv_heads) {
  return x.unflatten(1, {kv_heads, x.size(1) / kv_heads}).flatten(2, 3);
}

/// Scaled scores [B, N, T, M] in the type of sums, masked keys at -infinity.
at::Tensor scores(const at::Tensor& q, const KeyBlock& block) {
  at::Tensor s = at::matmul(grouped(q * scale_of(q), block.k.size(1)), block.k.transpose(-2, -1))
                     .view({q.size(0), q.size(1), q.size(2), -1})
                     .to(ops::statistics_type(q.scalar_type()));
  if (block.key_mask_BM.defined())
    s = s.masked_fill(block.key_mask_BM.unsqueeze(1).unsqueeze(1).logical_not(), kNone);
  return s;
}

/// e^(x - lse); 0 where both are -infinity.
at::Tensor exp_above(const at::Tensor& x, const at::Tensor& lse) {
  return (x - lse.masked_fill(lse == kNone, 0.0)).exp();
}

Attended attend_written_out(const at::Tensor& q, const KeyBlock& block) {
  const at::Tensor s = scores(q, block);
  const at::Tensor lse = s.logsumexp(-1);
  at::Tensor p = exp_above(s, lse.unsqueeze(-1)).to(block.v.scalar_type());
  if (block.drop) p = block.drop(p);
  const at::Tensor out = at::matmul(grouped(p, block.v.size(1)), block.v).view(q.sizes());
  return {out.to(lse.scalar_type()), lse};
}

AttendedGradients backward_written_out(const at::Tensor& out_gradient, const at::Tensor& q,
                                       const KeyBlock& block, const at::Tensor& lse,
                                       const at::Tensor& delta) {
  const int64_t kv_heads = block.k.size(1);
  const at::Tensor p = exp_above(scores(q, block), lse.unsqueeze(-1));
  const at::Tensor dropped = (block.drop ? block.drop(p) : p).to(q.scalar_type());
  const at::Tensor out_gradient_g = grouped(out_gradient, kv_heads);
  AttendedGradients gradients;
  gradients.v = at::matmul(grouped(dropped, kv_heads).transpose(-2, -1), out_gradient_g);
  at::Tensor dp =
      at::matmul(out_gradient_g, block.v.transpose(-2, -1)).view(p.sizes()).to(p.scalar_type());
  if (block.drop) dp = block.drop(dp);
  const at::Tensor ds_g = grouped((p * (dp - delta.unsqueeze(-1))).to(q.scalar_type()), kv_heads);
  gradients.q = at::matmul(ds_g, block.k).view(q.sizes()) * scale_of(q);
  gradients.k = at::matmul(ds_g.transpose(-2, -1), grouped(q * scale_of(q), kv_heads));
  return gradients;
}

}  // namespace

bool runs_flash(const at::Tensor& q, const KeyBlock& block) {
  const bool is_half = q.scalar_type() == at::kBFloat16 || q.scalar_type() == at::kHalf;
  return q.is_cuda() && is_half && !block.written_out && !block.key_mask_BM.defined() &&
         !block.drop && q.size(-1) <= kFlashWidth && q.size(-1) % kFlashWidthStep == 0;
}

Attended attend_block(const at::Tensor& q, const KeyBlock& block) {
  if (!runs_flash(q, block)) return attend_written_out(q, block);
  const auto result =
      at::_scaled_dot_product_flash_attention(q, block.k, block.v, 0.0, false, false, scale_of(q));
  const at::Tensor lse = std::get<1>(result);
  return {std::get<0>(result).to(lse.scalar_type()), lse};
}

void merge(Attended& sum, const Attended& block) {
  if (!sum.out.defined()) {
    sum = block;
    return;
  }
  const at::Tensor lse = at::logaddexp(sum.lse, block.lse);
  sum.out = sum.out * exp_above(sum.lse, lse).unsqueeze(-1) +
            block.out * exp_above(block.lse, lse).unsqueeze(-1);
  sum.lse = lse;
}

AttendedGradients attend_block_backward(const at::Tensor& out_gradient, const at::Tensor& q,
                                        const KeyBlock& block, const Attended& whole,
                                        const at::Tensor& delta) {
  if (!runs_flash(q, block)) return backward_written_out(out_gradient, q, block, whole.lse, delta);
  // The kernel makes delta itself, of the same out and out_gradient. Without dropout the random state is not read.
  const at::Tensor unread = at::empty({2}, q.options().dtype(at::kUInt64));
  const auto [dq, dk, dv] = at::_scaled_dot_product_flash_attention_backward(
      out_gradient, q, block.k, block.v, whole.out, whole.lse, {}, {}, q.size(2), block.k.size(2),
      0.0, false, unread, unread, scale_of(q));
  return {dq, dk, dv};
}

at::Tensor row_products(const at::Tensor& a, const at::Tensor& b) {
  const at::ScalarType type = ops::statistics_type(a.scalar_type());
  return (a.to(type) * b.to(type)).sum(-1);
}

}  // namespace vitrail::parallel
