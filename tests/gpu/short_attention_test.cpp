// The short attention's kernels on a GPU: the cases of the emulation, then the shapes of training beside cuDNN.

#include <algorithm>
#include <cstdio>
#include <optional>
#include <tuple>
#include <vector>

#include <ATen/ops/_scaled_dot_product_cudnn_attention.h>
#include <ATen/ops/_scaled_dot_product_cudnn_attention_backward.h>
#include <gtest/gtest.h>

#include "tests/emulation/short_attention_cases.h"
#include "vitrail/parallel/device.h"

namespace vitrail::kernels::short_test {
namespace {

const at::Device kGpu(at::kCUDA, 0);

void check_all(const std::vector<Case>& cases) {
  for (const Case& c : cases) {
    const Heads x = random_heads(c);
    expect_right(c, run(c, x, kGpu), x);
  }
}

TEST(GpuShortAttention, EveryShapeGivesTheFormulaUpToBf16Rounding) { check_all(shape_cases()); }

TEST(GpuShortAttention, LargeAndShiftedLogitsStayRight) { check_all(hard_cases()); }

TEST(GpuShortAttention, TokensFromTheLengthOnAreNotAttendedTo) { check_all(length_cases()); }

TEST(GpuShortAttention, SharedHeadsSumTheirGradients) { check_all(group_cases()); }

/// The blocks of a ViT: Base/16 at 256 and Huge/14 at 128 images, 3B at 32, and those without a class token.
std::vector<Case> training_cases() {
  const auto packed = [](int64_t samples, int64_t tokens, int64_t heads, int64_t width) {
    return Case{
        .tokens = tokens, .width = width, .samples = samples, .heads = heads, .kv_heads = heads};
  };
  return {packed(128, 257, 16, 80), packed(256, 197, 12, 64), packed(256, 197, 16, 64),
          packed(32, 257, 32, 88),  packed(128, 256, 16, 80), packed(128, 257, 16, 128)};
}

Case one_sample(const Case& c) {
  Case one = c;
  one.samples = 1;
  return one;
}

TEST(GpuShortAttention, TrainingShapesAreRightAndRepeatEveryBit) {
  for (const Case& c : training_cases()) {
    const Heads x = random_heads(c);
    const Results first = run(c, x, kGpu);
    EXPECT_TRUE(same_bits(first, run(c, x, kGpu))) << c.text();
    for (const int64_t sample : {int64_t{0}, c.samples - 1}) {
      const auto of = [&](const at::Tensor& all) { return all.narrow(0, sample, 1); };
      expect_right(one_sample(c),
                   {of(first.out), of(first.lse), of(first.dq), of(first.dk), of(first.dv)},
                   {of(x.q), of(x.k), of(x.v), of(x.dout)});
    }
  }
}

/// Milliseconds of one call: the best of several timed groups of calls, hot.
template <class Call>
double milliseconds(const Call& call) {
  constexpr int kGroups = 10, kCalls = 20;
  for (int i = 0; i < kCalls; ++i) call();
  double best = 1e30;
  for (int group = 0; group < kGroups; ++group) {
    parallel::Event start(kGpu, true), end(kGpu, true);
    start.record(parallel::current_stream(kGpu));
    for (int i = 0; i < kCalls; ++i) call();
    end.record(parallel::current_stream(kGpu));
    end.synchronize();
    best = std::min(best, end.ms_since(start) / kCalls);
  }
  return best;
}

/// ATen's call of cuDNN's attention on strided views of the packed tensor.
struct Cudnn {
  Heads x;
  at::Tensor out, lse, seed, offset, cum_q, cum_k;
  int64_t max_q = 0, max_k = 0;

  void forward() {
    auto [out_, lse_, cum_q_, cum_k_, max_q_, max_k_, seed_, offset_, mask] =
        at::_scaled_dot_product_cudnn_attention(x.q, x.k, x.v, std::nullopt, true);
    out = out_, lse = lse_, cum_q = cum_q_, cum_k = cum_k_, seed = seed_, offset = offset_;
    max_q = max_q_.expect_int(), max_k = max_k_.expect_int();
  }
  void backward() const {
    at::_scaled_dot_product_cudnn_attention_backward(x.dout, x.q, x.k, x.v, out, lse, seed, offset,
                                                     {}, cum_q, cum_k, max_q, max_k, 0.0, false);
  }
};

// cuDNN's backward writes three tensors here, ours the packed gradient.
TEST(GpuShortAttention, PrintsItsTimesBesideCudnn) {
  for (const Case& c : training_cases()) {
    Prepared own(c, random_heads(c), kGpu);
    Cudnn cudnn{.x = own.heads()};
    cudnn.forward();
    const double forward = milliseconds([&] { own.forward(); });
    const double cudnn_forward = milliseconds([&] { cudnn.forward(); });
    const double backward = milliseconds([&] { own.backward(); });
    const double cudnn_backward = milliseconds([&] { cudnn.backward(); });
    const double flops = 4.0 * static_cast<double>(c.samples * c.heads * c.width) *
                         static_cast<double>(c.tokens * c.tokens);
    std::printf(
        "%s: forward %.3f ms (%.0f TFLOP/s; cuDNN %.3f), backward %.3f ms (%.0f TFLOP/s; cuDNN "
        "%.3f), both %.2fx cuDNN\n",
        c.text().c_str(), forward, flops / forward * 1e-9, cudnn_forward, backward,
        2.5 * flops / backward * 1e-9, cudnn_backward,
        (cudnn_forward + cudnn_backward) / (forward + backward));
    EXPECT_GT(forward, 0);
  }
}

}  // namespace
}  // namespace vitrail::kernels::short_test
