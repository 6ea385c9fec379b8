#pragma once
/// A block written out with elementary operations, one head after the other, random numbers one by one: shares nothing
/// with vitrail/nn or vitrail/ops but the names of the parameters.

#include <cmath>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/stack.h>

#include "tests/nn/block_cases.h"
#include "vitrail/core/philox.h"

namespace vitrail::nn {

class BlockFormula {
 public:
  BlockFormula(const BlockCase& c, const BlockRun& run, int index,
               std::map<std::string, at::Tensor> weights)
      : case_(c), o_(c.options), run_(run), index_(index), w_(std::move(weights)) {}

  at::Tensor operator()(const at::Tensor& x) const {
    at::Tensor h = x;
    if (o_.conditioned)
      h = h + linear("cond", silu(run_.context.condition_BD)).view({x.size(0), 1, x.size(2)});
    at::Tensor y = attention(norm("norm1", h));
    if (o_.layer_scale) y = y * w_.at("ls1.gamma");
    const at::Tensor middle = x + y * kept_samples(0);
    y = mlp(norm("norm2", middle));
    if (o_.layer_scale) y = y * w_.at("ls2.gamma");
    return middle + y * kept_samples(1);
  }

 private:
  static at::Tensor silu(const at::Tensor& x) { return x / (1.0 + (-x).exp()); }

  at::Tensor linear(const std::string& name, const at::Tensor& x) const {
    const at::Tensor y = at::matmul(x, w_.at(name + ".weight").t());
    return w_.contains(name + ".bias") ? y + w_.at(name + ".bias") : y;
  }

  at::Tensor norm(const std::string& name, const at::Tensor& x) const {
    if (o_.norm.kind == NormKind::rmsnorm)
      return x / ((x * x).mean(-1, true) + o_.norm.eps).sqrt() * w_.at(name + ".weight");
    const at::Tensor centred = x - x.mean(-1, true);
    return centred / ((centred * centred).mean(-1, true) + o_.norm.eps).sqrt() *
               w_.at(name + ".weight") +
           w_.at(name + ".bias");
  }

  /// Angle of pair `pair` of the token `t` of sample `b`.
  double angle(int64_t b, int64_t t, int64_t pair) const {
    if (t < kCasePrefix) return 0.0;
    const int64_t cell = run_.ids_BK[b][t - kCasePrefix].item<int64_t>();
    const int64_t E = o_.width / o_.num_heads;
    if (case_.rope == Rope::raster)
      return static_cast<double>(cell) * std::pow(100.0, -2.0 * static_cast<double>(pair) / E);
    const auto axes = static_cast<int64_t>(case_.grid.size());
    const int64_t per_axis = E / 2 / axes, axis = pair / per_axis;
    int64_t rest = cell;
    for (int64_t a = axes - 1; a > axis; --a) rest /= case_.grid[a];
    return static_cast<double>(rest % case_.grid[axis]) *
           std::pow(100.0, -static_cast<double>(pair % per_axis) / static_cast<double>(per_axis));
  }

  /// x [B, T, E]; cos and sin rounded to fp32, as the library's tables are.
  at::Tensor turn(const at::Tensor& x) const {
    if (case_.rope == Rope::none) return x;
    const int64_t B = x.size(0), T = x.size(1), pairs = x.size(2) / 2;
    at::Tensor cos = at::empty({B, T, pairs}, at::kDouble),
               sin = at::empty({B, T, pairs}, at::kDouble);
    for (int64_t b = 0; b < B; ++b)
      for (int64_t t = 0; t < T; ++t)
        for (int64_t p = 0; p < pairs; ++p) {
          cos[b][t][p] = static_cast<double>(static_cast<float>(std::cos(angle(b, t, p))));
          sin[b][t][p] = static_cast<double>(static_cast<float>(std::sin(angle(b, t, p))));
        }
    const at::Tensor even = x.slice(2, 0, x.size(2), 2), odd = x.slice(2, 1, x.size(2), 2);
    return at::stack({even * cos - odd * sin, even * sin + odd * cos}, -1).view(x.sizes());
  }

  at::Tensor attention(const at::Tensor& x) const {
    const int64_t N = o_.num_heads, Nkv = o_.num_kv_heads ? o_.num_kv_heads : N, E = o_.width / N;
    const at::Tensor rows = linear("attn.qkv", x);
    const auto head = [&](int64_t i) { return rows.slice(2, i * E, (i + 1) * E); };
    const at::Tensor kept =
        keep(core::Stream::dropout, 4 * index_, o_.attn_drop, {x.size(0), N, x.size(1), x.size(1)});
    std::vector<at::Tensor> heads;
    for (int64_t n = 0; n < N; ++n) {
      const int64_t shared = n / (N / Nkv);
      at::Tensor q = head(n), k = head(N + shared);
      if (o_.qk_norm) q = norm("attn.q_norm", q), k = norm("attn.k_norm", k);
      at::Tensor p =
          (at::matmul(turn(q), turn(k).transpose(1, 2)) / std::sqrt(static_cast<double>(E))).exp();
      if (case_.masked) p = p * run_.context.key_mask_BT.to(at::kDouble).unsqueeze(1);
      p = p / p.sum(-1, true);
      heads.push_back(at::matmul(p * kept.select(1, n), head(N + Nkv + shared)));
    }
    const at::Tensor y = linear("attn.proj", at::cat(heads, 2));
    return y * keep(core::Stream::dropout, 4 * index_ + 1, o_.proj_drop, y.sizes());
  }

  at::Tensor mlp(const at::Tensor& x) const {
    at::Tensor h;
    if (o_.mlp == MlpKind::swiglu) {
      h = silu(linear("mlp.fc1_g", x)) * linear("mlp.fc1_x", x);
    } else {
      h = linear("mlp.fc1", x);
      h = h * 0.5 * ((h / std::sqrt(2.0)).erf() + 1.0);
    }
    h = h * keep(core::Stream::dropout, 4 * index_ + 2, o_.proj_drop, h.sizes());
    const at::Tensor y = linear("mlp.fc2", h);
    return y * keep(core::Stream::dropout, 4 * index_ + 3, o_.proj_drop, y.sizes());
  }

  at::Tensor kept_samples(int branch) const {
    return keep(core::Stream::drop_path, 2 * index_ + branch, o_.drop_path, {kCaseBatch, 1, 1});
  }

  /// 0 or 1 / (1 - rate) for each place, from the Philox value of (sample, place).
  at::Tensor keep(core::Stream stream, int layer, double rate, at::IntArrayRef shape) const {
    const double r = case_.training ? rate : 0.0;
    at::Tensor all = at::empty(shape, at::kDouble);
    auto* value = all.mutable_data_ptr<double>();
    const int64_t per_sample = all.numel() / shape[0];
    const core::DrawKey key{run_.context.seed, stream, run_.context.step,
                            static_cast<uint16_t>(layer)};
    for (int64_t b = 0; b < shape[0]; ++b)
      for (int64_t e = 0; e < per_sample; ++e)
        *value++ = core::uniform(key, 100 + b, static_cast<uint32_t>(e)) >= static_cast<float>(r)
                       ? 1.0 / (1.0 - r)
                       : 0.0;
    return all;
  }

  const BlockCase& case_;
  const BlockOptions& o_;
  const BlockRun& run_;
  int index_;
  std::map<std::string, at::Tensor> w_;
};

/// The case's two blocks, one after the other. Parameters are those of the run's stack, so gradients reach them.
inline at::Tensor formula_forward(const BlockCase& c, const BlockRun& run, at::Tensor x) {
  for (int i = 0; i < run.stack->depth(); ++i) {
    std::map<std::string, at::Tensor> weights;
    for (const NamedTensor& parameter : run.stack->block(i).named_parameters())
      weights[parameter.name] = parameter.tensor;
    x = BlockFormula(c, run, 3 + i, std::move(weights))(x);
  }
  return x;
}

}  // namespace vitrail::nn
