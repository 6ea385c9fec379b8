// The second half of a fused block: x2 = x1 + keep gamma fc2(act(fc1(norm2(x1)))).

#include <utility>

#include <ATen/core/Tensor.h>

#include "vitrail/nn/fused_block.h"
#include "vitrail/nn/part_dropout.h"
#include "vitrail/ops/product.h"

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

}  // namespace

void open_mlp(const Pass& pass, Kept& kept) {
  const Mlp& mlp = pass.block.mlp();
  const Inputs inputs = inputs_of(mlp);
  const at::Tensor& n2_BLD = kept.norm2.y_BLD;
  kept.pre_BLH = ops::product(n2_BLD, inputs.fc1->weight(), inputs.fc1->bias());
  if (inputs.gate) kept.gate_BLH = ops::product(n2_BLD, inputs.gate->weight(), inputs.gate->bias());
  kept.hidden_BLH = drop_hidden(pass, ops::activation(kind_of(mlp), kept.pre_BLH, kept.gate_BLH));
}

at::Tensor close_mlp(const Pass& pass, Kept& kept) {
  const Linear& fc2 = pass.block.mlp().fc2();
  ops::BranchScales& scales = kept.scales[1];
  scales = scales_of(pass, kept.x_BLD, 1);
  const at::Tensor& x1_BLD = kept.norm2.sum_BLD;
  if (!scales.any() && !drops_output(pass))
    return ops::product(kept.hidden_BLH, fc2.weight(), fc2.bias(), x1_BLD);
  const at::Tensor branch_BLD =
      drop_output(pass, ops::product(kept.hidden_BLH, fc2.weight(), fc2.bias()), 1);
  if (scales.gamma_D.defined()) kept.mlp_BLD = branch_BLD;
  return ops::residual_sum(x1_BLD, branch_BLD, scales);
}

at::Tensor mlp_backward(const Pass& pass, const Gradient& dy, Kept& kept) {
  Mlp& mlp = pass.block.mlp();
  const Inputs inputs = inputs_of(mlp);
  const at::Tensor dbranch_BLD = branch_backward(pass, dy, kept);
  ops::ActivationBackward task{
      .kind = kind_of(mlp),
      .dout = drop_hidden(pass, ops::product_input_gradient(dbranch_BLD, mlp.fc2().weight())),
      .pre = std::exchange(kept.pre_BLH, {}),
      .gate = std::exchange(kept.gate_BLH, {}),
      .pre_sums = gradient_of(inputs.fc1->bias()),
      .gate_sums = inputs.gate ? gradient_of(inputs.gate->bias()) : at::Tensor(),
      .wants_out = !kept.hidden_BLH.defined()};
  const ops::ActivationGradients gradients = ops::activation_backward(task);
  task = {};
  if (gradients.out.defined()) kept.hidden_BLH = drop_hidden(pass, gradients.out);
  ops::add_weight_gradient(gradient_of(mlp.fc2().weight()), dbranch_BLD,
                           std::exchange(kept.hidden_BLH, {}));
  if (!kept.norm2.y_BLD.defined())
    kept.norm2.y_BLD =
        ops::residual_norm(kept.norm2.sum_BLD, {}, {}, weights_of(pass.block.norm2())).y_BLD;
  const at::Tensor n2_BLD = std::exchange(kept.norm2.y_BLD, {});
  ops::add_weight_gradient(gradient_of(inputs.fc1->weight()), gradients.dpre, n2_BLD);
  const at::Tensor dn2_BLD = ops::product_input_gradient(gradients.dpre, inputs.fc1->weight());
  if (inputs.gate) {
    ops::add_weight_gradient(gradient_of(inputs.gate->weight()), gradients.dgate, n2_BLD);
    ops::add_product_input_gradient(dn2_BLD, gradients.dgate, inputs.gate->weight());
  }
  return dn2_BLD;
}

}  // namespace vitrail::nn::fused
