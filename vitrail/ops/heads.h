#pragma once
/// q and k of every head between the qkv layer and attention's core: normed (qk-norm), then turned (rotary).
///
/// Device   CUDA bf16: the kernels of kernels/heads.h; else plain ATen, fp32, fp64 or bf16. Computed in the statistics
///          type (ops/norm.h), rounded once.
/// Shapes   qkv [B, L, (N + 2 Nkv) E], contiguous: q of all heads, k, v. B batch, L tokens, N heads, Nkv heads of k and
///          v, E head width.

#include <cstdint>

#include <ATen/core/Tensor.h>

#include "vitrail/ops/residual_norm.h"
#include "vitrail/ops/rotary.h"

namespace vitrail::ops {

struct HeadsOptions {
  int64_t heads = 0, kv_heads = 0, head_width = 0;
  bool has_norm = false;
  NormWeights q_norm, k_norm;
  Rotary rotary;  // undefined: none
};

/// Views, the last axis contiguous, heads of a token one after another.
struct Heads {
  at::Tensor q_BLNE, k_BLNE, v_BLNE;
};
/// The parts of qkv or of its gradient as they lie.
Heads split_heads(const at::Tensor& qkv_BLF, const HeadsOptions& options);

/// With norms q and k are written to memory of their own and qkv keeps what it is; rotary alone turns them in qkv itself.
Heads prepare_heads(const at::Tensor& qkv_BLF, const HeadsOptions& options);

/// Gradients of the norms, [E] in the statistics type; undefined: not wanted.
struct HeadsSums {
  at::Tensor q_weight, q_bias, k_weight, k_bias;
};
/// dqkv holds the gradients of what prepare_heads made; they become those of the qkv layer's result, in place. `qkv` as
/// prepare_heads left it.
void prepare_heads_backward(const at::Tensor& dqkv_BLF, const at::Tensor& qkv_BLF,
                            const HeadsOptions& options, const HeadsSums& sums);

}  // namespace vitrail::ops
