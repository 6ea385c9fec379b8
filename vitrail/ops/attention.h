#pragma once
/// Attention cores: softmax(q k^T / sqrt(E)) v.
///
/// With fewer key and value heads than query heads, head h of k and v serves the N / Nkv neighbouring query heads from
/// h N / Nkv on. A key mask (bool, true = a real token) takes the other tokens out of every softmax: whatever finite
/// values they hold, results and gradients of the real tokens keep every bit. Rows of the others are finite and mean
/// nothing.
/// Needs    every sample has at least one real token.
/// Paper    Vaswani et al. 2017, arXiv:1706.03762; grouped queries: Ainslie et al. 2023, arXiv:2305.13245.
/// Shapes   q and the result [B, N, L, E], k and v [B, Nkv, L, E], key mask [B, L] or undefined: B batch, N heads,
///          L tokens, E head width.

#include <functional>

#include <ATen/core/Tensor.h>

namespace vitrail::ops {

/// The library's fused attention.
at::Tensor sdpa(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                const at::Tensor& key_mask_BL = {});

/// The formula written out, softmax in fp32 (fp64 for fp64); the reference. `drop` is applied to the probabilities
/// [B, N, L, L] when set.
at::Tensor plain_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                           const at::Tensor& key_mask_BL = {},
                           const std::function<at::Tensor(const at::Tensor&)>& drop = {});

}  // namespace vitrail::ops
