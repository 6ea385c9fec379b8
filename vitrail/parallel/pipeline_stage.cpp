#include "vitrail/parallel/pipeline_stage.h"

#include <utility>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/autograd.h>

namespace vitrail::parallel {

std::vector<at::Tensor> tensors_of(const models::Flow& flow) {
  std::vector<at::Tensor> tensors{flow.x_BTD, flow.condition_BD};
  tensors.insert(tensors.end(), flow.inner.begin(), flow.inner.end());
  return tensors;
}

models::Flow flow_of(const std::vector<at::Tensor>& tensors) {
  if (tensors.empty()) return {};
  return {tensors[0], {tensors.begin() + 2, tensors.end()}, tensors[1]};
}

StagePass Stage::forward(std::vector<at::Tensor> inputs, const data::Batch& batch,
                         const nn::Draws& draws, const std::vector<std::string>& taps) {
  StagePass pass;
  if (pieces_.empty()) {
    pass.out = model_.forward(batch, draws, taps);
    return pass;
  }
  if (at::GradMode::is_enabled())
    for (at::Tensor& input : inputs)
      if (input.defined()) input.set_requires_grad(true);
  models::Flow flow = flow_of(inputs);
  for (const models::ChainPiece& piece : pieces_)
    models::run(*model_.chain(), piece, flow, batch, draws, pass.out, taps);
  pass.inputs = std::move(inputs);
  if (!is_last_) pass.outputs = tensors_of(flow);
  return pass;
}

std::vector<at::Tensor> Stage::backward(StagePass& pass, const std::vector<at::Tensor>& gradients,
                                        const at::Tensor& root) {
  std::vector<at::Tensor> roots, arrived;
  if (root.defined()) roots.push_back(root);
  // What passes through unchanged is a leaf here, and a root: its gradient is only added to.
  for (size_t i = 0; i < pass.outputs.size(); ++i)
    if (pass.outputs[i].defined() && pass.outputs[i].requires_grad())
      roots.push_back(pass.outputs[i]), arrived.push_back(gradients[i]);
  torch::autograd::backward(roots, arrived);
  std::vector<at::Tensor> of_inputs;
  for (const at::Tensor& input : pass.inputs) {
    const bool is_missing = input.defined() && !input.grad().defined();
    of_inputs.push_back(is_missing        ? at::zeros_like(input.detach())
                        : input.defined() ? input.grad()
                                          : input);
  }
  pass = {};
  return of_inputs;
}

}  // namespace vitrail::parallel
