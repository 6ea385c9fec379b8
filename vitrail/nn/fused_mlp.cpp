// The second half of a fused block: x2 = x1 + keep gamma fc2(act(fc1(norm2(x1)))).

#include <utility>

#include <ATen/core/Tensor.h>

#include "vitrail/nn/fused_block.h"
#include "vitrail/nn/fused_fp8.h"
#include "vitrail/nn/part_dropout.h"
#include "vitrail/ops/gelu_product.h"

namespace vitrail::nn::fused {
namespace {

/// The layers that read norm2's result.
struct Inputs {
  const Linear* fc1;
  const Linear* gate;  // null: none
};

Inputs inputs_of(const Mlp& mlp) {
  const std::vector<Linear*> layers = mlp.inputs();
  return {layers.back(), layers.size() > 1 ? layers.front() : nullptr};
}

ops::ActivationKind kind_of(const Mlp& mlp) {
  switch (mlp.options().kind) {
    case MlpKind::swiglu:
      return ops::ActivationKind::silu_gate;
    case MlpKind::gelu_tanh:
      return ops::ActivationKind::gelu_tanh;
    case MlpKind::gelu:
      break;
  }
  return ops::ActivationKind::gelu_erf;
}

/// Dropout between the two layers, or of the gradient there.
at::Tensor drop_hidden(const Pass& pass, const at::Tensor& x_BLH) {
  const Mlp& mlp = pass.block.mlp();
  return part_dropout(x_BLH, mlp.options().drop, pass.context, mlp.options().draw_layer,
                      pass.context.window, {});
}

bool drops_hidden(const Pass& pass) {
  return pass.context.training && pass.block.mlp().options().drop > 0.0;
}

/// Gradient of the block's output -> that of fc2's result, fc2's bias done.
at::Tensor branch_backward(const Pass& pass, const Gradient& dy, Kept& kept) {
  const at::Tensor bias_D = gradient_of(pass.block.mlp().fc2().bias());
  const ops::BranchScales& scales = kept.scales[1];
  const bool drops = drops_output(pass);
  at::Tensor d_BLD = dy.values_BLD;
  bool bias_done = !bias_D.defined();
  if (scales.any()) {
    d_BLD = ops::residual_sum_backward(d_BLD, kept.mlp_BLD, scales,
                                       {.gamma_D = gradient_of(pass.block.branch_gamma(1)),
                                        .branch_D = drops ? at::Tensor() : bias_D});
    kept.mlp_BLD.reset();
    bias_done = bias_done || !drops;
  }
  if (drops) d_BLD = drop_output(pass, d_BLD, 1);
  if (bias_done) return d_BLD;
  if (dy.sums_D.defined() && !scales.any() && !drops)
    bias_D.add_(dy.sums_D);
  else
    ops::add_column_sums(d_BLD, bias_D);
  return d_BLD;
}

/// Exact GELU in bf16 may be the end of the product before it, and its slope that of backward's.
bool gelu_may_end_a_product(const Pass& pass) {
  return pass.options.products == Products::bf16 &&
         pass.block.mlp().options().kind == MlpKind::gelu;
}

/// Gradient of the MLP's output -> that of what the activation reads, and its bias's.
ops::ActivationGradients through_activation(const Pass& pass, const ReadGradient& dbranch,
                                            Kept& kept, ops::Codes& dpre_codes) {
  Mlp& mlp = pass.block.mlp();
  const Inputs inputs = inputs_of(mlp);
  const at::Tensor pre_BLH = std::exchange(kept.pre_BLH, {});
  const bool wants_out = !kept.hidden_BLH.defined() && !kept.hidden_codes.has_columns();
  if (gelu_may_end_a_product(pass) && !wants_out && !drops_hidden(pass))
    return {ops::gelu_product_backward(dbranch.values, mlp.fc2().weight(), pre_BLH,
                                       gradient_of(inputs.fc1->bias())),
            {},
            {}};
  ops::ActivationBackward task{
      .kind = kind_of(mlp),
      .dout = drop_hidden(pass, layer_input_gradient(pass, dbranch, mlp.fc2())),
      .pre = pre_BLH,
      .gate = std::exchange(kept.gate_BLH, {}),
      .pre_sums = gradient_of(inputs.fc1->bias()),
      .gate_sums = inputs.gate ? gradient_of(inputs.gate->bias()) : at::Tensor(),
      .wants_out = wants_out};
  if (activation_writes_codes(pass))
    task.dpre_codes = &dpre_codes, task.wants_dpre = gradients_read_bf16(pass);
  return ops::activation_backward(task);
}

}  // namespace

void open_mlp(const Pass& pass, Kept& kept) {
  const Mlp& mlp = pass.block.mlp();
  const Inputs inputs = inputs_of(mlp);
  at::Tensor& n2_BLD = kept.norm2.y_BLD;
  if (gelu_may_end_a_product(pass)) {
    ops::GeluProduct up = ops::gelu_product(n2_BLD, inputs.fc1->weight(), inputs.fc1->bias());
    kept.pre_BLH = std::move(up.pre);
    kept.hidden_BLH = drop_hidden(pass, up.out);
    return;
  }
  kept.pre_BLH = layer_product(pass, n2_BLD, kept.norm2_codes, *inputs.fc1);
  if (inputs.gate) kept.gate_BLH = layer_product(pass, n2_BLD, kept.norm2_codes, *inputs.gate);
  keep_for_gradient(pass, &n2_BLD, kept.norm2_codes);
  if (activation_writes_codes(pass))
    kept.hidden_BLH =
        ops::activation(kind_of(mlp), kept.pre_BLH, kept.hidden_codes, gradients_read_bf16(pass));
  else
    kept.hidden_BLH = drop_hidden(pass, ops::activation(kind_of(mlp), kept.pre_BLH, kept.gate_BLH));
}

at::Tensor close_mlp(const Pass& pass, Kept& kept) {
  const Linear& fc2 = pass.block.mlp().fc2();
  ops::BranchScales& scales = kept.scales[1];
  scales = scales_of(pass, kept.x_BLD, 1);
  const at::Tensor& x1_BLD = kept.norm2.sum_BLD;
  const bool adds = !scales.any() && !drops_output(pass);
  const at::Tensor product_BLD =
      layer_product(pass, kept.hidden_BLH, kept.hidden_codes, fc2, adds ? x1_BLD : at::Tensor());
  keep_for_gradient(pass, &kept.hidden_BLH, kept.hidden_codes);
  if (adds) return product_BLD;
  const at::Tensor branch_BLD = drop_output(pass, product_BLD, 1);
  if (scales.gamma_D.defined()) kept.mlp_BLD = branch_BLD;
  return ops::residual_sum(x1_BLD, branch_BLD, scales);
}

at::Tensor mlp_backward(const Pass& pass, const Gradient& dy, Kept& kept) {
  Mlp& mlp = pass.block.mlp();
  const Inputs inputs = inputs_of(mlp);
  const ReadGradient dbranch = read_gradient(pass, branch_backward(pass, dy, kept));
  ops::Codes dpre_codes;
  const ops::ActivationGradients gradients = through_activation(pass, dbranch, kept, dpre_codes);
  if (gradients.out.defined()) kept.hidden_BLH = drop_hidden(pass, gradients.out);
  add_layer_weight_gradient(pass, mlp.fc2(), dbranch, std::exchange(kept.hidden_BLH, {}),
                            kept.hidden_codes);
  kept.hidden_codes = {};
  if (!kept.norm2.y_BLD.defined() && !kept.norm2_codes.has_columns())
    kept.norm2.y_BLD =
        ops::residual_norm(kept.norm2.sum_BLD, {}, {}, weights_of(pass.block.norm2())).y_BLD;
  const at::Tensor n2_BLD = std::exchange(kept.norm2.y_BLD, {});
  at::Tensor dn2_BLD;
  {
    const ReadGradient dpre = dpre_codes.has_rows()
                                  ? read_gradient(pass, gradients.dpre, std::move(dpre_codes))
                                  : read_gradient(pass, gradients.dpre);
    add_layer_weight_gradient(pass, *inputs.fc1, dpre, n2_BLD, kept.norm2_codes);
    dn2_BLD = layer_input_gradient(pass, dpre, *inputs.fc1);
  }
  if (inputs.gate) {
    const ReadGradient dgate = read_gradient(pass, gradients.dgate);
    add_layer_weight_gradient(pass, *inputs.gate, dgate, n2_BLD, kept.norm2_codes);
    add_layer_input_gradient(pass, dn2_BLD, dgate, *inputs.gate);
  }
  kept.norm2_codes = {};
  return dn2_BLD;
}

}  // namespace vitrail::nn::fused
