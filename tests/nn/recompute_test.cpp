// Every kind of recompute against keeping everything: the same operations, so equal means every bit.

#include <ATen/core/grad_mode.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full_like.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/nn/block_cases.h"
#include "vitrail/ops/attention.h"
#include "vitrail/ops/attention_kept.h"

namespace vitrail::nn {
namespace {

constexpr int kDepth = 5;

struct Gradients {
  at::Tensor output, input, condition;
  std::vector<at::Tensor> parameters;
};

/// Five blocks of a case, for which every k-th and the others differ.
std::unique_ptr<Stack> deep_stack(const BlockCase& c, at::ScalarType type) {
  std::vector<std::shared_ptr<Block>> blocks;
  for (int i = 0; i < kDepth; ++i) {
    BlockOptions options = c.options;
    options.index = i;
    blocks.push_back(std::make_shared<Block>(options));
  }
  auto stack = std::make_unique<Stack>(std::move(blocks));
  fill_parameters(*stack, type);
  return stack;
}

/// Two micro-batches through the trunk, a tap in the middle.
Gradients run(const BlockCase& c, const EngineOptions& options, at::ScalarType type) {
  const BlockRun given = make_run(c, type);
  const auto stack = deep_stack(c, type);
  stack->set_engine(autograd_engine(options));
  Gradients result;
  Context context = given.context;
  if (context.condition_BD.defined())
    context.condition_BD = context.condition_BD.detach().set_requires_grad(true);
  const at::Tensor x_BTD = given.x_BTD.detach().set_requires_grad(true);
  for (uint32_t micro = 0; micro < 2; ++micro) {
    context.step = micro;
    std::vector<at::Tensor> taps;
    result.output = stack->forward(x_BTD, context, {2}, &taps);
    (scalar_of(result.output) + scalar_of(taps[0])).backward();
  }
  result.input = x_BTD.grad();
  if (context.condition_BD.defined()) result.condition = context.condition_BD.grad();
  for (const NamedTensor& parameter : stack->named_parameters())
    result.parameters.push_back(parameter.tensor.grad());
  return result;
}

void expect_same_bits(const Gradients& plain, const Gradients& mine) {
  EXPECT_TRUE(at::equal(plain.output, mine.output));
  EXPECT_TRUE(at::equal(plain.input, mine.input));
  if (plain.condition.defined()) {
    EXPECT_TRUE(at::equal(plain.condition, mine.condition));
  }
  ASSERT_EQ(plain.parameters.size(), mine.parameters.size());
  for (size_t p = 0; p < plain.parameters.size(); ++p)
    EXPECT_TRUE(at::equal(plain.parameters[p], mine.parameters[p])) << "parameter " << p;
}

/// Keeps copies: what comes back is another tensor.
class CopyingStore : public ActivationStore {
 public:
  std::unique_ptr<StoredTensors> keep(std::vector<at::Tensor> tensors) override {
    ++kept;
    auto copies = std::make_unique<Copies>();
    for (const at::Tensor& tensor : tensors) copies->tensors.push_back(tensor.clone());
    return copies;
  }
  int kept = 0;

 private:
  struct Copies : StoredTensors {
    std::vector<at::Tensor> restore() override { return tensors; }
    std::vector<at::Tensor> tensors;
  };
};

class RecomputeBits : public testing::TestWithParam<BlockCase> {};
INSTANTIATE_TEST_SUITE_P(Cases, RecomputeBits, testing::ValuesIn(block_cases()),
                         [](const auto& tested) { return tested.param.name; });

TEST_P(RecomputeBits, EveryKindGivesTheGradientsOfKeepingEverything) {
  for (const at::ScalarType type : {at::kFloat, at::kDouble}) {
    const Gradients plain = run(GetParam(), {}, type);
    for (const Recompute kind : {Recompute::block, Recompute::every_k, Recompute::selective}) {
      SCOPED_TRACE(testing::Message() << "kind " << static_cast<int>(kind) << " in " << type);
      expect_same_bits(plain, run(GetParam(), {kind, 2}, type));
      CopyingStore store;
      expect_same_bits(plain, run(GetParam(), {kind, 3, &store}, type));
      EXPECT_GT(store.kept, 0);
    }
  }
}

BlockCase plain_case() { return block_cases().front(); }

/// Counts the calls of attention's core.
struct CountedAttend {
  explicit CountedAttend(Stack& stack) {
    for (int i = 0; i < stack.depth(); ++i)
      stack.block(i).attention().set_attend([this](const at::Tensor& q, const at::Tensor& k,
                                                   const at::Tensor& v, const at::Tensor& mask) {
        ++calls;
        return ops::sdpa(q, k, v, mask);
      });
  }
  int calls = 0;
};

int calls_of_core(Recompute kind, int every) {
  const BlockRun given = make_run(plain_case());
  const auto stack = deep_stack(plain_case(), at::kDouble);
  CountedAttend counted(*stack);
  stack->set_engine(autograd_engine({kind, every}));
  scalar_of(stack->forward(given.x_BTD, given.context)).backward();
  return counted.calls;
}

TEST(Recompute, RunsAgainTheBlocksThatItSays) {
  EXPECT_EQ(calls_of_core(Recompute::none, 1), kDepth);
  EXPECT_EQ(calls_of_core(Recompute::block, 1), 2 * kDepth);
  EXPECT_EQ(calls_of_core(Recompute::every_k, 1), 2 * kDepth);
  EXPECT_EQ(calls_of_core(Recompute::every_k, 2), kDepth + 3);  // blocks 0, 2 and 4
  EXPECT_EQ(calls_of_core(Recompute::every_k, 3), kDepth + 2);  // blocks 0 and 3
}

TEST(KeptCores, ASecondPassTakesTheResultAndDoesNotComputeIt) {
  const at::Tensor q = draw(1, {2, 4, 7, 8}), k = draw(2, {2, 4, 7, 8}), v = draw(3, {2, 4, 7, 8});
  std::vector<ops::KeptCore> cores;
  {
    const at::NoGradGuard no_grad;
    const ops::KeepCores scope(cores);
    ops::sdpa(q, k, v);
  }
  ASSERT_EQ(cores.size(), 1u);
  ASSERT_TRUE(cores[0].is_kept());
  cores[0].out = at::full_like(cores[0].out, 3.0);
  const ops::TakeCores scope(cores);
  const at::Tensor leaf = q.detach().set_requires_grad(true);
  const at::Tensor out = ops::sdpa(leaf, k, v);
  EXPECT_TRUE(at::equal(out, at::full_like(out, 3.0))) << "it was computed again";
  EXPECT_TRUE(out.requires_grad());
  EXPECT_THROW(ops::sdpa(leaf, k, v), std::runtime_error) << "only one result was kept";
}

TEST(KeptCores, GradientsWithMasksAndSharedHeadsAreThoseOfTheLibrary) {
  const at::Tensor mask_BL = at::arange(7).unsqueeze(0).lt(at::tensor({5, 7}).unsqueeze(1));
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16, at::kDouble})
    for (const bool masked : {false, true})
      for (const int64_t kv_heads : {4, 2, 1}) {
        const auto leaf = [&](uint16_t place, int64_t heads) {
          return draw(place, {2, heads, 7, 8}).to(type).set_requires_grad(true);
        };
        const at::Tensor mask = masked ? mask_BL : at::Tensor();
        std::vector<at::Tensor> plain{leaf(1, 4), leaf(2, kv_heads), leaf(3, kv_heads)},
            mine{leaf(1, 4), leaf(2, kv_heads), leaf(3, kv_heads)};
        ops::sdpa(plain[0], plain[1], plain[2], mask).square().sum().backward();
        std::vector<ops::KeptCore> cores;
        {
          const at::NoGradGuard no_grad;
          const ops::KeepCores scope(cores);
          ops::sdpa(mine[0], mine[1], mine[2], mask);
        }
        ASSERT_TRUE(cores.at(0).is_kept());
        const ops::TakeCores scope(cores);
        ops::sdpa(mine[0], mine[1], mine[2], mask).square().sum().backward();
        for (size_t t = 0; t < 3; ++t)
          EXPECT_TRUE(at::equal(plain[t].grad(), mine[t].grad()))
              << "tensor " << t << " in " << type << ", masked " << masked << ", heads "
              << kv_heads;
      }
}

TEST(KeptCores, ScopesDoNotNest) {
  std::vector<ops::KeptCore> cores;
  const ops::KeepCores scope(cores);
  EXPECT_THROW(ops::TakeCores{cores}, std::runtime_error);
}

}  // namespace
}  // namespace vitrail::nn
