// The kernels of fused blocks on a GPU against the plain loops: the cases of tests/emulation, and what bandwidth they
// reach at the shapes of the targets (printed, not judged).

#include <chrono>
#include <functional>

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include "tests/gpu/gpu_memory.h"
#include "tests/kernels/activation_cases.h"
#include "tests/kernels/embed_cases.h"
#include "tests/kernels/heads_cases.h"
#include "tests/kernels/losses_cases.h"
#include "tests/kernels/norm_cases.h"
#include "tests/kernels/patch_cases.h"
#include "vitrail/ops/embed.h"

namespace vitrail::testing {
namespace {

NormCandidate gpu_norm() {
  return {[](const ResidualNorm& task) { kernels::residual_norm(task, stream()); },
          [](const ResidualNormBackward& task) { kernels::residual_norm_backward(task, stream()); },
          kernels::residual_norm_partials};
}
ActivationCandidate gpu_activation() {
  return {[](const Activation& task) { kernels::activation(task, stream()); },
          [](const ActivationBackward& task) { kernels::activation_backward(task, stream()); },
          kernels::activation_partials};
}
HeadsCandidate gpu_heads() {
  return {[](const Heads& task) { kernels::prepare_heads(task, stream()); },
          [](const HeadsBackward& task) { kernels::prepare_heads_backward(task, stream()); },
          kernels::heads_partials};
}

LossCandidate gpu_losses() {
  return {[](const CrossEntropy& task) { kernels::cross_entropy(task, stream()); },
          [](const TokenError& task) { kernels::token_error(task, stream()); }};
}
PatchCandidate gpu_patch() {
  return {[](const TokenShape& shape, const uint16_t* all, const int64_t* keep, uint16_t* kept) {
            kernels::keep_tokens(shape, all, keep, kept, stream());
          },
          [](const RestoreTokens& task) { kernels::restore_tokens(task, stream()); },
          [](const RestoreTokensSums& task) { kernels::restore_tokens_sums(task, stream()); },
          kernels::restore_tokens_partials};
}

template <class Cases, class Check>
void check_all(const Cases& cases, const char* what, const Check& check) {
  Worst worst;
  for (const auto& c : cases) {
    GpuMemory memory;
    check(c, memory, worst);
    if (::testing::Test::HasFatalFailure()) return;
  }
  worst.print(what);
}

TEST(GpuFusedKernels, ResidualNormEqualsThePlainLoop) {
  const auto check = [](const NormCase& c, Memory& at, Worst& worst) {
    check_norm(gpu_norm(), c, at, worst);
  };
  check_all(norm_cases(), "residual_norm", check);
  check_all(long_norm_cases(), "residual_norm, many rows", check);
}

TEST(GpuFusedKernels, ActivationEqualsThePlainLoop) {
  check_all(activation_cases(), "activation",
            [](const ActivationCase& c, Memory& at, Worst& worst) {
              check_activation(gpu_activation(), c, at, worst);
            });
}

TEST(GpuFusedKernels, ColumnSumsEqualThePlainLoop) {
  const auto sum = [](const uint16_t* x, int64_t rows, int64_t width, int64_t stride,
                      float* partials, float* sums) {
    kernels::column_sums(x, rows, width, stride, partials, sums, stream());
  };
  check_all(column_cases(), "column_sums", [&](const ColumnCase& c, Memory& at, Worst& worst) {
    check_columns(sum, kernels::column_sums_partials, c, at, worst);
  });
}

TEST(GpuFusedKernels, HeadsEqualThePlainLoop) {
  check_all(heads_cases(), "prepare_heads", [](const HeadsCase& c, Memory& at, Worst& worst) {
    check_heads(gpu_heads(), c, at, worst);
  });
}

TEST(GpuFusedKernels, LossesEqualThePlainLoop) {
  check_all(cross_entropy_cases(), "cross_entropy",
            [](const CrossEntropyCase& c, Memory& at, Worst& worst) {
              check_loss(gpu_losses(), c, at, worst);
            });
  check_all(token_error_cases(), "token_error",
            [](const TokenErrorCase& c, Memory& at, Worst& worst) {
              check_loss(gpu_losses(), c, at, kernels::token_error_partials(), worst);
            });
}

TEST(GpuFusedKernels, TokensAreKeptAndRestoredAsByThePlainLoop) {
  check_all(patch_cases(), "patch", [](const PatchCase& c, Memory& at, Worst& worst) {
    check_patch(gpu_patch(), c, at, worst);
  });
}

TEST(GpuFusedKernels, PatchesAndJoinedTokensEqualThePlainLoop) {
  GpuMemory memory;
  check_embed({[](const Patchify& task) { kernels::patchify(task, stream()); },
               [](const JoinTokens& task) { kernels::join_tokens(task, stream()); },
               [](const SplitTokens& task) { kernels::split_tokens(task, stream()); }},
              memory);
}

TEST(GpuFusedKernels, JoiningHasTheGradientsOfPlainAten) {
  const auto options = at::TensorOptions().device(at::kCUDA).dtype(at::kBFloat16);
  const auto leaf = [&](at::IntArrayRef shape) {
    return at::randn(shape, options).requires_grad_(true);
  };
  const at::Tensor x = leaf({3, 49, 64}), prefix = leaf({1, 2, 64}), positions = leaf({1, 49, 64});
  const at::Tensor weight = at::randn({3, 51, 64}, options);
  (ops::join_tokens(prefix, x, positions) * weight).sum().backward();
  std::vector<at::Tensor> found;
  for (const at::Tensor& input : {x, prefix, positions}) {
    found.push_back(input.grad().clone());
    input.mutable_grad().reset();
  }
  (at::cat({prefix.expand({3, -1, -1}), x + positions}, 1) * weight).sum().backward();
  size_t i = 0;
  for (const at::Tensor& input : {x, prefix, positions})
    EXPECT_TRUE(at::equal(found[i++], input.grad()));
}

TEST(GpuFusedKernels, GiveTheSameBitsAtEveryLaunch) {
  NormCase c{.shape = {4, 197, 768}};
  c.gamma = true;
  const NormInputs in(c);
  GpuMemory memory;
  const NormBackward once = run_backward(gpu_norm(), c, in, memory);
  for (int i = 0; i < 3; ++i) {
    const NormBackward again = run_backward(gpu_norm(), c, in, memory);
    EXPECT_EQ(again.dx, once.dx);
    EXPECT_EQ(again.dweight, once.dweight);
    EXPECT_EQ(again.branch_sums, once.branch_sums);
  }
}

// ---- bandwidth ----

struct Shape {
  const char* name;
  int64_t samples, tokens, width, heads;
  int64_t rows() const { return samples * tokens; }
};
constexpr Shape kShapes[] = {{"Base/16 B256", 256, 197, 768, 12},
                             {"Large/16 B256", 256, 197, 1024, 16},
                             {"Huge/14 B128", 128, 257, 1280, 16},
                             {"3B/14 B32", 32, 257, 2816, 32}};

/// Random bf16 on the GPU; zeros would run faster.
class Tensors {
 public:
  uint16_t* bits(int64_t count) {
    kept_.push_back(at::randn({count}, at::TensorOptions(at::kBFloat16).device(kGpu)));
    return static_cast<uint16_t*>(kept_.back().data_ptr());
  }
  float* floats(int64_t count) {
    kept_.push_back(at::zeros({count}, at::TensorOptions(at::kFloat).device(kGpu)) + 1.0);
    return kept_.back().data_ptr<float>();
  }

 private:
  std::vector<at::Tensor> kept_;
};

/// Milliseconds of one run, of many in a row.
double milliseconds(const std::function<void()>& work) {
  using Clock = std::chrono::steady_clock;
  const auto run = [&](int times) {
    parallel::synchronize(kGpu);
    const auto begin = Clock::now();
    for (int i = 0; i < times; ++i) work();
    parallel::synchronize(kGpu);
    return std::chrono::duration<double, std::milli>(Clock::now() - begin).count();
  };
  run(10);
  const int times = 200;
  return run(times) / times;
}

/// `values`: bf16 read and written by one run.
void report(const char* kernel, const Shape& shape, int64_t values,
            const std::function<void()>& work) {
  const double ms = milliseconds(work);
  const double terabytes = 2.0 * static_cast<double>(values) / 1e12;
  std::printf("%-40s %-14s %8.4f ms  %5.2f TB/s\n", kernel, shape.name, ms, terabytes / ms * 1e3);
  EXPECT_TRUE(std::isfinite(ms));
}

TEST(GpuFusedKernels, PrintTheBandwidthOfResidualNorm) {
  for (const Shape& s : kShapes) {
    Tensors t;
    const int64_t count = s.rows() * s.width;
    ResidualNorm task{.shape = {s.samples, s.tokens, s.width}};
    task.norm = {t.bits(s.width), t.bits(s.width)};
    task.x = t.bits(count), task.y = t.bits(count);
    task.mean = t.floats(s.rows()), task.rstd = t.floats(s.rows());
    report("norm", s, 2 * count, [&] { kernels::residual_norm(task, stream()); });
    task.branch.values = t.bits(count);
    task.sum = t.bits(count);
    report("add, norm", s, 4 * count, [&] { kernels::residual_norm(task, stream()); });

    ResidualNormBackward back{.shape = task.shape,
                              .dy = task.y,
                              .sum = task.sum,
                              .mean = task.mean,
                              .rstd = task.rstd,
                              .norm = task.norm,
                              .dsum = task.x,
                              .dx = const_cast<uint16_t*>(task.x)};
    back.dweight = t.floats(s.width), back.dbias = t.floats(s.width);
    back.branch_sums = t.floats(s.width);
    back.partials = t.floats(kernels::residual_norm_partials(task.shape));
    report("backward with three sums", s, 4 * count,
           [&] { kernels::residual_norm_backward(back, stream()); });
    back.branch = task.branch;
    back.branch.gamma = t.bits(s.width);
    back.dbranch = t.bits(count), back.dgamma = t.floats(s.width);
    report("backward with LayerScale, four sums", s, 6 * count,
           [&] { kernels::residual_norm_backward(back, stream()); });
  }
}

TEST(GpuFusedKernels, PrintTheBandwidthOfActivations) {
  for (const Shape& s : kShapes)
    for (const auto& [kind, name] : {std::pair{ActivationKind::gelu_erf, "exact GELU"},
                                     std::pair{ActivationKind::gelu_tanh, "tanh GELU"},
                                     std::pair{ActivationKind::silu_gate, "SiLU gate"}}) {
      Tensors t;
      const int64_t width = 4 * s.width, count = s.rows() * width;
      const int64_t gates = kind == ActivationKind::silu_gate ? 1 : 0;
      Activation task{kind,         s.rows(), width, t.bits(count), gates ? t.bits(count) : nullptr,
                      t.bits(count)};
      report(name, s, (2 + gates) * count, [&] { kernels::activation(task, stream()); });
      ActivationBackward back{.forward = task, .dout = task.out, .dpre = t.bits(count)};
      back.forward.out = nullptr;
      back.dgate = gates ? t.bits(count) : nullptr;
      back.pre_sums = t.floats(width), back.gate_sums = gates ? t.floats(width) : nullptr;
      back.partials = t.floats(kernels::activation_partials(s.rows(), width));
      report((std::string(name) + " backward with sums").c_str(), s, (3 + 2 * gates) * count,
             [&] { kernels::activation_backward(back, stream()); });
    }
}

TEST(GpuFusedKernels, PrintTheBandwidthOfColumnSumsAndHeads) {
  for (const Shape& s : kShapes) {
    Tensors t;
    const int64_t count = s.rows() * s.width, head = s.width / s.heads;
    uint16_t* const qkv = t.bits(3 * count);
    float* const partials = t.floats(kernels::column_sums_partials(s.rows(), s.width));
    float* const sums = t.floats(s.width);
    report("column sums of q", s, count, [&] {
      kernels::column_sums(qkv, s.rows(), s.width, 3 * s.width, partials, sums, stream());
    });
    Heads task{.shape = {s.samples, s.tokens, s.heads, s.heads, head}, .qkv = qkv};
    task.cos = t.floats(s.tokens * head / 2), task.sin = t.floats(s.tokens * head / 2);
    task.qk = t.bits(2 * count), task.qk_token_stride = 2 * s.width;
    report("turned", s, 4 * count, [&] { kernels::prepare_heads(task, stream()); });
    task.has_norm = true;
    task.q_norm = task.k_norm = {t.bits(head), t.bits(head)};
    report("normed and turned", s, 4 * count, [&] { kernels::prepare_heads(task, stream()); });
    HeadsBackward back{.forward = task, .dqkv = t.bits(3 * count)};
    back.dq_weight = t.floats(head), back.dq_bias = t.floats(head);
    back.dk_weight = t.floats(head), back.dk_bias = t.floats(head);
    back.partials = t.floats(kernels::heads_partials(task.shape));
    report("normed and turned, backward", s, 6 * count,
           [&] { kernels::prepare_heads_backward(back, stream()); });
  }
}

TEST(GpuFusedKernels, PrintTheTimeOfLossesAndTokens) {
  const Shape mae{"MAE Large B256", 256, 196, 768, 0}, decoder{"MAE Large B256", 256, 197, 512, 0};
  Tensors t;
  const int64_t rows = mae.rows(), count = rows * mae.width;
  const TokenError error{.samples = mae.samples,
                         .tokens = mae.tokens,
                         .width = mae.width,
                         .prediction = t.bits(count),
                         .target = t.floats(count),
                         .weights = t.floats(rows),
                         .normalises = true,
                         .loss = t.floats(1),
                         .dprediction = t.bits(count),
                         .partials = t.floats(kernels::token_error_partials())};
  report("masked error of normalised patches", mae, 4 * count,
         [&] { kernels::token_error(error, stream()); });
  const at::Tensor restore =
      at::randn({mae.samples, mae.tokens}, at::TensorOptions(at::kFloat).device(kGpu))
          .argsort(int64_t{1});
  const TokenShape shape{decoder.samples, 196, 49, 1, decoder.width};
  const RestoreTokens task{.shape = shape,
                           .kept = t.bits(mae.samples * 50 * decoder.width),
                           .restore = restore.const_data_ptr<int64_t>(),
                           .mask_token = t.bits(decoder.width),
                           .positions = t.bits(196 * decoder.width),
                           .all = t.bits(decoder.rows() * decoder.width)};
  report("tokens restored", decoder, (decoder.rows() + mae.samples * 50) * decoder.width,
         [&] { kernels::restore_tokens(task, stream()); });
  const at::Tensor label = at::zeros({1024}, at::TensorOptions(at::kLong).device(kGpu));
  const CrossEntropy entropy{.rows = 1024,
                             .classes = 1000,
                             .stride = 1000,
                             .logits = t.bits(1024 * 1000),
                             .label = label.const_data_ptr<int64_t>(),
                             .smoothing = 0.1f,
                             .loss = t.floats(1),
                             .dlogits = t.bits(1024 * 1000),
                             .partials = t.floats(1025)};
  report("cross-entropy of 1024 x 1000", decoder, 2 * 1024 * 1000,
         [&] { kernels::cross_entropy(entropy, stream()); });
}

}  // namespace
}  // namespace vitrail::testing
