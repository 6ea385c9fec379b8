#pragma once
/// Attention cores: softmax(q k^T / sqrt(E)) v.
///
/// Shapes   q, k, v and the result [B, N, L, E]: B batch, N heads, L tokens, E head width.

#include <functional>

#include <ATen/core/Tensor.h>

namespace vitrail::ops {

/// The library's fused attention.
at::Tensor sdpa(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v);

/// The formula written out, softmax in fp32; the reference. `drop` is applied to the probabilities [B, N, L, L] when set.
at::Tensor plain_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                           const std::function<at::Tensor(const at::Tensor&)>& drop = {});

}  // namespace vitrail::ops
