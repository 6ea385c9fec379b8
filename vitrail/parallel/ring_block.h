#pragma once
/// Attention of some queries to one block of keys, in the form in which blocks can be merged.
///
/// lse is log sum exp of a row's scaled scores. Blocks a and b of disjoint keys merge to
///   lse = log(e^lse_a + e^lse_b),  out = out_a e^(lse_a - lse) + out_b e^(lse_b - lse)
/// and with out and lse of all keys each block's gradients are those of the whole.
/// Dropout   of probabilities acts on the sums over values, not on lse.
/// Shapes    q and out [B, N, T, E], k and v [B, Nkv, M, E], lse fp32 (fp64 for fp64) [B, N, T], mask [B, M].

#include <functional>

#include <ATen/core/Tensor.h>

namespace vitrail::parallel {

struct KeyBlock {
  at::Tensor k, v;
  at::Tensor key_mask_BM;  // bool, true = a real token; undefined = all are
  std::function<at::Tensor(const at::Tensor& probabilities_BNTM)> drop;  // empty: none; linear
  bool written_out = false;  // never the library's kernels
};

struct Attended {
  at::Tensor out, lse;
};
struct AttendedGradients {
  at::Tensor q, k, v;
};

/// True when the library's flash attention runs this block: bf16 or f16 on a GPU, no mask, no dropout.
bool runs_flash(const at::Tensor& q, const KeyBlock& block);

/// Rows whose keys are all masked: out 0, lse -infinity.
Attended attend_block(const at::Tensor& q, const KeyBlock& block);

/// Adds a block to `sum` (out in the type of lse); an undefined sum becomes the block.
void merge(Attended& sum, const Attended& block);

/// out and lse are those of all keys, `out` in the type of q; out_gradient likewise.
/// `delta` [B, N, T]: row sums of out_gradient * out (row_products).
AttendedGradients attend_block_backward(const at::Tensor& out_gradient, const at::Tensor& q,
                                        const KeyBlock& block, const Attended& whole,
                                        const at::Tensor& delta);

/// sum over E of a * b in the type of lse.
at::Tensor row_products(const at::Tensor& a, const at::Tensor& b);

}  // namespace vitrail::parallel
