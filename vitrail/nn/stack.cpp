#include "vitrail/nn/stack.h"

#include <algorithm>
#include <iterator>
#include <optional>
#include <utility>

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/custom_function.h>

#include "vitrail/core/error.h"
#include "vitrail/nn/engine.h"

namespace vitrail::nn {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// What one pass through a stack leaves for backward; lives as long as the autograd node.
struct Pass : torch::CustomClassHolder {
  Stack* stack = nullptr;
  Context context;  // its condition is a detached leaf, at which the blocks' local graphs begin
  BlockRange range;
  std::vector<Tap> taps;
  std::vector<Saved> saved;
  bool consumed = false;
};

}  // namespace

/// The trunk as one node of the outer graph. Outputs: the last block's output, then the taps.
struct StackFunction : torch::autograd::Function<StackFunction> {
  /// The condition is an argument of its own because gradients flow to arguments only; `context` comes without it.
  static variable_list forward(AutogradContext* node, const at::Tensor& x_BLD,
                               const std::optional<at::Tensor>& condition_BD, Stack* stack,
                               const Context& context, BlockRange range,
                               const std::vector<Tap>& taps) {
    auto pass = c10::make_intrusive<Pass>();
    pass->stack = stack;
    pass->context = context;
    if (condition_BD)
      pass->context.condition_BD =
          condition_BD->detach().set_requires_grad(condition_BD->requires_grad());
    pass->range = range;
    pass->taps = taps;
    pass->saved.resize(stack->depth());
    std::vector<at::Tensor> outputs;
    variable_list results{
        stack->run_forward(x_BLD, pass->context, range, &pass->saved, taps, outputs)};
    for (const at::Tensor& output : outputs) results.push_back(output.detach());
    node->saved_data["pass"] = at::IValue::make_capsule(pass);
    node->set_materialize_grads(false);
    return results;
  }

  static variable_list backward(AutogradContext* node, const variable_list& gradients) {
    const c10::intrusive_ptr<Pass> pass =
        c10::static_intrusive_pointer_cast<Pass>(node->saved_data["pass"].toCapsule());
    VT_CHECK(!pass->consumed, "[stack] backward must run once per forward but was called again");
    pass->consumed = true;
    const at::Tensor dx_BLD =
        pass->stack->run_backward(gradients, pass->context, pass->range, pass->taps, pass->saved);
    const at::Tensor condition_BD = std::exchange(pass->context.condition_BD, {});
    return {dx_BLD, condition_BD.defined() ? condition_BD.grad() : at::Tensor(), {}, {}, {}, {}};
  }
};

Stack::Stack(std::vector<std::shared_ptr<Block>> blocks)
    : blocks_(std::move(blocks)), engine_(autograd_engine()) {
  for (size_t i = 0; i < blocks_.size(); ++i) register_module(std::to_string(i), blocks_[i]);
}

void Stack::notify(void (StackObserver::*event)(int), int i) {
  for (StackObserver* observer : observers_) (observer->*event)(i);
}

void Stack::remove_observer(StackObserver* observer) { std::erase(observers_, observer); }

at::Tensor Stack::run_forward(at::Tensor x_BLD, const Context& context, BlockRange range,
                              std::vector<Saved>* saved, const std::vector<Tap>& taps,
                              std::vector<at::Tensor>& tap_outputs) {
  tap_outputs.resize(taps.size());
  Context with_attention = context;
  for (int i = range.first; i < range.end; ++i) {
    notify(&StackObserver::before_forward, i);
    const bool asks = std::ranges::count(taps, Tap(i, TapOf::attention)) > 0;
    Saved kept_nowhere;
    Saved& keep = saved ? (*saved)[i] : kept_nowhere;
    keep.wants_attention = asks;
    with_attention.attended_BTD = &keep.attention;
    x_BLD = saved  ? engine_->forward(*blocks_[i], x_BLD, context, i, keep)
            : asks ? blocks_[i]->forward(x_BLD, with_attention)
                   : blocks_[i]->forward(x_BLD, context);
    for (size_t t = 0; t < taps.size(); ++t)
      if (taps[t].block == i) tap_outputs[t] = taps[t].of == TapOf::output ? x_BLD : keep.attention;
    notify(&StackObserver::after_forward, i);
  }
  return x_BLD;
}

at::Tensor Stack::run_backward(const std::vector<at::Tensor>& gradients, const Context& context,
                               BlockRange range, const std::vector<Tap>& taps,
                               std::vector<Saved>& saved) {
  std::vector<at::Tensor> tap_gradients(depth());  // of the output of block i
  for (size_t t = 0; t < taps.size(); ++t) {
    const int i = taps[t].block;
    (taps[t].of == TapOf::output ? tap_gradients[i] : saved[i].attention_gradient) =
        gradients[1 + t];
  }
  at::Tensor dy_BLD = gradients[0];
  for (int i = range.end - 1; i >= range.first; --i) {
    notify(&StackObserver::before_backward, i);
    if (i > range.first) saved[i].input_gradient = tap_gradients[i - 1];
    dy_BLD = engine_->backward(*blocks_[i], dy_BLD, context, i, saved[i]);
    saved[i] = {};
    notify(&StackObserver::after_backward, i);
  }
  return dy_BLD;
}

at::Tensor Stack::forward(const at::Tensor& x_BLD, const Context& context,
                          const std::vector<Tap>& taps, std::vector<at::Tensor>* tap_outputs) {
  return forward(x_BLD, context, BlockRange{}, taps, tap_outputs);
}

at::Tensor Stack::forward(const at::Tensor& x_BLD, const Context& whole, BlockRange range,
                          const std::vector<Tap>& taps, std::vector<at::Tensor>* tap_outputs) {
  if (range.end < 0) range.end = depth();
  VT_CHECK(range.first >= 0 && range.first <= range.end && range.end <= depth(),
           "[stack] a range must lie in [0, {}] but is [{}, {})", depth(), range.first, range.end);
  for (const Tap& tap : taps)
    VT_CHECK(tap.block >= range.first && tap.block < range.end,
             "[stack] a tap must be a block in [{}, {}) but got {}", range.first, range.end,
             tap.block);
  if (range.first == range.end) return x_BLD;
  if (!border_) return run_blocks(x_BLD, whole, range, taps, tap_outputs);
  Context context = whole;
  const int64_t tokens = x_BLD.size(1);
  std::vector<at::Tensor> inside;
  const at::Tensor y_BLD =
      run_blocks(border_->enter(x_BLD, context), context, range, taps, &inside);
  if (tap_outputs)
    for (const at::Tensor& tap : inside) tap_outputs->push_back(border_->leave(tap, tokens));
  return border_->leave(y_BLD, tokens);
}

at::Tensor Stack::run_blocks(const at::Tensor& x_BLD, const Context& context, BlockRange range,
                             const std::vector<Tap>& taps, std::vector<at::Tensor>* tap_outputs) {
  if (!at::GradMode::is_enabled()) {
    std::vector<at::Tensor> outputs;
    at::Tensor y_BLD = run_forward(x_BLD, context, range, nullptr, taps, outputs);
    if (tap_outputs) std::ranges::move(outputs, std::back_inserter(*tap_outputs));
    return y_BLD;
  }
  // Each tensor leaves the node once, the last block's as the result itself: gradients from all its users then meet in
  // one place, in plain autograd's order.
  const Tap last = range.end - 1;
  std::vector<Tap> inner(taps);
  std::erase(inner, last);
  std::ranges::sort(inner);
  inner.erase(std::unique(inner.begin(), inner.end()), inner.end());
  // The node exists only if an input requires grad; parameters inside are not inputs of it.
  const at::Tensor entry_BLD =
      x_BLD.requires_grad() ? x_BLD : x_BLD.detach().set_requires_grad(true);
  Context inside = context;
  std::optional<at::Tensor> condition_BD;
  if (context.condition_BD.defined()) condition_BD = std::exchange(inside.condition_BD, {});
  const variable_list results =
      StackFunction::apply(entry_BLD, condition_BD, this, inside, range, inner);
  if (tap_outputs)
    for (const Tap& tap : taps)
      tap_outputs->push_back(
          tap == last ? results[0] : results[1 + (std::ranges::find(inner, tap) - inner.begin())]);
  return results[0];
}

}  // namespace vitrail::nn
