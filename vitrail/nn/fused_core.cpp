// Attention's core in a fused block: packed with a backward of its own, or alone under a local graph.

#include <optional>
#include <utility>

#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>

#include "vitrail/nn/fused_block.h"

namespace vitrail::nn::fused {
namespace {

ops::NormWeights weights_or_none(const Norm* norm) {
  return norm ? weights_of(*norm) : ops::NormWeights{};
}

at::Tensor leaf(const at::Tensor& x_BLNE, bool has_graph) {
  return x_BLNE.transpose(1, 2).detach().set_requires_grad(has_graph);
}

void run_locally(const Pass& pass, Kept& kept) {
  const at::AutoGradMode grad_mode(pass.keeps_graph);
  LocalCore& local = kept.local;
  local.q_BNLE = leaf(kept.heads.q_BLNE, pass.keeps_graph);
  local.k_BNLE = leaf(kept.heads.k_BLNE, pass.keeps_graph);
  local.v_BNLE = leaf(kept.heads.v_BLNE, pass.keeps_graph);
  std::optional<ops::TakeCores> scope;
  if (pass.keeps_graph && !kept.cores.empty()) scope.emplace(kept.cores);
  local.out_BNLE =
      pass.block.attention().attend(local.q_BNLE, local.k_BNLE, local.v_BNLE, pass.context);
  kept.core.out_BLF = local.out_BNLE.detach().transpose(1, 2).flatten(2).contiguous();
  if (!pass.keeps_graph) local = {};
}

}  // namespace

ops::HeadsOptions heads_options(const Pass& pass) {
  const Attention& attention = pass.block.attention();
  const AttentionOptions& options = attention.options();
  return {.heads = options.num_heads,
          .kv_heads = options.num_kv_heads,
          .head_width = options.width / options.num_heads,
          .has_norm = options.qk_norm,
          .q_norm = weights_or_none(attention.q_norm()),
          .k_norm = weights_or_none(attention.k_norm()),
          .rotary = pass.context.rotary};
}

ops::PackedOptions packed_options(const Pass& pass) {
  return {.kind = pass.options.attention,
          .key_mask_BL = pass.context.key_mask_BT,
          .mask_is_prefix = pass.context.key_mask_is_prefix};
}

std::string local_reason(const Pass& pass, const ops::Heads& heads) {
  const Attention& attention = pass.block.attention();
  if (pass.context.training && attention.options().attn_drop > 0.0) return "model.attn_drop_rate";
  if (!attention.is_library_core())
    return "train.attention=plain or parallel.sequence (attention's core is not the library's)";
  if (ops::can_pack_attention(heads, packed_options(pass))) return "";
  if (pass.context.key_mask_BT.defined() && !pass.context.key_mask_is_prefix)
    return "a key mask whose tokens may have gaps";
  return "train.attention_kernel (no kernel for this shape)";
}

void run_core(const Pass& pass, Kept& kept) {
  const bool is_local = !local_reason(pass, kept.heads).empty();
  if (is_local)
    run_locally(pass, kept);
  else if (!kept.core.out_BLF.defined())
    kept.core = ops::packed_attention(kept.heads, packed_options(pass));
}

void core_backward(const Pass& pass, const at::Tensor& dout_BLF, Kept& kept,
                   const ops::Heads& gradients) {
  if (!kept.local.out_BNLE.defined()) {
    ops::packed_attention_backward(dout_BLF, kept.heads, kept.core, packed_options(pass),
                                   gradients);
    return;
  }
  const LocalCore local = std::exchange(kept.local, {});
  const at::Tensor dout_BNLE = dout_BLF.view(kept.heads.q_BLNE.sizes()).transpose(1, 2);
  torch::autograd::backward({local.out_BNLE}, {dout_BNLE});
  const auto write = [](const at::Tensor& place_BLNE, const at::Tensor& leaf_BNLE) {
    if (leaf_BNLE.grad().defined())
      place_BLNE.copy_(leaf_BNLE.grad().transpose(1, 2));
    else
      place_BLNE.zero_();
  };
  write(gradients.q_BLNE, local.q_BNLE);
  write(gradients.k_BLNE, local.k_BNLE);
  write(gradients.v_BLNE, local.v_BNLE);
}

}  // namespace vitrail::nn::fused
