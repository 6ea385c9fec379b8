#pragma once
/// Sequence parallelism by exchange of heads: ranks with a run of tokens and all heads become ranks with all tokens of
/// the group and some heads, and back.
///
/// Paper     DeepSpeed Ulysses: Jacobs et al. 2023, arXiv:2309.14509.
/// Volume    a rank sends (N + 2 Nkv) T E (R - 1) / R values one way, N T E (R - 1) / R back; independent of R for equal
///           L / R.
/// Shapes    B batch, R ranks, N heads (a multiple of R), Nkv heads of k and v, T tokens of a rank, E head width.

#include <ATen/core/Tensor.h>

#include "vitrail/comm/communicator.h"

namespace vitrail::parallel {

struct Heads {
  at::Tensor q, k, v;  // [B, N / R, R T, E], [B, n, R T, E] with n dividing N / R
};

/// q [B, N, T, E], k and v [B, Nkv, T, E] -> heads [N / R * rank, N / R * (rank + 1)) with the tokens of all ranks, in
/// rank order. Heads of k and v are repeated where R does not divide Nkv. Differentiable.
Heads gather_tokens(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                    comm::Communicator& group);

/// The way back: x [B, N / R, R T, E] -> [B, N, T, E]. Differentiable.
at::Tensor gather_heads(const at::Tensor& x, comm::Communicator& group);

}  // namespace vitrail::parallel
