#include "vitrail/train/attention_contenders.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_scaled_dot_product_cudnn_attention.h>
#include <ATen/ops/_scaled_dot_product_flash_attention.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/linspace.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/autograd.h>

#include "vitrail/ops/attention.h"
#include "vitrail/parallel/device.h"

namespace vitrail::train {
namespace {

using kernels::AttentionShape;

uint16_t* bits(const at::Tensor& tensor) { return static_cast<uint16_t*>(tensor.data_ptr()); }

template <class T>
kernels::HeadRows<T> rows(const at::Tensor& view) {
  return {bits(view), view.stride(0), view.stride(1)};
}

at::Tensor nan_like(const at::Tensor& tensor) {
  return at::full(tensor.sizes(), std::numeric_limits<double>::quiet_NaN(), tensor.options());
}

using Core = std::function<at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&)>;

/// LibTorch's attention through autograd, on leaves that are views of nothing: [B, N, L, E].
AttentionContender torch_contender(const std::string& kind, const AttentionValues& values,
                                   Core core) {
  struct State {
    Core core;
    at::Tensor q, k, v, dout, out;
    std::vector<at::Tensor> gradients;
  };
  auto state = std::make_shared<State>();
  state->core = std::move(core);
  const auto leaf = [&](int index) {
    return values.part(values.packed, index).transpose(1, 2).detach().set_requires_grad(true);
  };
  state->q = leaf(0);
  state->k = leaf(1);
  state->v = leaf(2);
  state->dout = values.dout.transpose(1, 2);
  AttentionContender contender;
  contender.kind = kind;
  contender.forward = [state] {
    const at::NoGradGuard no_grad;
    state->out = state->core(state->q, state->k, state->v);
  };
  contender.both = [state] {
    const at::AutoGradMode grad_mode(true);
    const at::Tensor out = state->core(state->q, state->k, state->v);
    state->gradients = torch::autograd::grad({out}, {state->q, state->k, state->v}, {state->dout});
    state->out = out.detach();
  };
  contender.result = [state] {
    AttentionResult result;
    result.out = state->out.transpose(1, 2);
    if (!state->gradients.empty()) {
      result.dq = state->gradients[0].transpose(1, 2);
      result.dk = state->gradients[1].transpose(1, 2);
      result.dv = state->gradients[2].transpose(1, 2);
    }
    return result;
  };
  return contender;
}

at::Tensor aten_cudnn(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  return std::get<0>(at::_scaled_dot_product_cudnn_attention(q, k, v, /*attn_bias=*/{},
                                                             /*compute_log_sumexp=*/true));
}

at::Tensor aten_flash(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  // The operator, unlike its callers, takes only widths that are multiples of 8.
  return std::get<0>(at::_scaled_dot_product_flash_attention(q, k, v));
}

at::Tensor key_mask(const AttentionValues& values) {
  if (!values.lengths.defined()) return {};
  const at::Tensor token = at::arange(values.shape.tokens, values.lengths.options());
  return token.unsqueeze(0) < values.lengths.unsqueeze(1);
}

/// False where LibTorch refuses the shape, forward or backward, which it says by an exception.
bool runs(const AttentionContender& contender) {
  try {
    contender.both();
    return true;
  } catch (const c10::Error&) {
    return false;
  }
}

double square_sum(const at::Tensor& values) { return values.square().sum().item<double>(); }

/// `terms`: square sum of what cancels in the truth.
double difference(const at::Tensor& found, const at::Tensor& truth, double terms = 0) {
  constexpr double kCancelled = 0x1p-16;  // of squares
  const at::Tensor values = found.to(at::kDouble);
  if (!at::isfinite(values).all().item<bool>()) return std::numeric_limits<double>::infinity();
  const double scale = std::max(square_sum(truth), kCancelled * terms);
  return std::sqrt(square_sum(values - truth) / std::max(scale, 1e-300));
}

int64_t length_of(const AttentionValues& values, int64_t sample) {
  return values.lengths.defined() ? values.lengths[sample].item<int64_t>() : values.shape.tokens;
}

}  // namespace

AttentionValues::AttentionValues(const AttentionShape& wanted, at::Device device, double scale)
    : shape(wanted) {
  const auto options = at::TensorOptions().device(device).dtype(at::kBFloat16);
  const int64_t width = (shape.heads + 2 * shape.kv_heads) * shape.head_width;
  packed = at::randn({shape.samples, shape.tokens, width}, options);
  dout = at::randn({shape.samples, shape.tokens, shape.heads, shape.head_width}, options);
  if (scale != 1) {
    part(packed, 0).mul_(scale);
    part(packed, 1).mul_(scale);
  }
  if (shape.has_lengths) {
    // From one token to all, so that the first sample has nearly none and the last has some padding.
    const int64_t most = std::max<int64_t>(1, shape.tokens - 3);
    lengths = at::linspace(1, static_cast<double>(most), shape.samples, options.dtype(at::kDouble))
                  .to(at::kInt);
    if (shape.samples == 1) lengths.fill_(most);
  }
}

at::Tensor AttentionValues::part(const at::Tensor& like_packed, int index) const {
  const int64_t heads = index == 0 ? shape.heads : shape.kv_heads;
  const int64_t begin = index == 0 ? 0 : shape.heads + (index - 1) * shape.kv_heads;
  return like_packed.narrow(2, begin * shape.head_width, heads * shape.head_width)
      .unflatten(2, {heads, shape.head_width});
}

kernels::AttentionStrides packed_strides(const AttentionShape& shape) {
  const int64_t token = (shape.heads + 2 * shape.kv_heads) * shape.head_width;
  const int64_t out_token = shape.heads * shape.head_width;
  const int64_t sample = shape.tokens * token, out_sample = shape.tokens * out_token;
  return {sample, token, sample,     token,     sample,     token,
          sample, token, out_sample, out_token, out_sample, out_token};
}

AttentionContender contender(std::shared_ptr<kernels::AttentionKernel> kernel,
                             const AttentionValues& values) {
  struct State {
    std::shared_ptr<kernels::AttentionKernel> kernel;
    AttentionResult result;
    at::Tensor d_packed, workspace;
    kernels::AttentionForward forward;
    kernels::AttentionBackward backward;
  };
  auto state = std::make_shared<State>();
  state->kernel = std::move(kernel);
  const auto options = values.packed.options();
  const AttentionShape& shape = values.shape;
  const int64_t workspace_bytes = state->kernel->workspace_bytes();
  state->workspace = at::empty({std::max<int64_t>(workspace_bytes, 256)}, options.dtype(at::kByte));
  state->d_packed = nan_like(values.packed);
  AttentionResult& result = state->result;
  result.out = nan_like(values.dout);
  result.lse = at::full({shape.samples, shape.heads, shape.tokens},
                        std::numeric_limits<double>::quiet_NaN(), options.dtype(at::kFloat));
  result.dq = values.part(state->d_packed, 0);
  result.dk = values.part(state->d_packed, 1);
  result.dv = values.part(state->d_packed, 2);

  const auto in = [&](int index) {
    return rows<const uint16_t>(values.part(values.packed, index));
  };
  const int32_t* lengths = values.lengths.defined() ? values.lengths.data_ptr<int32_t>() : nullptr;
  state->forward = {
      in(0), in(1), in(2), lengths, rows<uint16_t>(result.out), result.lse.data_ptr<float>()};
  state->backward = {in(0),
                     in(1),
                     in(2),
                     rows<const uint16_t>(result.out),
                     rows<const uint16_t>(values.dout),
                     lengths,
                     result.lse.data_ptr<float>(),
                     rows<uint16_t>(result.dq),
                     rows<uint16_t>(result.dk),
                     rows<uint16_t>(result.dv)};
  const at::Device device = values.packed.device();
  AttentionContender made;
  made.kind = state->kernel->name();
  made.workspace_bytes = workspace_bytes;
  made.forward = [state, device] {
    state->kernel->forward(state->forward, state->workspace.data_ptr(),
                           parallel::current_stream(device));
  };
  made.both = [state, device] {
    void* stream = parallel::current_stream(device);
    state->kernel->forward(state->forward, state->workspace.data_ptr(), stream);
    state->kernel->backward(state->backward, state->workspace.data_ptr(), stream);
  };
  made.result = [state] { return state->result; };
  return made;
}

std::vector<AttentionContender> attention_contenders(const AttentionValues& values,
                                                     const std::vector<std::string>& kinds) {
  using Clock = std::chrono::steady_clock;
  const AttentionShape& shape = values.shape;
  std::vector<AttentionContender> all;
  const auto wants = [&](const char* kind) {
    return kinds.empty() || std::find(kinds.begin(), kinds.end(), kind) != kinds.end();
  };
  const auto add_kernel = [&](const char* kind, auto&& make) {
    if (!wants(kind)) return;
    const Clock::time_point begin = Clock::now();
    std::shared_ptr<kernels::AttentionKernel> kernel = make();
    if (!kernel) return;
    const double ms = std::chrono::duration<double, std::milli>(Clock::now() - begin).count();
    all.push_back(contender(std::move(kernel), values));
    all.back().kind = kind;
    all.back().build_ms = ms;
  };
  const auto add_torch = [&](const char* kind, Core core) {
    if (!wants(kind)) return;
    AttentionContender made = torch_contender(kind, values, std::move(core));
    if (runs(made)) all.push_back(std::move(made));
  };
  const at::Device device = values.packed.device();
  const bool is_plain_shape = !shape.has_lengths && shape.heads == shape.kv_heads;
  if (device.is_cuda()) {
    const int index = device.index();
    add_kernel("cudnn",
               [&] { return kernels::library_attention(shape, packed_strides(shape), index); });
    add_kernel("short", [&] { return kernels::short_attention(shape, index); });
    add_kernel("narrow", [&] { return kernels::narrow_attention(shape, index); });
    if (is_plain_shape) {
      add_torch("aten-cudnn", aten_cudnn);
      add_torch("aten-flash", aten_flash);
    }
  }
  const at::Tensor mask = key_mask(values);
  if (!device.is_cuda() || !is_plain_shape)
    add_torch("aten", [mask](const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
      return ops::sdpa(q, k, v, mask);
    });
  constexpr double kMostPlain = 1e8;  // probabilities
  const double probabilities = static_cast<double>(shape.samples * shape.heads) *
                               static_cast<double>(shape.tokens * shape.tokens);
  if (!device.is_cuda() && probabilities <= kMostPlain)
    add_torch("plain", [mask](const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
      return ops::plain_attention(q, k, v, mask);
    });
  return all;
}

AttentionTruth attention_truth(const AttentionValues& values, int64_t sample, int64_t kv_head,
                               bool backward) {
  const AttentionShape& shape = values.shape;
  const int64_t group = shape.heads / shape.kv_heads, tokens = shape.tokens;
  const int64_t keys = length_of(values, sample);
  const double scale = 1.0 / std::sqrt(static_cast<double>(shape.head_width));
  const auto of = [&](const at::Tensor& all, int64_t head) {
    return all[sample].select(1, head).to(at::kDouble).contiguous();
  };
  const at::Tensor k = of(values.part(values.packed, 1), kv_head).narrow(0, 0, keys),
                   v = of(values.part(values.packed, 2), kv_head).narrow(0, 0, keys);
  const auto options = k.options();
  AttentionTruth truth;
  truth.out = at::empty({tokens, group, shape.head_width}, options);
  truth.lse = at::empty({group, tokens}, options);
  truth.dq = at::empty_like(truth.out);
  truth.dk = at::zeros({tokens, shape.head_width}, options);
  truth.dv = at::zeros({tokens, shape.head_width}, options);
  const at::Tensor dk_terms = at::zeros({keys, shape.head_width}, options);
  const int64_t chunk = std::clamp<int64_t>((int64_t{1} << 25) / keys, 1, tokens);
  for (int64_t head = 0; head < group; ++head) {
    const int64_t query_head = kv_head * group + head;
    const at::Tensor all_q = of(values.part(values.packed, 0), query_head),
                     all_dout = of(values.dout, query_head);
    for (int64_t begin = 0; begin < tokens; begin += chunk) {
      const int64_t count = std::min(chunk, tokens - begin);
      const at::Tensor q = all_q.narrow(0, begin, count), dout = all_dout.narrow(0, begin, count);
      const at::Tensor logits = at::matmul(q, k.t()).mul_(scale);
      const at::Tensor lse = at::logsumexp(logits, 1, /*keepdim=*/true);
      const at::Tensor p = (logits - lse).exp_();
      const at::Tensor out = at::matmul(p, v);
      truth.out.narrow(0, begin, count).select(1, head).copy_(out);
      truth.lse[head].narrow(0, begin, count).copy_(lse.squeeze(1));
      if (!backward) continue;
      truth.dv.narrow(0, 0, keys).add_(at::matmul(p.t(), dout));
      const at::Tensor row = (dout * out).sum(1, /*keepdim=*/true);
      at::Tensor ds = at::matmul(dout, v.t()).mul_(p).mul_(scale);
      truth.dq_terms += square_sum(at::matmul(ds, k));
      dk_terms.add_(at::matmul(ds.t(), q));
      ds = ds.sub_(row * p, scale);
      truth.dq.narrow(0, begin, count).select(1, head).copy_(at::matmul(ds, k));
      truth.dk.narrow(0, 0, keys).add_(at::matmul(ds.t(), q));
    }
  }
  truth.dk_terms = square_sum(dk_terms);
  return truth;
}

AttentionError attention_error(const AttentionValues& values, const AttentionResult& result,
                               int64_t sample, int64_t kv_head, bool backward) {
  const at::NoGradGuard no_grad;
  constexpr double kBroken = std::numeric_limits<double>::infinity();
  const int64_t group = values.shape.heads / values.shape.kv_heads;
  const int64_t keys = length_of(values, sample);
  const AttentionTruth truth = attention_truth(values, sample, kv_head, backward);
  const auto of_group = [&](const at::Tensor& all) {
    return all[sample].narrow(1, kv_head * group, group);
  };
  // Every query is compared: one past the length attends to the same keys as any other.
  AttentionError error;
  error.out = difference(of_group(result.out), truth.out);
  if (result.lse.defined()) {
    const at::Tensor lse = result.lse[sample].narrow(0, kv_head * group, group).to(at::kDouble);
    error.lse = (lse - truth.lse).abs().max().item<double>();
    if (!std::isfinite(error.lse)) error.lse = kBroken;
  }
  if (!backward) return error;
  error.dq = difference(of_group(result.dq), truth.dq, truth.dq_terms);
  const at::Tensor dk = result.dk[sample].select(1, kv_head),
                   dv = result.dv[sample].select(1, kv_head);
  error.dk = difference(dk, truth.dk, truth.dk_terms);
  error.dv = difference(dv, truth.dv);
  const int64_t rest = values.shape.tokens - keys;
  const auto all_zero = [&](const at::Tensor& d) {
    return (d.narrow(0, keys, rest) == 0).all().item<bool>();
  };
  if (rest > 0 && !all_zero(dk)) error.dk = kBroken;
  if (rest > 0 && !all_zero(dv)) error.dv = kBroken;
  return error;
}

}  // namespace vitrail::train
