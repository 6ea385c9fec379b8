// Every option of a block against central differences, in fp64, through the trunk's own node.

#include <cmath>

#include <ATen/core/grad_mode.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tests/nn/block_cases.h"

namespace vitrail::nn {
namespace {

// The difference of five points errs by h^4 / 30 times the fifth derivative (at most a few hundred here) and by the
// rounding of the scalar, 1e-16 * 100 / h: both below 1e-10 of the gradient's size. Worst seen: 1e-10.
constexpr double kStep = 3e-4, kBound = 1e-9;

class FiniteDifference : public testing::TestWithParam<BlockCase> {};

struct Quantity {
  std::string name;
  at::Tensor tensor;
};

double value(const BlockRun& run) {
  const at::NoGradGuard no_grad;
  return scalar_of(run.stack->forward(run.x_BTD, run.context)).item<double>();
}

/// Derivative along `direction`, by five points; the tensor is left as it was.
double difference(const BlockRun& run, const at::Tensor& tensor, const at::Tensor& direction) {
  const at::NoGradGuard no_grad;
  const at::Tensor centre = tensor.detach().clone();
  at::Tensor moved = tensor.detach();  // shares storage
  const auto at_step = [&](double steps) {
    moved.copy_(centre + direction * (steps * kStep));
    return value(run);
  };
  const double slope = (at_step(-2) - 8 * at_step(-1) + 8 * at_step(1) - at_step(2)) / (12 * kStep);
  moved.copy_(centre);
  return slope;
}

/// Two random directions and three single elements.
std::vector<at::Tensor> directions(const at::Tensor& tensor, uint16_t place) {
  std::vector<at::Tensor> all;
  for (uint16_t d = 0; d < 2; ++d) {
    const at::Tensor direction = draw(static_cast<uint16_t>(5000 + 2 * place + d), tensor.sizes());
    all.push_back(direction / direction.norm());
  }
  for (int64_t e = 0; e < 3; ++e) {
    at::Tensor one = at::zeros({tensor.numel()}, at::kDouble);
    one[(17 * place + e * tensor.numel() / 3) % tensor.numel()] = 1.0;
    all.push_back(one.view(tensor.sizes()));
  }
  return all;
}

std::vector<Quantity> quantities(BlockRun& run) {
  std::vector<Quantity> all{{"input", run.x_BTD.set_requires_grad(true)}};
  if (run.context.condition_BD.defined())
    all.push_back({"condition", run.context.condition_BD.set_requires_grad(true)});
  for (const NamedTensor& parameter : run.stack->named_parameters())
    all.push_back({parameter.name, parameter.tensor});
  return all;
}

TEST_P(FiniteDifference, GradientsAreTheSlopes) {
  BlockRun run = make_run(GetParam());
  const std::vector<Quantity> all = quantities(run);
  scalar_of(run.stack->forward(run.x_BTD, run.context)).backward();
  double worst = 0;
  std::string where;
  for (size_t i = 0; i < all.size(); ++i) {
    const at::Tensor gradient = all[i].tensor.grad();
    ASSERT_TRUE(gradient.defined()) << all[i].name;
    // Single elements may be flat (the part of qkv's bias that keys get is), so errors are measured by the tensor's
    // typical slope; a tensor that is flat altogether by 1.
    const bool flat = is_flat(GetParam(), all[i].name);
    const double typical = flat ? 1.0 : gradient.square().mean().sqrt().item<double>();
    EXPECT_GT(typical, 1e-6) << all[i].name << " tests nothing";
    for (const at::Tensor& direction : directions(all[i].tensor, static_cast<uint16_t>(i))) {
      const double exact = (gradient * direction).sum().item<double>();
      const double error = std::abs(difference(run, all[i].tensor, direction) - exact) /
                           std::max(std::abs(exact), typical);
      if (error > worst) worst = error, where = all[i].name;
    }
  }
  fmt::print("{}: worst {:.1e} at {}, bound {:.0e}\n", GetParam().name, worst, where, kBound);
  EXPECT_LE(worst, kBound) << where;
}

INSTANTIATE_TEST_SUITE_P(Options, FiniteDifference, testing::ValuesIn(block_cases()),
                         [](const auto& each) { return each.param.name; });

}  // namespace
}  // namespace vitrail::nn
