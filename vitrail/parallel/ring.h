#pragma once
/// Sequence parallelism by a ring: every rank keeps its queries while keys and values travel around.
///
/// Paper     Liu et al. 2023, arXiv:2310.01889; merging of blocks: Milakov & Gimelshein 2018, arXiv:1805.02867, Dao et
///           al. 2022, arXiv:2205.14135.
/// Memory    two blocks of k and v in flight; in backward two blocks of their fp32 gradients more. Scores of one block at
///           a time where the formula is written out, none with flash attention (ring_block.h).
/// Kept      the result and its log-sum-exp, where a pass keeps them (ops/attention_kept.h): a second pass sends nothing.
/// Overlap   the transfer of the next block runs on a stream of its own while this one is computed.
/// Shapes    B batch, R ranks, N heads, Nkv heads of k and v, T tokens of a rank, E head width.

#include <ATen/core/Tensor.h>

#include "vitrail/comm/communicator.h"
#include "vitrail/nn/attention.h"

namespace vitrail::parallel {

struct RingOptions {
  int64_t first_head = 0;    // of these heads among those that `drop` counts
  bool written_out = false;  // never the library's kernels
};

/// q [B, N, T, E], k and v [B, Nkv, T, E]: rank r holds tokens [r T, (r + 1) T) of how.tokens <= R T. Returns the rank's
/// rows of the result, zeros past the end. how.core is not used. Differentiable; `group` outlives backward.
at::Tensor ring_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                          const nn::Attending& how, comm::Communicator& group,
                          const RingOptions& options = {});

}  // namespace vitrail::parallel
