#pragma once
// What both tests of narrow attention share: cases, the formula in fp64 with and without the roundings that bf16 cannot
// avoid, and the comparison. The device is the only difference.

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/full.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>

#include "vitrail/kernels/attention.h"

namespace vitrail::kernels::narrow_test {

struct Case {
  int64_t tokens, width;
  double spread = 0.9;  // of q and k
  double k_mean = 0, dout_scale = 1, k_scale = 1, v_scale = 1;
  int64_t samples = 1, heads = 1;
  bool zero_rows = false;  // two thirds of the gradient of out

  std::string text() const {
    char line[160];
    std::snprintf(line, sizeof line,
                  "%ldx%ld tokens, %ld heads of %ld, std %g, k mean %g, dout x %g, k x %g, v x %g",
                  static_cast<long>(samples), static_cast<long>(tokens), static_cast<long>(heads),
                  static_cast<long>(width), spread, k_mean, dout_scale, k_scale, v_scale);
    return line;
  }
};

/// bf16 [samples, heads, tokens, width].
struct Heads {
  at::Tensor q, k, v, dout;
};
struct Results {
  at::Tensor out, lse, dq, dk, dv;
};

inline at::Tensor to_bf16(const at::Tensor& x) { return x.to(at::kBFloat16); }
inline at::Tensor normal(const Case& c, uint64_t seed) {
  return at::randn({c.samples, c.heads, c.tokens, c.width},
                   at::make_generator<at::CPUGeneratorImpl>(seed), at::TensorOptions(at::kDouble));
}

inline Heads random_heads(const Case& c) {
  const auto seed = static_cast<uint64_t>(c.tokens + c.width);
  at::Tensor dout = normal(c, seed + 3) * c.dout_scale;
  if (c.zero_rows) dout.mul_((at::arange(c.tokens) % 3 == 0).view({1, 1, -1, 1}).to(at::kDouble));
  // k_scale leaves the logits as they are: it shows that magnitudes far from 1 do not matter.
  return {to_bf16(normal(c, seed) * c.spread / c.k_scale),
          to_bf16((normal(c, seed + 1) * c.spread + c.k_mean) * c.k_scale),
          to_bf16(normal(c, seed + 2) * c.v_scale), to_bf16(dout)};
}

inline at::Tensor rounded(const at::Tensor& x, bool round) {
  return round ? to_bf16(x).to(at::kDouble) : x;
}

/// The formula in fp64; `round` rounds to bf16 what a kernel on tensor cores keeps in bf16: P, dS, results.
inline Results formula(const Heads& x, bool round) {
  const at::Tensor q = x.q.to(at::kDouble), k = x.k.to(at::kDouble), v = x.v.to(at::kDouble),
                   dout = x.dout.to(at::kDouble);
  const double scale = 1 / std::sqrt(static_cast<double>(q.size(-1)));
  const at::Tensor logits = at::matmul(q, k.transpose(2, 3)) * scale;
  Results r;
  r.lse = at::logsumexp(logits, -1, true);
  const at::Tensor p = at::exp(logits - r.lse), p16 = rounded(p, round);
  r.out = rounded(at::matmul(p16, v), round);
  const at::Tensor d = (dout * r.out).sum(-1, true);
  const at::Tensor ds = rounded(p * (at::matmul(dout, v.transpose(2, 3)) - d), round);
  r.dv = rounded(at::matmul(p16.transpose(2, 3), dout), round);
  r.dq = rounded(at::matmul(ds, k) * scale, round);
  r.dk = rounded(at::matmul(ds.transpose(2, 3), q) * scale, round);
  r.lse = r.lse.squeeze(-1);
  return r;
}

template <class T>
HeadRows<T> head_rows(const at::Tensor& packed, int64_t column) {
  return {reinterpret_cast<T*>(packed.data_ptr()) + column, packed.stride(0), packed.stride(1)};
}

inline at::Tensor unwritten(at::IntArrayRef sizes, at::ScalarType type, at::Device device) {
  return at::full(sizes, std::numeric_limits<double>::quiet_NaN(),
                  at::TensorOptions(device).dtype(type));
}

/// Runs the kernels on q, k and v side by side, [samples, tokens, 3 heads width]; results begin as NaN.
inline Results run(const Case& c, const Heads& x, at::Device device) {
  const auto kernel = narrow_attention({c.samples, c.tokens, c.heads, c.heads, c.width, false}, 0);
  if (!kernel) throw std::runtime_error("the kernel must take " + c.text());
  const int64_t all = c.heads * c.width;
  const auto token_major = [&](const at::Tensor& heads) {
    return heads.transpose(1, 2).flatten(2).contiguous().to(device);
  };
  const at::Tensor qkv = at::cat({token_major(x.q), token_major(x.k), token_major(x.v)}, 2);
  const at::Tensor dout = token_major(x.dout);
  const at::Tensor dqkv = unwritten(qkv.sizes(), at::kBFloat16, device);
  const at::Tensor out = unwritten(dout.sizes(), at::kBFloat16, device);
  const at::Tensor lse = unwritten({c.samples, c.heads, c.tokens}, at::kFloat, device);
  const at::Tensor workspace =
      at::full({kernel->workspace_bytes()}, 0xFF, at::TensorOptions(device).dtype(at::kByte));
  const auto q = head_rows<const uint16_t>(qkv, 0), k = head_rows<const uint16_t>(qkv, all),
             v = head_rows<const uint16_t>(qkv, 2 * all);
  kernel->forward({q, k, v, nullptr, head_rows<uint16_t>(out, 0), lse.data_ptr<float>()},
                  workspace.data_ptr(), nullptr);
  kernel->backward({q, k, v, head_rows<const uint16_t>(out, 0), head_rows<const uint16_t>(dout, 0),
                    nullptr, lse.const_data_ptr<float>(), head_rows<uint16_t>(dqkv, 0),
                    head_rows<uint16_t>(dqkv, all), head_rows<uint16_t>(dqkv, 2 * all)},
                   workspace.data_ptr(), nullptr);
  const auto head_major = [&](const at::Tensor& packed, int64_t column) {
    return packed.narrow(2, column, all).unflatten(2, {c.heads, c.width}).transpose(1, 2).cpu();
  };
  return {head_major(out, 0), lse.cpu(), head_major(dqkv, 0), head_major(dqkv, all),
          head_major(dqkv, 2 * all)};
}

inline double rms(const at::Tensor& x) { return std::sqrt((x * x).mean().item<double>()); }
inline double error(const at::Tensor& result, const at::Tensor& exact) {
  return rms(result.to(at::kDouble) - exact) / rms(exact);
}

/// Allowed over the error of the formula with the roundings of bf16: exponentials good to 1e-3 (rms) where they are a
/// polynomial, scores rounded to f16, sums in fp32. An H200 measured 0.8 to 1.25 of cuDNN's errors with the same forms.
constexpr double kSlack = 1.3;

inline void expect_right(const Case& c, at::Device device) {
  const Heads x = random_heads(c);
  const Results got = run(c, x, device), exact = formula(x, false), bf16 = formula(x, true);
  std::printf("%s, largest lse %.0f:", c.text().c_str(), exact.lse.abs().max().item<double>());
  const auto check = [&](const char* name, at::Tensor Results::*part) {
    const double worst = error(got.*part, exact.*part);
    const double limit = kSlack * error(bf16.*part, exact.*part) + 1e-4;
    std::printf(" %s %.2e (%.2e)", name, worst, limit);
    EXPECT_LE(worst, limit) << name << " of " << c.text();
  };
  check("out", &Results::out);
  check("dq", &Results::dq);
  check("dk", &Results::dk);
  check("dv", &Results::dv);
  const double lse = (got.lse.to(at::kDouble) - exact.lse).abs().max().item<double>();
  // Fast form: an exponential by polynomial errs by 3.0e-3 at most, where one key has nearly all of its row, and scores
  // come from f16 operands. Bounded: the latter, up to 2 B = 120. Worst seen: 3.7e-3. Online (largest logits): exact
  // products, summed in fp32.
  const double lse_limit = 5e-3 + 1e-6 * exact.lse.abs().max().item<double>();
  std::printf(" lse %.1e (%.1e)\n", lse, lse_limit);
  EXPECT_LE(lse, lse_limit) << c.text();
}

/// With one token out is v, dv is dout and the other gradients are 0.
inline void expect_one_token_right(at::Device device) {
  const Case c{.tokens = 1, .width = 32, .heads = 2};
  const Heads x = random_heads(c);
  const Results got = run(c, x, device);
  const auto off = [](const at::Tensor& a, const at::Tensor& b) {
    return (a.to(at::kDouble) - b.to(at::kDouble)).abs().max().item<double>();
  };
  EXPECT_EQ(off(got.out, x.v), 0);
  // P is 1 to 3.1e-3 by the polynomial, then one rounding: values up to 4.
  EXPECT_LE(off(got.dv, x.dout), 3e-2);
  EXPECT_LE(off(got.dq, got.dq * 0), 1e-5);
  EXPECT_LE(off(got.dk, got.dk * 0), 1e-5);
}

inline void expect_each_head_right(const Results& got, const Heads& x) {
  const Results exact = formula(x, false), bf16 = formula(x, true);
  for (int64_t head = 0; head < x.q.size(1); ++head)
    for (const auto part : {&Results::out, &Results::dq, &Results::dk, &Results::dv})
      EXPECT_LE(error((got.*part).select(1, head), (exact.*part).select(1, head)),
                kSlack * error((bf16.*part).select(1, head), (exact.*part).select(1, head)) + 1e-4)
          << head;
}

/// Heads of one call in different forms.
inline void expect_each_form_right(at::Device device) {
  const Case c{.tokens = 100, .width = 16, .heads = 3};
  const Heads x = random_heads(c);
  x.q.select(1, 1).mul_(6);    // bounded
  x.q.select(1, 2).mul_(100);  // online
  expect_each_head_right(run(c, x, device), x);
}

/// All keys point away from all queries, one of them twice as long: B, which knows only norms, lies so far above every
/// score that the fast forward's probabilities are 0 (2 B is 47 here).
inline void expect_distrusted_head_right(at::Device device) {
  const Case c{.tokens = 300, .width = 16, .spread = 0.5, .heads = 2};
  const Heads x = random_heads(c);
  const at::Tensor q = x.q.select(1, 1), k = x.k.select(1, 1);
  q.mul_(0.2).add_(1.0);
  k.add_(-2.0).select(1, 0).fill_(-4.0);
  const Results got = run(c, x, device), exact = formula(x, false);
  expect_each_head_right(got, x);
  EXPECT_LE((got.lse.to(at::kDouble) - exact.lse).abs().max().item<double>(), 2e-3);
}

/// One key has nearly all of each row, so a sum of probabilities rounded to bf16 would be off by up to 2^-8.
inline void expect_large_lse_exact(at::Device device) {
  for (const double spread : {9.0, 12.0}) {
    const Case c{.tokens = 257, .width = 16, .spread = spread};
    const Heads x = random_heads(c);
    const Results got = run(c, x, device), exact = formula(x, false);
    const double off = (got.lse.to(at::kDouble) - exact.lse).abs().max().item<double>();
    const double largest = exact.lse.abs().max().item<double>();
    // fp32: sums of products up to 4 times the logit, which tensor cores cut off rather than round, then a multiple.
    const double limit = largest * 0x1p-20;
    std::printf("lse up to %.0f: off by %.1e (allowed %.1e)\n", largest, off, limit);
    EXPECT_LE(off, limit);
  }
}

inline std::vector<Case> small_cases() {
  std::vector<Case> cases;
  for (const int64_t width : {16, 32}) {
    for (const int64_t tokens : {17, 64, 200}) cases.push_back({tokens, width});
    cases.push_back({.tokens = 200, .width = width, .samples = 2, .heads = 3});
    cases.push_back({.tokens = 50, .width = width, .spread = 1, .samples = 2, .heads = 3});
    cases.push_back({.tokens = 777, .width = width, .k_mean = 1, .dout_scale = 1e-4});
    cases.push_back(
        {.tokens = 777, .width = width, .spread = 1.3});  // some rows near the bound's limit
    cases.push_back({.tokens = 777, .width = width, .spread = 1.9, .dout_scale = 100});
    cases.push_back({.tokens = 200, .width = width, .spread = 4});  // logits to 100
    cases.push_back({.tokens = 200, .width = width, .spread = 9});  // logits to 500
    cases.push_back(
        {.tokens = 200, .width = width, .spread = 3, .k_mean = -20});  // far from 0 as a whole
    cases.push_back({.tokens = 200, .width = width, .k_scale = 1e10, .v_scale = 1e-9});
    cases.push_back({.tokens = 200, .width = width, .spread = 5, .k_scale = 1e-8, .v_scale = 1e7});
    for (const double dout_scale : {1e-7, 1e-30, 1e15})
      cases.push_back({.tokens = 100, .width = width, .dout_scale = dout_scale, .zero_rows = true});
  }
  return cases;
}

}  // namespace vitrail::kernels::narrow_test
