#include "vitrail/ops/attention_kept.h"

#include <array>
#include <cmath>
#include <limits>
#include <tuple>

#include <ATen/SDPBackend.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_fused_sdp_choice.h>
#include <ATen/ops/_scaled_dot_product_cudnn_attention.h>
#include <ATen/ops/_scaled_dot_product_cudnn_attention_backward.h>
#include <ATen/ops/_scaled_dot_product_efficient_attention.h>
#include <ATen/ops/_scaled_dot_product_efficient_attention_backward.h>
#include <ATen/ops/_scaled_dot_product_flash_attention.h>
#include <ATen/ops/_scaled_dot_product_flash_attention_backward.h>
#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu.h>
#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu_backward.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include "vitrail/core/error.h"

namespace vitrail::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

thread_local std::vector<KeptCore>* keeping = nullptr;
thread_local const std::vector<KeptCore>* taking = nullptr;
thread_local size_t taken = 0;

/// One call as the library's own attention sees it.
struct Call {
  at::Tensor q, k, v;
  at::Tensor bias;  // what is added to the scores; undefined = nothing
  double scale;
};

/// The library's choice depends on whether gradients are wanted; later they will be.
int64_t choice_of(const Call& call, const std::optional<at::Tensor>& mask, bool shares_heads) {
  const at::AutoGradMode on(true);
  const auto leaf = [](const at::Tensor& x) { return x.detach().set_requires_grad(true); };
  return at::_fused_sdp_choice(leaf(call.q), leaf(call.k), leaf(call.v), mask, 0.0, false,
                               std::nullopt, shares_heads);
}

/// As the library turns a mask of truth values into numbers.
at::Tensor bias_of(const at::Tensor& mask, at::ScalarType type) {
  return at::zeros(mask.sizes(), mask.options().dtype(type))
      .masked_fill_(mask.logical_not(), -std::numeric_limits<double>::infinity());
}

/// Memory-efficient attention reads rows of the bias at multiples of 16 elements.
at::Tensor aligned_bias(const Call& call) {
  constexpr int64_t kAlign = 16;
  const int64_t keys = call.k.size(-2);
  const at::Tensor bias = call.bias.expand({call.q.size(0), call.q.size(1), call.q.size(-2), keys});
  if (keys % kAlign == 0) return bias;
  return at::constant_pad_nd(bias, {0, kAlign - keys % kAlign}).slice(-1, 0, keys);
}

std::optional<at::Tensor> optional(const at::Tensor& x) {
  return x.defined() ? std::optional<at::Tensor>(x) : std::nullopt;
}

KeptCore compute_on_cpu(const Call& call) {
  auto [out, lse] = at::_scaled_dot_product_flash_attention_for_cpu(
      call.q, call.k, call.v, 0.0, false, optional(call.bias), std::nullopt);
  return {out, {lse}};
}

KeptCore compute_with_flash(const Call& call) {
  auto [out, lse, first_q, first_k, max_q, max_k, seed, offset, unused] =
      at::_scaled_dot_product_flash_attention(call.q, call.k, call.v, 0.0, false, false,
                                              call.scale);
  return {out, {lse, first_q, first_k, seed, offset}, 0, max_q.expect_int(), max_k.expect_int()};
}

KeptCore compute_with_cudnn(const Call& call) {
  auto [out, lse, first_q, first_k, max_q, max_k, seed, offset, unused] =
      at::_scaled_dot_product_cudnn_attention(call.q, call.k, call.v, std::nullopt, true, 0.0,
                                              false, false, std::nullopt);
  return {out, {lse, first_q, first_k, seed, offset}, 0, max_q.expect_int(), max_k.expect_int()};
}

KeptCore compute_efficiently(const Call& call) {
  auto [out, lse, seed, offset] = at::_scaled_dot_product_efficient_attention(
      call.q, call.k, call.v, optional(call.bias), true, 0.0, false, std::nullopt);
  return {out, {lse, seed, offset}};
}

/// What the library computes a call with, or an empty result where it has no backward to call.
KeptCore compute(Call& call, const std::optional<at::Tensor>& mask, bool shares_heads) {
  const auto choice = static_cast<at::SDPBackend>(choice_of(call, mask, shares_heads));
  const bool flash = choice == at::SDPBackend::flash_attention;
  KeptCore core;
  if (call.q.is_cpu() && flash) core = compute_on_cpu(call);
  // The library pads other head widths first.
  else if (call.q.is_cuda() && flash && call.q.size(-1) % 8 == 0)
    core = compute_with_flash(call);
  else if (call.q.is_cuda() && choice == at::SDPBackend::cudnn_attention && !call.bias.defined())
    core = compute_with_cudnn(call);
  else if (call.q.is_cuda() && choice == at::SDPBackend::efficient_attention) {
    if (call.bias.defined()) call.bias = aligned_bias(call);
    core = compute_efficiently(call);
  }
  core.library = static_cast<int64_t>(choice);
  return core;
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> backward_of(const Call& call, const KeptCore& core,
                                                           const at::Tensor& dout) {
  const std::vector<at::Tensor>& more = core.more;
  if (call.q.is_cpu())
    return at::_scaled_dot_product_flash_attention_for_cpu_backward(
        dout, call.q, call.k, call.v, core.out, more[0], 0.0, false, optional(call.bias),
        std::nullopt);
  if (core.library == static_cast<int64_t>(at::SDPBackend::flash_attention))
    return at::_scaled_dot_product_flash_attention_backward(
        dout, call.q, call.k, call.v, core.out, more[0], more[1], more[2], core.max_q, core.max_k,
        0.0, false, more[3], more[4], call.scale);
  if (core.library == static_cast<int64_t>(at::SDPBackend::cudnn_attention))
    return at::_scaled_dot_product_cudnn_attention_backward(
        dout, call.q, call.k, call.v, core.out, more[0], more[3], more[4], {}, more[1], more[2],
        core.max_q, core.max_k, 0.0, false, std::nullopt);
  const auto [dq, dk, dv, dbias] = at::_scaled_dot_product_efficient_attention_backward(
      dout, call.q, call.k, call.v, call.bias, core.out, more[0], more[1], more[2], 0.0,
      std::array<bool, 4>{true, true, true, false}, false, std::nullopt);
  return {dq, dk, dv};
}

/// The core with its result known: forward hands it out, backward is the library's.
struct TakenCore : torch::autograd::Function<TakenCore> {
  static at::Tensor forward(AutogradContext* node, const at::Tensor& q, const at::Tensor& k,
                            const at::Tensor& v, const std::optional<at::Tensor>& bias,
                            const KeptCore* core, double scale) {
    variable_list saved{q, k, v, bias.value_or(at::Tensor()), core->out};
    saved.insert(saved.end(), core->more.begin(), core->more.end());
    node->save_for_backward(std::move(saved));
    node->saved_data["numbers"] = std::vector<int64_t>{core->library, core->max_q, core->max_k};
    node->saved_data["scale"] = scale;
    return core->out.detach();
  }

  static variable_list backward(AutogradContext* node, const variable_list& gradients) {
    const variable_list saved = node->get_saved_variables();
    const std::vector<int64_t> numbers = node->saved_data["numbers"].toIntVector();
    const Call call{saved[0], saved[1], saved[2], saved[3], node->saved_data["scale"].toDouble()};
    const KeptCore core{
        saved[4], {saved.begin() + 5, saved.end()}, numbers[0], numbers[1], numbers[2]};
    auto [dq, dk, dv] = backward_of(call, core, gradients[0]);
    return {dq, dk, dv, {}, {}, {}};
  }
};

}  // namespace

KeepCores::KeepCores(std::vector<KeptCore>& cores) {
  VT_CHECK(!keeping && !taking, "[attention] scopes of kept results must not nest but one is open");
  keeping = &cores;
}
KeepCores::~KeepCores() { keeping = nullptr; }

TakeCores::TakeCores(const std::vector<KeptCore>& cores) {
  VT_CHECK(!keeping && !taking, "[attention] scopes of kept results must not nest but one is open");
  taking = &cores;
  taken = 0;
}
TakeCores::~TakeCores() { taking = nullptr; }

const KeptCore* taken_core() {
  if (!taking) return nullptr;
  VT_CHECK(taken < taking->size(),
           "[attention] a second pass must call attention as often as the first, {} times, but "
           "does so more often",
           taking->size());
  const KeptCore& core = (*taking)[taken++];
  return core.is_kept() ? &core : nullptr;
}

void keep_core(const KeptCore& core) {
  if (keeping) keeping->push_back(core);
}

std::optional<at::Tensor> kept_sdpa(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                    const std::optional<at::Tensor>& mask, bool shares_heads) {
  if (!keeping && !taking) return std::nullopt;
  Call call{q, k, v, {}, 1.0 / std::sqrt(static_cast<double>(q.size(-1)))};
  if (mask) call.bias = bias_of(*mask, q.scalar_type());
  if (keeping) {
    const KeptCore core = compute(call, mask, shares_heads);
    keep_core(core);
    return optional(core.out);
  }
  const KeptCore* core = taken_core();
  if (!core) return std::nullopt;
  if (call.bias.defined() && q.is_cuda()) call.bias = aligned_bias(call);
  return TakenCore::apply(call.q, call.k, call.v, optional(call.bias), core, call.scale);
}

}  // namespace vitrail::ops
