#pragma once
/// Attention's core on heads that lie side by side in one tensor of q, k and v, with an explicit backward.
///
///   out = softmax(q k^T / sqrt(E)) v
/// Device   CUDA bf16: cuDNN or own kernels (kernels/attention.h), whichever is faster at the shape; CPU: the library's
///          flash attention, fp32, fp64 or bf16.
/// Mask     as in ops/attention.h. On CUDA only where the real tokens of every sample come first.
/// Shapes   q, out and their gradients [B, L, N, E]; k, v [B, L, Nkv, E]; views whose last axis is contiguous; lse in the
///          library's own layout. B batch, L tokens, N heads, E head width.

#include <string>

#include <ATen/core/Tensor.h>

#include "vitrail/ops/heads.h"

namespace vitrail::ops {

/// Whose kernels run on a GPU. automatic: those that can are timed when a shape is first seen.
enum class AttentionKind { automatic, cudnn, own_short, own_narrow, aten };

/// The words of train.attention_kernel. throws Error for another.
AttentionKind attention_kind(const std::string& word);

struct PackedOptions {
  AttentionKind kind = AttentionKind::automatic;
  at::Tensor key_mask_BL;  // bool; undefined: all tokens count
  bool mask_is_prefix = false;
};

/// Whether packed_attention can run; else the caller takes ops::sdpa under autograd.
bool can_pack_attention(const Heads& heads, const PackedOptions& options);

struct PackedResult {
  at::Tensor out_BLF;  // [B, L, N E], contiguous
  at::Tensor lse;
};
PackedResult packed_attention(const Heads& heads, const PackedOptions& options);
/// Writes the gradients of q, k and v where `gradients` says. dout_BLF contiguous.
void packed_attention_backward(const at::Tensor& dout_BLF, const Heads& heads,
                               const PackedResult& forward, const PackedOptions& options,
                               const Heads& gradients);

/// The kernels in use on this process's GPUs, one line a shape, for the log.
std::string attention_choices();

}  // namespace vitrail::ops
