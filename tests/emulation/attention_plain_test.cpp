// The plain loops of attention against ATen in fp64.

#include <cmath>
#include <cstdio>
#include <limits>
#include <vector>

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/full.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include "vitrail/kernels/attention.h"

namespace vitrail::kernels {
namespace {

template <class T>
HeadRows<T> rows(const at::Tensor& x) {
  return {reinterpret_cast<T*>(x.data_ptr()), x.stride(0), x.stride(1)};
}

at::Tensor random(at::IntArrayRef shape, uint64_t seed) {
  return at::randn(shape, at::make_generator<at::CPUGeneratorImpl>(seed),
                   at::TensorOptions(at::kDouble))
      .to(at::kBFloat16);
}

double largest(const at::Tensor& x) { return x.abs().max().item<double>(); }

TEST(PlainAttention, IsAutogradsAttentionWithLengthsAndSharedHeads) {
  const AttentionShape shape{2, 9, 4, 2, 8, true};
  const std::vector<int32_t> lengths = {9, 5};
  const at::Tensor q = random({2, 9, 4, 8}, 1), k = random({2, 9, 2, 8}, 2),
                   v = random({2, 9, 2, 8}, 3);
  const at::Tensor counts =
      (at::arange(9).view({1, 9}) < at::tensor({9, 5}).view({2, 1})).to(at::kDouble);
  const at::Tensor dout = random({2, 9, 4, 8}, 4);

  const auto leaf = [](const at::Tensor& x) { return x.to(at::kDouble).set_requires_grad(true); };
  const at::Tensor q64 = leaf(q), k64 = leaf(k), v64 = leaf(v);
  const auto heads = [](const at::Tensor& x) {
    return x.repeat_interleave(4 / x.size(2), 2).transpose(1, 2);
  };
  const at::Tensor hidden = (1 - counts).view({2, 1, 1, 9}) * -1e30;
  const at::Tensor logits =
      at::matmul(heads(q64), heads(k64).transpose(2, 3)) / std::sqrt(8.0) + hidden;
  const at::Tensor out64 = at::matmul(at::softmax(logits, -1), heads(v64)).transpose(1, 2);
  (out64 * dout.to(at::kDouble)).sum().backward();

  const at::Tensor out = at::zeros({2, 9, 4, 8}, at::kBFloat16),
                   lse = at::zeros({2, 4, 9}, at::kFloat);
  attention_plain_forward(
      shape, {rows<const uint16_t>(q), rows<const uint16_t>(k), rows<const uint16_t>(v),
              lengths.data(), rows<uint16_t>(out), lse.data_ptr<float>()});
  const auto nan_like = [](const at::Tensor& x) {
    return at::full(x.sizes(), std::numeric_limits<double>::quiet_NaN(), at::kBFloat16);
  };
  const at::Tensor dq = nan_like(q), dk = nan_like(k), dv = nan_like(v);
  attention_plain_backward(
      shape,
      {rows<const uint16_t>(q), rows<const uint16_t>(k), rows<const uint16_t>(v),
       rows<const uint16_t>(out), rows<const uint16_t>(dout), lengths.data(),
       lse.const_data_ptr<float>(), rows<uint16_t>(dq), rows<uint16_t>(dk), rows<uint16_t>(dv)});

  EXPECT_LE(largest(lse.to(at::kDouble) - at::logsumexp(logits, -1)),
            1e-6);  // one rounding to fp32
  const auto expect_close = [](const char* name, const at::Tensor& got, const at::Tensor& exact) {
    const double off = largest(got.to(at::kDouble) - exact);
    // bf16: half a unit of values up to 4; D from the rounded out adds the like.
    std::printf("%s: worst %.2e (allowed 1.6e-2), largest value %.2f\n", name, off, largest(exact));
    EXPECT_LE(off, 1.6e-2) << name;
    EXPECT_GT(largest(exact), 0.3) << name;
  };
  expect_close("out", out, out64);
  expect_close("dq", dq, q64.grad());
  expect_close("dk", dk, k64.grad());
  expect_close("dv", dv, v64.grad());
  EXPECT_EQ(largest(dk[1].narrow(0, 5, 4)), 0);
  EXPECT_EQ(largest(dv[1].narrow(0, 5, 4)), 0);
}

}  // namespace
}  // namespace vitrail::kernels
