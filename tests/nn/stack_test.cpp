// The explicit trunk against plain autograd: the same operations in the same order, so equal means every bit.

#include "vitrail/nn/stack.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "vitrail/nn/engine.h"
#include "vitrail/ops/random.h"

namespace vitrail::nn {
namespace {

constexpr int kDepth = 4;
constexpr int64_t kBatch = 3, kTokens = 5, kWidth = 16;

at::Tensor numbers(uint16_t layer, at::IntArrayRef shape) {
  int64_t count = 1;
  for (const int64_t side : shape) count *= side;
  const core::DrawKey key{7, core::Stream::test, 0, layer};
  return (ops::uniform(key, at::zeros({1}, at::kLong), count).view(shape) - 0.5) * 0.4;
}

/// Rotary positions of a prefix token and 2 x 2 patches; the middle sample ends in two tokens of padding.
Context training_context(const at::Tensor& condition_BD) {
  Context context = Draws{11, 3, at::arange(100, 100 + kBatch, at::kLong), true};
  context.rotary = ops::axial_rotary({2, 2}, 1, kWidth / 4, 100.0);
  const at::Tensor real_B = at::tensor({kTokens, int64_t{3}, kTokens}, at::kLong);
  context.key_mask_BT = at::arange(kTokens).unsqueeze(0).lt(real_B.unsqueeze(1));
  context.condition_BD = condition_BD;
  return context;
}

at::Tensor condition_values() { return numbers(50, {kBatch, kWidth}); }

/// Every feature of a block is on, dropouts included.
std::unique_ptr<Stack> make_stack() {
  at::set_num_threads(1);  // tensors this small gain nothing, and busy machines lose much
  std::vector<std::shared_ptr<Block>> blocks;
  for (int i = 0; i < kDepth; ++i) {
    BlockOptions options;
    options.width = kWidth, options.num_heads = 4, options.mlp_hidden = 24;
    options.qk_norm = options.layer_scale = options.conditioned = true;
    options.num_kv_heads = 2;
    options.drop_path = 0.3, options.proj_drop = 0.2, options.attn_drop = i % 2 ? 0.1 : 0.0;
    options.index = i;
    blocks.push_back(std::make_shared<Block>(options));
  }
  auto stack = std::make_unique<Stack>(std::move(blocks));
  const at::NoGradGuard no_grad;
  uint16_t layer = 100;
  for (NamedTensor& parameter : stack->named_parameters())
    parameter.tensor.copy_(numbers(layer++, parameter.tensor.sizes()));
  return stack;
}

struct Gradients {
  at::Tensor loss, input, condition;
  std::vector<at::Tensor> parameters;
};

/// Weighs the output and the taps differently, each used twice so that orders of addition matter.
at::Tensor scalar_of(const at::Tensor& y, const std::vector<at::Tensor>& taps) {
  at::Tensor loss = (y * y).sum();
  for (size_t t = 0; t < taps.size(); ++t)
    loss = loss + (taps[t] * taps[t] * (0.3 + 0.1 * static_cast<double>(t))).sum();
  return loss;
}

/// forward(x, condition) -> loss
template <class Forward>
Gradients gradients_of(Stack& stack, int micro_batches, Forward&& forward) {
  for (NamedTensor& parameter : stack.named_parameters())
    parameter.tensor.mutable_grad() = at::Tensor();
  Gradients result;
  const at::Tensor condition = condition_values().set_requires_grad(true);
  for (int micro = 0; micro < micro_batches; ++micro) {
    const at::Tensor x =
        numbers(static_cast<uint16_t>(micro), {kBatch, kTokens, kWidth}).set_requires_grad(true);
    result.loss = forward(x * 1.0, condition * 1.0);
    result.loss.backward();
    result.input = x.grad();
  }
  result.condition = condition.grad();
  for (NamedTensor& parameter : stack.named_parameters())
    result.parameters.push_back(parameter.tensor.grad().clone());
  return result;
}

at::Tensor plain_forward(Stack& stack, at::Tensor x, const at::Tensor& condition,
                         const std::vector<Tap>& taps) {
  std::vector<at::Tensor> outputs, tapped;
  for (int i = 0; i < stack.depth(); ++i)
    outputs.push_back(x = stack.block(i).forward(x, training_context(condition)));
  for (const Tap& tap : taps) tapped.push_back(outputs[tap.block]);
  return scalar_of(x, tapped);
}

at::Tensor stack_forward(Stack& stack, const at::Tensor& x, const at::Tensor& condition,
                         const std::vector<Tap>& taps) {
  std::vector<at::Tensor> tapped;
  const at::Tensor y = stack.forward(x, training_context(condition), taps, &tapped);
  return scalar_of(y, tapped);
}

struct Case {
  bool recompute;
  std::vector<Tap> taps;
  int micro_batches;
};

void expect_same_bits(const Gradients& plain, const Gradients& mine) {
  EXPECT_TRUE(at::equal(plain.loss, mine.loss));
  EXPECT_TRUE(at::equal(plain.input, mine.input));
  EXPECT_TRUE(at::equal(plain.condition, mine.condition));
  EXPECT_GT(plain.condition.abs().max().item<float>(), 0.0f);
  ASSERT_EQ(plain.parameters.size(), mine.parameters.size());
  for (size_t p = 0; p < plain.parameters.size(); ++p) {
    EXPECT_TRUE(at::equal(plain.parameters[p], mine.parameters[p])) << "parameter " << p;
    EXPECT_GT(plain.parameters[p].abs().max().item<float>(), 0.0f)
        << "parameter " << p << " tests nothing";
  }
}

class StackBits : public testing::TestWithParam<Case> {};

TEST_P(StackBits, GradientsEqualPlainAutogradBitForBit) {
  const Case& c = GetParam();
  const auto stack = make_stack();
  const Gradients plain =
      gradients_of(*stack, c.micro_batches, [&](const at::Tensor& x, const at::Tensor& condition) {
        return plain_forward(*stack, x, condition, c.taps);
      });
  stack->set_engine(autograd_engine({c.recompute ? Recompute::block : Recompute::none}));
  const Gradients mine =
      gradients_of(*stack, c.micro_batches, [&](const at::Tensor& x, const at::Tensor& condition) {
        return stack_forward(*stack, x, condition, c.taps);
      });
  expect_same_bits(plain, mine);
}

INSTANTIATE_TEST_SUITE_P(Cases, StackBits,
                         testing::Values(Case{false, {}, 1}, Case{true, {}, 1}, Case{false, {}, 3},
                                         Case{true, {}, 3}, Case{false, {0, 2}, 1},
                                         Case{true, {0, 2}, 1}, Case{false, {1, 3}, 2},
                                         Case{true, {3}, 2}, Case{false, {2, 0, 1, 3}, 1}));

TEST(Stack, GradientsAccumulateIntoViewsOfOneBuffer) {
  const auto stack = make_stack();
  const Gradients own =
      gradients_of(*stack, 2, [&](const at::Tensor& x, const at::Tensor& condition) {
        return stack_forward(*stack, x, condition, {1});
      });
  at::Tensor flat = at::zeros({stack->parameter_count()}, at::kFloat);
  std::vector<NamedTensor> parameters = stack->named_parameters();
  int64_t offset = 0;
  for (NamedTensor& parameter : parameters) {
    parameter.tensor.mutable_grad() =
        flat.slice(0, offset, offset + parameter.tensor.numel()).view(parameter.tensor.sizes());
    offset += parameter.tensor.numel();
  }
  for (int micro = 0; micro < 2; ++micro)
    stack_forward(*stack, numbers(static_cast<uint16_t>(micro), {kBatch, kTokens, kWidth}),
                  condition_values(), {1})
        .backward();
  offset = 0;
  for (size_t p = 0; p < parameters.size(); ++p) {
    const at::Tensor part =
        flat.slice(0, offset, offset + parameters[p].tensor.numel()).view_as(own.parameters[p]);
    EXPECT_TRUE(at::equal(part, own.parameters[p])) << parameters[p].name;
    EXPECT_EQ(parameters[p].tensor.grad().data_ptr(), part.data_ptr())
        << parameters[p].name << ": .grad was replaced";
    offset += parameters[p].tensor.numel();
  }
}

class Recorder : public StackObserver {
 public:
  void before_forward(int i) override { events.push_back("F" + std::to_string(i)); }
  void after_forward(int i) override { events.push_back("f" + std::to_string(i)); }
  void before_backward(int i) override { events.push_back("B" + std::to_string(i)); }
  void after_backward(int i) override { events.push_back("b" + std::to_string(i)); }
  std::vector<std::string> events;
};

TEST(Stack, ObserversSeeEveryBlockInOrder) {
  const auto stack = make_stack();
  Recorder recorder;
  stack->add_observer(&recorder);
  stack_forward(*stack, numbers(0, {kBatch, kTokens, kWidth}), condition_values(), {}).backward();
  EXPECT_THAT(recorder.events,
              testing::ElementsAre("F0", "f0", "F1", "f1", "F2", "f2", "F3", "f3", "B3", "b3", "B2",
                                   "b2", "B1", "b1", "B0", "b0"));
  stack->remove_observer(&recorder);
  recorder.events.clear();
  stack_forward(*stack, numbers(0, {kBatch, kTokens, kWidth}), condition_values(), {});
  EXPECT_TRUE(recorder.events.empty());
}

/// Sees whether a block's gradients are there when after_backward is called.
class GradientWatch : public StackObserver {
 public:
  explicit GradientWatch(Stack& stack) : stack_(stack) {}
  void before_backward(int i) override {
    before.push_back(stack_.block(i).named_parameters()[0].tensor.grad().defined());
  }
  void after_backward(int i) override {
    after.push_back(stack_.block(i).named_parameters()[0].tensor.grad().defined());
  }
  std::vector<bool> before, after;

 private:
  Stack& stack_;
};

TEST(Stack, ABlocksGradientsAreCompleteWhenAfterBackwardIsCalled) {
  const auto stack = make_stack();
  GradientWatch watch(*stack);
  stack->add_observer(&watch);
  stack_forward(*stack, numbers(0, {kBatch, kTokens, kWidth}), condition_values(), {}).backward();
  EXPECT_THAT(watch.before, testing::Each(false));
  EXPECT_THAT(watch.after, testing::Each(true));
}

TEST(Stack, WithoutGradModeTheValuesAreTheSameAndNothingIsKept) {
  const auto stack = make_stack();
  const at::Tensor x = numbers(0, {kBatch, kTokens, kWidth});
  std::vector<at::Tensor> taps, free_taps;
  const at::Tensor y = stack->forward(x, training_context(condition_values()), {2}, &taps);
  const at::NoGradGuard no_grad;
  const at::Tensor free_y =
      stack->forward(x, training_context(condition_values()), {2}, &free_taps);
  EXPECT_TRUE(at::equal(y, free_y));
  EXPECT_TRUE(at::equal(taps[0], free_taps[0]));
  EXPECT_TRUE(y.requires_grad());
  EXPECT_FALSE(free_y.requires_grad());
}

TEST(Stack, ATapAloneSendsGradientsOnlyToTheBlocksBelowIt) {
  const auto stack = make_stack();
  std::vector<at::Tensor> taps;
  stack->forward(numbers(0, {kBatch, kTokens, kWidth}), training_context(condition_values()), {1},
                 &taps);
  taps[0].square().sum().backward();
  for (int i = 0; i < kDepth; ++i)
    EXPECT_EQ(stack->block(i).named_parameters()[0].tensor.grad().defined(), i <= 1)
        << "block " << i;
}

TEST(Stack, ATapOutsideTheTrunkIsRefused) {
  const auto stack = make_stack();
  EXPECT_THROW(
      stack->forward(numbers(0, {kBatch, kTokens, kWidth}), training_context({}), {kDepth}),
      std::runtime_error);
}

TEST(Stack, TwoForwardsMayBeInFlightAtOnce) {
  const auto stack = make_stack();
  const at::Tensor a = numbers(0, {kBatch, kTokens, kWidth}),
                   b = numbers(1, {kBatch, kTokens, kWidth});
  const Gradients apart =
      gradients_of(*stack, 2, [&](const at::Tensor& x, const at::Tensor& condition) {
        return stack_forward(*stack, x, condition, {});
      });
  for (NamedTensor& parameter : stack->named_parameters())
    parameter.tensor.mutable_grad() = at::Tensor();
  const at::Tensor first = stack_forward(*stack, a, condition_values(), {}),
                   second = stack_forward(*stack, b, condition_values(), {});
  first.backward();
  second.backward();
  const std::vector<NamedTensor> parameters = stack->named_parameters();
  for (size_t p = 0; p < parameters.size(); ++p)
    EXPECT_TRUE(at::equal(parameters[p].tensor.grad(), apart.parameters[p]));
}

TEST(Stack, HoldsTheConditionOnlyAsLongAsItsOwnNode) {
  for (const bool recompute : {false, true}) {
    const auto stack = make_stack();
    stack->set_engine(autograd_engine({recompute ? Recompute::block : Recompute::none}));
    const at::Tensor x = numbers(0, {kBatch, kTokens, kWidth});
    const at::Tensor leaf = condition_values().set_requires_grad(true), condition = leaf * 1.0;
    const size_t before = condition.use_count(), storage_before = condition.storage().use_count();
    at::Tensor loss = stack_forward(*stack, x, condition, {});
    EXPECT_GT(condition.storage().use_count(), storage_before) << "the pass reads it";
    loss.backward();
    EXPECT_TRUE(leaf.grad().defined());
    loss = at::Tensor();
    stack_forward(*stack, x, condition, {});  // dropped without a backward
    EXPECT_EQ(condition.use_count(), before);
    EXPECT_EQ(condition.storage().use_count(), storage_before);
  }
}

TEST(Stack, AConditionThatNeedsNoGradientGetsNone) {
  const auto stack = make_stack();
  const at::Tensor condition = condition_values();
  stack_forward(*stack, numbers(0, {kBatch, kTokens, kWidth}), condition, {}).backward();
  EXPECT_FALSE(condition.grad().defined());
}

TEST(Stack, AnUnconditionedTrunkIgnoresTheCondition) {
  BlockOptions options;
  options.width = kWidth, options.num_heads = 4, options.mlp_hidden = 24;
  Stack stack({std::make_shared<Block>(options)});
  for (NamedTensor& parameter : stack.named_parameters())
    parameter.tensor.set_data(numbers(9, parameter.tensor.sizes()));
  const at::Tensor condition = condition_values().set_requires_grad(true);
  stack_forward(stack, numbers(0, {kBatch, kTokens, kWidth}), condition, {}).backward();
  EXPECT_FALSE(condition.grad().defined());
}

}  // namespace
}  // namespace vitrail::nn
