// The first half of a fused block: x1 = x + keep gamma proj(attention(norm1(x + c))), and norm2 behind it.

#include <utility>

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/silu_backward.h>
#include <ATen/ops/zeros.h>

#include "vitrail/core/error.h"
#include "vitrail/nn/fused_block.h"
#include "vitrail/nn/fused_fp8.h"
#include "vitrail/nn/part_dropout.h"
#include "vitrail/ops/norm.h"
#include "vitrail/ops/product.h"
#include "vitrail/ops/random.h"

namespace vitrail::nn::fused {
namespace {

/// What norm1 reads.
at::Tensor attention_input(const Pass& pass, const at::Tensor& x_BLD) {
  const at::Tensor condition_BD = condition_of(pass);
  return condition_BD.defined() ? x_BLD + condition_BD.unsqueeze(1) : x_BLD;
}

ops::HeadsSums heads_sums(const Attention& attention) {
  if (!attention.q_norm()) return {};
  return {gradient_of(attention.q_norm()->weight()), gradient_of(attention.q_norm()->bias()),
          gradient_of(attention.k_norm()->weight()), gradient_of(attention.k_norm()->bias())};
}

/// Gradient of qkv's bias. `dproj_sums` [D]: column sums of the gradient of proj's result, undefined where rows of the
/// softmax need not sum to 1 over what is here. Masked queries count like others in either way.
void add_qkv_bias(const Pass& pass, const at::Tensor& dqkv_BLF, const at::Tensor& dproj_sums_D) {
  const at::Tensor gradient_F = gradient_of(pass.block.attention().qkv().bias());
  if (!gradient_F.defined()) return;
  const ops::HeadsOptions options = heads_options(pass);
  const bool keys_count = options.has_norm || options.rotary.defined();
  const auto add = [&](int64_t first, int64_t heads) {
    const int64_t start = first * options.head_width, width = heads * options.head_width;
    ops::add_column_sums(dqkv_BLF.narrow(2, start, width), gradient_F.narrow(0, start, width));
  };
  add(0, options.heads + (keys_count ? options.kv_heads : 0));
  const int64_t values = options.heads + options.kv_heads;
  if (!dproj_sums_D.defined()) return add(values, options.kv_heads);
  const at::Tensor sums = ops::row_product(dproj_sums_D, pass.block.attention().proj().weight());
  gradient_F.narrow(0, values * options.head_width, options.kv_heads * options.head_width)
      .add_(sums.view({options.kv_heads, -1, options.head_width}).sum(1).flatten());
}

/// Gradient of the sum that norm2 reads and of proj's result, with the latter's column sums.
struct MiddleGradients {
  at::Tensor dx1_BLD, dproj_BLD, dproj_sums_D;
};

MiddleGradients middle_backward(const Pass& pass, const at::Tensor& dy_BLD,
                                const at::Tensor& dnorm2_BLD, Kept& kept) {
  const Block& block = pass.block;
  MiddleGradients result;
  result.dproj_sums_D = at::zeros(
      {dy_BLD.size(2)}, dy_BLD.options().dtype(ops::statistics_type(dy_BLD.scalar_type())));
  const bool drops = drops_output(pass);
  ops::ResidualNormBackward task{.dy_BLD = dnorm2_BLD,
                                 .normed = kept.norm2,
                                 .dsum_BLD = dy_BLD,
                                 .branch_BLD = kept.attended_BLD,
                                 .scales = kept.scales[0],
                                 .norm = weights_of(block.norm2()),
                                 .sums = {.weight_D = gradient_of(block.norm2().weight()),
                                          .bias_D = gradient_of(block.norm2().bias()),
                                          .gamma_D = gradient_of(block.branch_gamma(0)),
                                          .branch_D = drops ? at::Tensor() : result.dproj_sums_D}};
  const ops::ResidualGradients gradients = ops::residual_norm_backward(task);
  kept.norm2 = {};
  kept.attended_BLD.reset();
  result.dx1_BLD = gradients.dx_BLD;
  result.dproj_BLD = gradients.dbranch_BLD;
  if (drops) {
    result.dproj_BLD = drop_output(pass, result.dproj_BLD, 0);
    ops::add_column_sums(result.dproj_BLD, result.dproj_sums_D);
  }
  return result;
}

/// Gradient of proj's result -> that of qkv's, in one tensor.
at::Tensor heads_backward(const Pass& pass, const MiddleGradients& middle, Kept& kept) {
  Attention& attention = pass.block.attention();
  const Linear& proj = attention.proj();
  if (const at::Tensor bias_D = gradient_of(proj.bias()); bias_D.defined())
    bias_D.add_(middle.dproj_sums_D);
  at::Tensor dout_BLF;
  {
    const ReadGradient dproj = read_gradient(pass, middle.dproj_BLD);
    add_layer_weight_gradient(pass, proj, dproj, kept.core.out_BLF, kept.core_codes);
    kept.core_codes = {};
    dout_BLF = layer_input_gradient(pass, dproj, proj);
  }
  const bool is_local = kept.local.out_BNLE.defined(), is_tapped = kept.dattention_BLF.defined();
  if (is_tapped) dout_BLF = dout_BLF + kept.dattention_BLF;
  kept.dattention_BLF.reset();
  // The sums of proj's gradient tell those of the values only where nothing else reads attention.
  const bool rows_sum_to_one = !is_local && !is_tapped && !pass.context.key_mask_BT.defined();
  const ops::HeadsOptions options = heads_options(pass);
  if (!kept.heads.q_BLNE.defined()) kept.heads = ops::prepare_heads(kept.qkv_BLF, options);
  const at::Tensor dqkv_BLF = at::empty_like(kept.qkv_BLF);
  core_backward(pass, dout_BLF, kept, ops::split_heads(dqkv_BLF, options));
  kept.core = {}, kept.heads = {};
  ops::prepare_heads_backward(dqkv_BLF, kept.qkv_BLF, options, heads_sums(attention));
  kept.qkv_BLF.reset();
  add_qkv_bias(pass, dqkv_BLF, rows_sum_to_one ? middle.dproj_sums_D : at::Tensor());
  return dqkv_BLF;
}

}  // namespace

void attend(const Pass& pass, Kept& kept) {
  Attention& attention = pass.block.attention();
  const bool is_conditioned = pass.block.cond() != nullptr;
  kept.norm1 =
      ops::residual_norm(attention_input(pass, kept.x_BLD), {}, {}, weights_of(pass.block.norm1()),
                         norm_codes(pass, kept.norm1_codes));
  if (is_conditioned) kept.norm1.sum_BLD.reset();
  kept.qkv_BLF = layer_product(pass, kept.norm1.y_BLD, kept.norm1_codes, attention.qkv());
  keep_for_gradient(pass, &kept.norm1.y_BLD, kept.norm1_codes);
  kept.heads = ops::prepare_heads(kept.qkv_BLF, heads_options(pass));
  run_core(pass, kept);
}

void close_attention(const Pass& pass, Kept& kept) {
  const Linear& proj = pass.block.attention().proj();
  const ops::NormWeights norm = weights_of(pass.block.norm2());
  ops::BranchScales& scales = kept.scales[0];
  scales = scales_of(pass, kept.x_BLD, 0);
  const bool adds = !scales.any() && !drops_output(pass);
  const at::Tensor product_BLD = layer_product(pass, kept.core.out_BLF, kept.core_codes, proj,
                                               adds ? kept.x_BLD : at::Tensor());
  keep_for_gradient(pass, nullptr, kept.core_codes);
  if (adds) {
    kept.norm2 = ops::residual_norm(product_BLD, {}, {}, norm, norm_codes(pass, kept.norm2_codes));
    return;
  }
  const at::Tensor branch_BLD = drop_output(pass, product_BLD, 0);
  kept.norm2 =
      ops::residual_norm(kept.x_BLD, branch_BLD, scales, norm, norm_codes(pass, kept.norm2_codes));
  if (scales.gamma_D.defined()) kept.attended_BLD = branch_BLD;
}

Gradient attention_backward(const Pass& pass, const at::Tensor& dy_BLD,
                            const at::Tensor& dnorm2_BLD, Kept& kept) {
  const Block& block = pass.block;
  const Linear& qkv = pass.block.attention().qkv();
  const MiddleGradients middle = middle_backward(pass, dy_BLD, dnorm2_BLD, kept);
  const at::Tensor dqkv_BLF = heads_backward(pass, middle, kept);
  ops::Normed& norm1 = kept.norm1;
  if (!norm1.sum_BLD.defined()) norm1.sum_BLD = attention_input(pass, kept.x_BLD);
  if (!norm1.y_BLD.defined() && !kept.norm1_codes.has_columns())
    norm1.y_BLD = ops::residual_norm(norm1.sum_BLD, {}, {}, weights_of(block.norm1())).y_BLD;
  const ReadGradient dqkv = read_gradient(pass, dqkv_BLF);
  add_layer_weight_gradient(pass, qkv, dqkv, norm1.y_BLD, kept.norm1_codes);
  kept.norm1_codes = {};
  const bool is_conditioned = block.cond() != nullptr;
  Gradient result;
  if (!is_conditioned) result.sums_D = at::zeros_like(middle.dproj_sums_D);
  const ops::ResidualNormBackward task{.dy_BLD = layer_input_gradient(pass, dqkv, qkv),
                                       .normed = norm1,
                                       .dsum_BLD = is_conditioned ? at::Tensor() : middle.dx1_BLD,
                                       .norm = weights_of(block.norm1()),
                                       .sums = {.weight_D = gradient_of(block.norm1().weight()),
                                                .bias_D = gradient_of(block.norm1().bias()),
                                                .branch_D = result.sums_D}};
  result.values_BLD = ops::residual_norm_backward(task).dx_BLD;
  if (!is_conditioned) return result;
  condition_backward(pass, result.values_BLD.sum(1));
  result.values_BLD = middle.dx1_BLD + result.values_BLD;
  return result;
}

ops::NormWeights weights_of(const Norm& norm) {
  return {norm.weight(), norm.bias(), norm.options().eps, norm.options().kind == NormKind::rmsnorm};
}

ops::BranchScales scales_of(const Pass& pass, const at::Tensor& x_BLD, int branch) {
  ops::BranchScales scales{pass.block.branch_gamma(branch), {}};
  const double rate = pass.block.options().drop_path;
  if (!pass.context.training || rate == 0.0) return scales;
  const auto like = x_BLD.options().dtype(ops::statistics_type(x_BLD.scalar_type()));
  scales.keep_B =
      ops::drop_path(at::ones({x_BLD.size(0)}, like), rate,
                     pass.block.drop_path_key(pass.context, branch), pass.context.sample_ids);
  return scales;
}

bool drops_output(const Pass& pass) {
  return pass.context.training && pass.block.options().proj_drop > 0.0;
}

at::Tensor drop_output(const Pass& pass, const at::Tensor& y_BLD, int branch) {
  const auto layer =
      static_cast<uint16_t>((branch == 0 ? pass.block.attention().options().draw_layer
                                         : pass.block.mlp().options().draw_layer) +
                            1);
  return part_dropout(y_BLD, pass.block.options().proj_drop, pass.context, layer,
                      pass.context.window, {});
}

at::Tensor gradient_of(const at::Tensor& parameter) {
  if (!parameter.defined() || !parameter.requires_grad()) return {};
  at::Tensor& gradient = parameter.mutable_grad();
  const at::ScalarType wide = ops::statistics_type(parameter.scalar_type());
  if (!gradient.defined()) {
    at::Tensor(parameter).set_grad_dtype(std::nullopt);  // any: autograd may add to it as well
    gradient = at::zeros(parameter.sizes(), parameter.options().dtype(wide));
  }
  VT_CHECK(gradient.scalar_type() == wide && gradient.is_contiguous(),
           "[engine] a parameter's gradient must be contiguous and {} but is {}",
           c10::toString(wide), c10::toString(gradient.scalar_type()));
  return gradient.detach();
}

at::Tensor condition_of(const Pass& pass) {
  const Linear* cond = pass.block.cond();
  if (!cond) return {};
  VT_CHECK(pass.context.condition_BD.defined(),
           "[block] a conditioned block must get a condition but got none");
  return ops::product(at::silu(pass.context.condition_BD.contiguous()), cond->weight(),
                      cond->bias());
}

void condition_backward(const Pass& pass, const at::Tensor& dcondition_BD) {
  const Linear& cond = *pass.block.cond();
  const at::Tensor& given_BD = pass.context.condition_BD;
  ops::add_weight_gradient(gradient_of(cond.weight()), dcondition_BD,
                           at::silu(given_BD.contiguous()));
  if (const at::Tensor bias_D = gradient_of(cond.bias()); bias_D.defined())
    ops::add_column_sums(dcondition_BD, bias_D);
  if (!given_BD.requires_grad()) return;
  const at::Tensor dgiven_BD =
      at::silu_backward(ops::product_input_gradient(dcondition_BD, cond.weight()), given_BD);
  at::Tensor& gradient = given_BD.mutable_grad();
  gradient = gradient.defined() ? gradient + dgiven_BD : dgiven_BD;
}

}  // namespace vitrail::nn::fused
