#include "vitrail/ops/packed_attention.h"

#include <limits>
#include <optional>

#include <ATen/TensorOperators.h>
#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu.h>
#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu_backward.h>
#include <ATen/ops/zeros.h>

#include "vitrail/core/error.h"
#include "vitrail/ops/attention_kernels.h"
#include "vitrail/ops/on_device.h"

namespace vitrail::ops {
namespace {

/// [B, L, n, E] as the library reads it, one head of k or v for each query head.
at::Tensor as_library(const at::Tensor& x_BLNE, int64_t heads) {
  const at::Tensor x_BNLE = x_BLNE.transpose(1, 2);
  const int64_t here = x_BNLE.size(1);
  return here == heads ? x_BNLE : x_BNLE.repeat_interleave(heads / here, 1);
}

/// What is added to the scores: as the library turns a mask of truth values into numbers.
std::optional<at::Tensor> bias_of(const PackedOptions& options, const at::Tensor& q) {
  if (!options.key_mask_BL.defined()) return std::nullopt;
  const at::Tensor mask = options.key_mask_BL.unsqueeze(1).unsqueeze(1);
  return at::zeros(mask.sizes(), q.options())
      .masked_fill_(mask.logical_not(), -std::numeric_limits<double>::infinity());
}

struct LibraryHeads {
  explicit LibraryHeads(const Heads& heads)
      : q(as_library(heads.q_BLNE, heads.q_BLNE.size(2))),
        k(as_library(heads.k_BLNE, heads.q_BLNE.size(2))),
        v(as_library(heads.v_BLNE, heads.q_BLNE.size(2))) {}
  at::Tensor q, k, v;
};

/// Gradients of heads that served several query heads add up.
void write(const at::Tensor& place_BLNE, const at::Tensor& gradient_BNLE) {
  const int64_t heads = place_BLNE.size(2);
  const at::Tensor d_BLNE = gradient_BNLE.transpose(1, 2);
  if (d_BLNE.size(2) == heads)
    place_BLNE.copy_(d_BLNE);
  else
    place_BLNE.copy_(d_BLNE.unflatten(2, {heads, -1}).sum(3));
}

}  // namespace

AttentionKind attention_kind(const std::string& word) {
  if (word == "auto") return AttentionKind::automatic;
  if (word == "cudnn") return AttentionKind::cudnn;
  if (word == "short") return AttentionKind::own_short;
  if (word == "narrow") return AttentionKind::own_narrow;
  if (word == "aten") return AttentionKind::aten;
  core::fail("[attention] '{}' is not a kind of attention kernel", word);
}

bool can_pack_attention(const Heads& heads, const PackedOptions& options) {
  if (runs_kernels(heads.q_BLNE)) return attention_kernel(heads, options) != nullptr;
  return heads.q_BLNE.is_cpu();
}

PackedResult packed_attention(const Heads& heads, const PackedOptions& options) {
  if (runs_kernels(heads.q_BLNE))
    return run_attention(*attention_kernel(heads, options), heads, options);
  const LibraryHeads x(heads);
  const auto [out_BNLE, lse] = at::_scaled_dot_product_flash_attention_for_cpu(
      x.q, x.k, x.v, 0.0, false, bias_of(options, x.q), std::nullopt);
  return {out_BNLE.transpose(1, 2).flatten(2).contiguous(), lse};
}

void packed_attention_backward(const at::Tensor& dout_BLF, const Heads& heads,
                               const PackedResult& forward, const PackedOptions& options,
                               const Heads& gradients) {
  if (runs_kernels(heads.q_BLNE)) {
    run_attention_backward(*attention_kernel(heads, options), dout_BLF, heads, forward, options,
                           gradients);
    return;
  }
  const LibraryHeads x(heads);
  const auto as_heads = [&](const at::Tensor& y_BLF) {
    return y_BLF.view(heads.q_BLNE.sizes()).transpose(1, 2);
  };
  const auto [dq, dk, dv] = at::_scaled_dot_product_flash_attention_for_cpu_backward(
      as_heads(dout_BLF), x.q, x.k, x.v, as_heads(forward.out_BLF), forward.lse, 0.0, false,
      bias_of(options, x.q), std::nullopt);
  write(gradients.q_BLNE, dq);
  write(gradients.k_BLNE, dk);
  write(gradients.v_BLNE, dv);
}

}  // namespace vitrail::ops
