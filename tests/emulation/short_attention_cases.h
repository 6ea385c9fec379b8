#pragma once
// What both tests of the short attention share: cases, the formula in fp64 with and without the roundings that bf16
// cannot avoid, and the comparison. The device is the only difference.

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/full.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include "vitrail/kernels/attention.h"

namespace vitrail::kernels::short_test {

struct Case {
  int64_t tokens, width;
  int64_t samples = 1, heads = 1, kv_heads = 1;
  std::vector<int32_t> lengths = {};
  double q_spread = 1, q_mean = 0, k_mean = 0;
  double dout_scale = 1;
  int64_t gap = 0;  // elements between the tokens of the packed tensors

  std::string text() const {
    char line[160];
    std::snprintf(line, sizeof line,
                  "%ldx%ld tokens, %ld/%ld heads of %ld%s, q std %g mean %g, k mean %g",
                  static_cast<long>(samples), static_cast<long>(tokens), static_cast<long>(heads),
                  static_cast<long>(kv_heads), static_cast<long>(width),
                  lengths.empty() ? "" : ", lengths", q_spread, q_mean, k_mean);
    return line;
  }
};

/// [samples, heads, tokens, width] of everything.
struct Heads {
  at::Tensor q, k, v, dout;
};
struct Results {
  at::Tensor out, lse, dq, dk, dv;
};

inline at::Tensor to_bf16(const at::Tensor& x) { return x.to(at::kBFloat16); }
inline at::Tensor rounded(const at::Tensor& x, bool round) {
  return round ? to_bf16(x).to(at::kDouble) : x;
}

inline at::Tensor normal(at::IntArrayRef shape, uint64_t seed) {
  return at::randn(shape, at::make_generator<at::CPUGeneratorImpl>(seed),
                   at::TensorOptions(at::kDouble));
}

inline Heads random_heads(const Case& c, uint64_t seed = 1) {
  const int64_t s = c.samples, t = c.tokens, e = c.width;
  return {to_bf16(normal({s, c.heads, t, e}, seed) * c.q_spread + c.q_mean),
          to_bf16(normal({s, c.kv_heads, t, e}, seed + 1) + c.k_mean),
          to_bf16(normal({s, c.kv_heads, t, e}, seed + 2)),
          to_bf16(normal({s, c.heads, t, e}, seed + 3) * c.dout_scale)};
}

/// 1 where a token is attended to, [samples, 1, tokens, 1].
inline at::Tensor counted(const Case& c) {
  if (c.lengths.empty()) return at::full({c.samples, 1, c.tokens, 1}, 1, at::kDouble);
  const std::vector<int64_t> lengths(c.lengths.begin(), c.lengths.end());
  return (at::arange(c.tokens).view({1, 1, -1, 1}) < at::tensor(lengths).view({-1, 1, 1, 1}))
      .to(at::kDouble);
}

/// The formula in fp64; `round` rounds to bf16 what the kernels keep in bf16: P, dS and the results.
inline Results formula(const Case& c, const Heads& x, bool round) {
  const int64_t group = c.heads / c.kv_heads;
  const auto shared = [&](const at::Tensor& heads) {
    return heads.to(at::kDouble).repeat_interleave(group, 1);
  };
  const auto summed = [&](const at::Tensor& heads) {
    return heads.unflatten(1, {c.kv_heads, group}).sum(2);
  };
  const at::Tensor keys = counted(c).transpose(2, 3) > 0;
  const at::Tensor q = x.q.to(at::kDouble), k = shared(x.k), v = shared(x.v);
  const at::Tensor dout = x.dout.to(at::kDouble);
  const double scale = 1 / std::sqrt(static_cast<double>(c.width));
  const at::Tensor logits =
      at::where(keys, at::matmul(q, k.transpose(2, 3)) * scale,
                at::full({}, -std::numeric_limits<double>::infinity(), at::kDouble));
  Results r;
  r.lse = at::logsumexp(logits, -1, true);
  const at::Tensor p = at::exp(logits - r.lse);
  const at::Tensor p16 = rounded(p, round);
  r.out = rounded(at::matmul(p16, v), round);
  const at::Tensor d = (dout * r.out).sum(-1, true);
  const at::Tensor ds = rounded(p * (at::matmul(dout, v.transpose(2, 3)) - d), round);
  r.dv = rounded(summed(at::matmul(p16.transpose(2, 3), dout)), round);
  r.dq = rounded(at::matmul(ds, k) * scale, round);
  r.dk = rounded(summed(at::matmul(ds.transpose(2, 3), q) * scale), round);
  r.lse = r.lse.squeeze(-1);
  return r;
}

/// One case's tensors, packed as the qkv layer leaves them; gaps and results start as NaN.
class Prepared {
 public:
  Prepared(const Case& c, const Heads& x, at::Device device)
      : case_(c), kernel_(short_attention(shape_of(c), 0)) {
    if (!kernel_) throw std::runtime_error("the kernel must take " + c.text());
    const int64_t e = c.width, all = (c.heads + 2 * c.kv_heads) * e + c.gap;
    const auto unwritten = [&](at::IntArrayRef sizes, at::ScalarType type) {
      return at::full(sizes, std::numeric_limits<double>::quiet_NaN(),
                      at::TensorOptions(device).dtype(type));
    };
    qkv_ = unwritten({c.samples, c.tokens, all}, at::kBFloat16);
    dqkv_ = unwritten({c.samples, c.tokens, all}, at::kBFloat16);
    for (const auto& [heads, column] :
         {std::pair(&x.q, int64_t{0}), std::pair(&x.k, k_at()), std::pair(&x.v, v_at())})
      qkv_.narrow(2, column, heads->size(1) * e).copy_(token_major(*heads));
    dout_ = token_major(x.dout).contiguous().to(device);
    out_ = unwritten({c.samples, c.tokens, c.heads * e}, at::kBFloat16);
    lse_ = unwritten({c.samples, c.heads, c.tokens}, at::kFloat);
    workspace_ =
        at::full({kernel_->workspace_bytes()}, 0xFF, at::TensorOptions(device).dtype(at::kByte));
    if (!c.lengths.empty()) lengths_ = at::tensor(c.lengths, at::kInt).to(device);
  }

  void forward() {
    kernel_->forward({part<const uint16_t>(qkv_, 0), part<const uint16_t>(qkv_, k_at()),
                      part<const uint16_t>(qkv_, v_at()), lengths(), part<uint16_t>(out_, 0),
                      lse_.data_ptr<float>()},
                     workspace_.data_ptr(), nullptr);
  }
  void backward() {
    kernel_->backward(
        {part<const uint16_t>(qkv_, 0), part<const uint16_t>(qkv_, k_at()),
         part<const uint16_t>(qkv_, v_at()), part<const uint16_t>(out_, 0),
         part<const uint16_t>(dout_, 0), lengths(), lse_.const_data_ptr<float>(),
         part<uint16_t>(dqkv_, 0), part<uint16_t>(dqkv_, k_at()), part<uint16_t>(dqkv_, v_at())},
        workspace_.data_ptr(), nullptr);
  }

  Results results() const {
    return {view(out_, 0, case_.heads).cpu(), lse_.cpu(), view(dqkv_, 0, case_.heads).cpu(),
            view(dqkv_, k_at(), case_.kv_heads).cpu(), view(dqkv_, v_at(), case_.kv_heads).cpu()};
  }
  bool gap_is_untouched() const {
    const at::Tensor gap = dqkv_.narrow(2, dqkv_.size(2) - case_.gap, case_.gap);
    return !at::isfinite(gap).any().item<bool>();
  }
  /// [samples, heads, tokens, width], strided.
  Heads heads() const {
    return {view(qkv_, 0, case_.heads), view(qkv_, k_at(), case_.kv_heads),
            view(qkv_, v_at(), case_.kv_heads), view(dout_, 0, case_.heads)};
  }

 private:
  static AttentionShape shape_of(const Case& c) {
    return {c.samples, c.tokens, c.heads, c.kv_heads, c.width, !c.lengths.empty()};
  }
  static at::Tensor token_major(const at::Tensor& heads) {
    return heads.transpose(1, 2).flatten(2);
  }
  template <class T>
  static HeadRows<T> part(const at::Tensor& packed, int64_t column) {
    return {reinterpret_cast<T*>(packed.data_ptr()) + column, packed.stride(0), packed.stride(1)};
  }
  at::Tensor view(const at::Tensor& packed, int64_t column, int64_t heads) const {
    return packed.narrow(2, column, heads * case_.width)
        .unflatten(2, {heads, case_.width})
        .transpose(1, 2);
  }
  int64_t k_at() const { return case_.heads * case_.width; }
  int64_t v_at() const { return k_at() + case_.kv_heads * case_.width; }
  const int32_t* lengths() const {
    return lengths_.defined() ? lengths_.const_data_ptr<int32_t>() : nullptr;
  }

  Case case_;
  std::unique_ptr<AttentionKernel> kernel_;
  at::Tensor qkv_, dqkv_, dout_, out_, lse_, workspace_, lengths_;
};

inline Results run(const Case& c, const Heads& x, at::Device device) {
  Prepared prepared(c, x, device);
  prepared.forward();
  prepared.backward();
  EXPECT_TRUE(prepared.gap_is_untouched()) << "the gap between tokens was written";
  return prepared.results();
}

inline double rms(const at::Tensor& x) { return std::sqrt((x * x).mean().item<double>()); }

/// rms of the error over rms of the value.
inline double error(const at::Tensor& result, const at::Tensor& expected) {
  return rms(result.to(at::kDouble) - expected) / (rms(expected) + 1e-30);
}

/// Allowed over the error of the formula with the roundings of bf16: sums are fp32, the probabilities are rounded at
/// another scale and the exponential is good to 2^-22. The tests print both.
constexpr double kSlack = 1.15;

inline void expect_right(const Case& c, const Results& r, const Heads& x) {
  const Results exact = formula(c, x, false), bf16 = formula(c, x, true);
  std::printf("%s:", c.text().c_str());
  const auto check = [&](const char* name, at::Tensor Results::*part) {
    const double got = error(r.*part, exact.*part);
    const double limit = kSlack * error(bf16.*part, exact.*part) + 2e-4;
    std::printf(" %s %.2e (%.2e)", name, got, limit);
    EXPECT_LE(got, limit) << name << " of " << c.text();
  };
  check("out", &Results::out);
  check("dv", &Results::dv);
  if (c.tokens > 1) {
    check("dq", &Results::dq);
    check("dk", &Results::dk);
  } else {  // exactly 0; what is left are the fp32 roundings of dP - D
    EXPECT_LE(r.dq.abs().max().item<double>(), 1e-4);
    EXPECT_LE(r.dk.abs().max().item<double>(), 1e-4);
  }
  for (const auto& gradient : {r.dk, r.dv})
    EXPECT_EQ((gradient.to(at::kDouble) * (1 - counted(c))).abs().max().item<double>(), 0)
        << "gradients of tokens past the length, " << c.text();
  const double lse = (r.lse.to(at::kDouble) - exact.lse).abs().max().item<double>();
  // fp32 logits and one fp32 rounding: 2^-21 of the largest logit, and the sum's own.
  const double lse_limit = 4e-6 + 5e-7 * exact.lse.abs().max().item<double>();
  std::printf(" lse %.1e (%.1e)\n", lse, lse_limit);
  EXPECT_LE(lse, lse_limit) << c.text();
}

inline bool same_bits(const Results& a, const Results& b) {
  return a.out.equal(b.out) && a.lse.equal(b.lse) && a.dq.equal(b.dq) && a.dk.equal(b.dk) &&
         a.dv.equal(b.dv);
}

/// Every number of tokens and width around which something changes: tiles of 16, groups of 4 tiles, built widths.
inline std::vector<Case> shape_cases() {
  std::vector<Case> cases;
  for (const int64_t tokens : {1, 16, 17, 50, 64, 197, 256, 257, 320})
    cases.push_back({tokens, 80});
  for (const int64_t width : {32, 40, 48, 56, 64, 72, 88, 96, 104, 112, 120, 128})
    cases.push_back({65, width});
  cases.push_back({197, 64, 2, 2, 2});
  cases.push_back({257, 88});
  cases.push_back({320, 128});
  return cases;
}

inline std::vector<Case> hard_cases() {
  std::vector<Case> cases;
  // Largest logits about 30, 120 and 500; then logits shifted far up and far down, where only differences count.
  for (const double spread : {8.0, 32.0, 128.0})
    cases.push_back({.tokens = 130, .width = 80, .q_spread = spread});
  cases.push_back({.tokens = 130, .width = 64, .q_mean = 4, .k_mean = 12});
  cases.push_back({.tokens = 130, .width = 64, .q_mean = 4, .k_mean = -12});
  cases.push_back({.tokens = 130, .width = 64, .k_mean = 1, .dout_scale = 1e-4});
  cases.push_back({.tokens = 77, .width = 48, .dout_scale = 100});
  return cases;
}

inline std::vector<Case> length_cases() {
  return {{.tokens = 100,
           .width = 64,
           .samples = 5,
           .heads = 2,
           .kv_heads = 2,
           .lengths = {100, 1, 16, 65, 99}},
          {.tokens = 40, .width = 80, .samples = 2, .heads = 4, .kv_heads = 1, .lengths = {17, 33}},
          {.tokens = 130, .width = 64, .samples = 1, .lengths = {125}, .q_mean = 4, .k_mean = -12}};
}

inline std::vector<Case> group_cases() {
  return {{.tokens = 50, .width = 64, .samples = 2, .heads = 8, .kv_heads = 2},
          {.tokens = 130, .width = 88, .samples = 1, .heads = 4, .kv_heads = 1, .gap = 24}};
}

}  // namespace vitrail::kernels::short_test
