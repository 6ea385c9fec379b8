#pragma once
/// The steps of a fused block (nn/fused_engine.h), and what lies between them.
///
/// Shapes   B batch, L tokens, D width, F = (N + 2 Nkv) E of the heads here, H hidden width.

#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "vitrail/nn/block.h"
#include "vitrail/nn/context.h"
#include "vitrail/nn/fused_engine.h"
#include "vitrail/ops/activation.h"
#include "vitrail/ops/attention_kept.h"
#include "vitrail/ops/heads.h"
#include "vitrail/ops/packed_attention.h"
#include "vitrail/ops/product8.h"
#include "vitrail/ops/residual_norm.h"

namespace vitrail::nn::fused {

/// One block in one pass.
struct Pass {
  Block& block;
  const Context& context;
  FusedOptions options;
  bool keeps_graph =
      true;  // a core under autograd leaves its graph; false: a pass that will be computed again
};

/// Attention's core under a local graph that begins at detached leaves.
struct LocalCore {
  at::Tensor q_BNLE, k_BNLE, v_BNLE;
  at::Tensor out_BNLE;
};

/// What forward leaves for backward. Undefined tensors are computed again.
struct Kept {
  at::Tensor x_BLD;
  ops::Normed norm1;  // of x + condition; sum_BLD is dropped in conditioned blocks
  at::Tensor qkv_BLF;
  ops::Heads heads;
  ops::PackedResult core;
  LocalCore local;                   // instead, where the core runs under autograd
  std::vector<ops::KeptCore> cores;  // what recompute selective keeps of such a core
  bool is_core_away = false;         // `core` is in the hands of a store
  at::Tensor
      dattention_BLF;  // set before backward: gradient of core.out_BLF from elsewhere; undefined: none
  ops::BranchScales scales[2];  // of attention and MLP
  at::Tensor attended_BLD;      // the branch before its scales, where LayerScale needs it
  ops::Normed norm2;            // its sum is the stream between the branches
  at::Tensor pre_BLH, gate_BLH;
  at::Tensor hidden_BLH;  // as fc2 reads it
  // What the layers read, in 8 bits (nn/fused_fp8.h); with Products::fp8_gradients instead of norm1.y, norm2.y and hidden.
  ops::Codes norm1_codes, core_codes, norm2_codes, hidden_codes;
  at::Tensor mlp_BLD;  // as attended_BLD
};

/// Calls visit(name, tensor) for all tensors that grow with the batch; undefined ones too.
template <class Visit>
void for_each_large(Kept& kept, Visit&& visit) {
  visit("x", kept.x_BLD);
  visit("norm1", kept.norm1.y_BLD);
  visit("qkv", kept.qkv_BLF);
  if (kept.heads.q_BLNE.defined() && !kept.heads.q_BLNE.is_alias_of(kept.qkv_BLF))
    visit("q and k", kept.heads.q_BLNE);
  visit("attention", kept.core.out_BLF);
  visit("attention's sums", kept.core.lse);
  visit("proj", kept.attended_BLD);
  visit("middle", kept.norm2.sum_BLD);
  visit("norm2", kept.norm2.y_BLD);
  visit("fc1", kept.pre_BLH);
  visit("gate", kept.gate_BLH);
  visit("activation", kept.hidden_BLH);
  visit("fc2", kept.mlp_BLD);
  visit("norm1 in 8 bits", kept.norm1_codes.transposed);
  visit("attention in 8 bits", kept.core_codes.transposed);
  visit("norm2 in 8 bits", kept.norm2_codes.transposed);
  visit("activation in 8 bits", kept.hidden_codes.transposed);
}

// Steps, in order; each takes from `kept` what earlier steps left there.

/// x_BLD -> norm1 .. core. A core that is there already is not computed.
void attend(const Pass& pass, Kept& kept);
/// -> attended, norm2.
void close_attention(const Pass& pass, Kept& kept);
/// -> pre, gate, hidden.
void open_mlp(const Pass& pass, Kept& kept);
/// -> the block's output.
at::Tensor close_mlp(const Pass& pass, Kept& kept);

/// A gradient with its column sums where somebody has them already.
struct Gradient {
  at::Tensor values_BLD;
  at::Tensor sums_D;  // in the statistics type; undefined: not known
};
/// Gradient of the block's output -> that of norm2's result; gradients of the MLP are added.
at::Tensor mlp_backward(const Pass& pass, const Gradient& dy, Kept& kept);
/// Gradients of the output and of norm2's result -> that of the block's input; the rest of the gradients is added.
Gradient attention_backward(const Pass& pass, const at::Tensor& dy_BLD,
                            const at::Tensor& dnorm2_BLD, Kept& kept);

// Small parts of both halves.

ops::NormWeights weights_of(const Norm& norm);
/// Factors of a branch: LayerScale, and drop-path's draws while training.
ops::BranchScales scales_of(const Pass& pass, const at::Tensor& x_BLD, int branch);
/// Whether a branch's output is dropped in part, between its last layer and its scales.
bool drops_output(const Pass& pass);
/// Dropout of a branch's output or of its gradient.
at::Tensor drop_output(const Pass& pass, const at::Tensor& y_BLD, int branch);
/// The parameter's .grad, made as zeros where there is none; undefined when it needs no gradient.
/// throws Error when it has another type or is not contiguous.
at::Tensor gradient_of(const at::Tensor& parameter);

/// What conditioned blocks add to all tokens of a sample, [B, D]; undefined: nothing.
at::Tensor condition_of(const Pass& pass);
/// Gradient of what was added [B, D] -> cond's parameters and the context's condition.
void condition_backward(const Pass& pass, const at::Tensor& dcondition_BD);

// Attention's core (fused_core.cpp).

ops::HeadsOptions heads_options(const Pass& pass);
ops::PackedOptions packed_options(const Pass& pass);
/// Why the core runs under a local graph; empty: it has a backward of its own.
std::string local_reason(const Pass& pass, const ops::Heads& heads);
/// heads -> core (and local).
void run_core(const Pass& pass, Kept& kept);
/// Writes the gradients of q, k and v.
void core_backward(const Pass& pass, const at::Tensor& dout_BLF, Kept& kept,
                   const ops::Heads& gradients);

}  // namespace vitrail::nn::fused
