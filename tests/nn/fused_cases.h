#pragma once
/// A trunk's output and all of its gradients under any engine, and what they are compared by.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/equal.h>

#include "tests/nn/block_cases.h"

namespace vitrail::nn {

struct TrunkResult {
  at::Tensor output, input, condition;
  std::vector<std::pair<std::string, at::Tensor>> parameters;
  std::vector<std::string> flat;  // parameters without effect: their gradients are rounding noise
};

/// Three blocks of a case; parameters have the values that `rounding` can hold.
inline std::unique_ptr<Stack> trunk_of(const BlockCase& c, at::ScalarType type,
                                       at::ScalarType rounding = at::kDouble) {
  std::vector<std::shared_ptr<Block>> blocks;
  for (int i = 0; i < 3; ++i) {
    BlockOptions options = c.options;
    options.index = i;
    blocks.push_back(std::make_shared<Block>(options));
  }
  auto stack = std::make_unique<Stack>(std::move(blocks));
  fill_parameters(*stack, rounding);
  for (NamedTensor& parameter : stack->named_parameters())
    parameter.tensor.set_data(parameter.tensor.detach().to(type));
  return stack;
}

/// Two micro-batches through the trunk, the output of the middle block tapped; whose gradients add up.
inline TrunkResult run_trunk(const BlockCase& c, std::unique_ptr<BlockEngine> engine,
                             at::ScalarType type, at::ScalarType rounding = at::kDouble,
                             const std::function<void(Stack&)>& prepare = {}) {
  const BlockRun given = make_run(c, rounding);
  const auto stack = trunk_of(c, type, rounding);
  stack->set_engine(std::move(engine));
  if (prepare) prepare(*stack);
  Context context = given.context;
  if (context.condition_BD.defined())
    context.condition_BD = context.condition_BD.detach().to(type).set_requires_grad(true);
  const at::Tensor x_BTD = given.x_BTD.detach().to(type).set_requires_grad(true);
  TrunkResult result;
  for (uint32_t micro = 0; micro < 2; ++micro) {
    context.step = micro;
    std::vector<at::Tensor> taps;
    const at::Tensor y_BTD = stack->forward(x_BTD, context, {1}, &taps);
    (scalar_of(y_BTD) + scalar_of(taps[0])).backward();
    result.output = y_BTD.detach();
  }
  result.input = x_BTD.grad();
  if (context.condition_BD.defined()) result.condition = context.condition_BD.grad();
  for (const NamedTensor& parameter : stack->named_parameters()) {
    result.parameters.emplace_back(parameter.name, parameter.tensor.grad());
    if (is_flat(c, parameter.name)) result.flat.push_back(parameter.name);
  }
  return result;
}

/// Visits (name, tensor of a, tensor of b) of everything but flat parameters.
template <class Visit>
void for_each_result(const TrunkResult& a, const TrunkResult& b, Visit&& visit) {
  visit(std::string("output"), a.output, b.output);
  visit(std::string("input"), a.input, b.input);
  if (a.condition.defined()) visit(std::string("condition"), a.condition, b.condition);
  for (size_t p = 0; p < a.parameters.size(); ++p)
    if (std::ranges::find(a.flat, a.parameters[p].first) == a.flat.end())
      visit(a.parameters[p].first, a.parameters[p].second, b.parameters[p].second);
}

/// Largest difference of any tensor over that tensor's largest value, printed.
inline double worst_difference(const std::string& name, const TrunkResult& expected,
                               const TrunkResult& found) {
  double worst = 0.0;
  std::string where;
  for_each_result(expected, found,
                  [&](const std::string& what, const at::Tensor& a, const at::Tensor& b) {
                    double difference = INFINITY;
                    if (a.defined() && b.defined() && a.sizes() == b.sizes())
                      difference = ((a - b).abs().max() / a.abs().max()).item().toDouble();
                    if (difference >= worst || std::isnan(difference))
                      worst = std::isnan(difference) ? INFINITY : difference, where = what;
                  });
  std::printf("%s: worst relative difference %.2g, of %s\n", name.c_str(), worst, where.c_str());
  return worst;
}

/// Root of the mean over all tensors of (|a - b| / |a|)^2, Euclidean lengths.
inline double error_of(const TrunkResult& exact, const TrunkResult& found) {
  double sum = 0.0;
  int count = 0;
  for_each_result(exact, found, [&](const std::string&, const at::Tensor& a, const at::Tensor& b) {
    const at::Tensor wide = a.to(at::kDouble);
    sum += ((b.to(at::kDouble) - wide).square().sum() / wide.square().sum()).item().toDouble();
    ++count;
  });
  return std::sqrt(sum / count);
}

inline bool has_same_bits(const TrunkResult& a, const TrunkResult& b) {
  bool same = true;
  for_each_result(a, b, [&](const std::string& what, const at::Tensor& x, const at::Tensor& y) {
    if (at::equal(x, y)) return;
    same = false;
    std::printf("%s differs\n", what.c_str());
  });
  return same;
}

/// Two options at once, each pair.
inline std::vector<BlockCase> paired_cases() {
  using Change = std::pair<const char*, std::function<void(BlockCase&)>>;
  const std::vector<Change> changes{
      {"Swiglu", [](BlockCase& c) { c.options.mlp = MlpKind::swiglu; }},
      {"GeluTanh", [](BlockCase& c) { c.options.mlp = MlpKind::gelu_tanh; }},
      {"RmsNorm", [](BlockCase& c) { c.options.norm.kind = NormKind::rmsnorm; }},
      {"QkNorm", [](BlockCase& c) { c.options.qk_norm = true; }},
      {"LayerScale", [](BlockCase& c) { c.options.layer_scale = true; }},
      {"Grouped", [](BlockCase& c) { c.options.num_kv_heads = 2; }},
      {"NoQkvBias", [](BlockCase& c) { c.options.qkv_bias = false; }},
      {"NoProjBias", [](BlockCase& c) { c.options.proj_bias = false; }},
      {"Rope", [](BlockCase& c) { c.rope = Rope::axial; }},
      {"RopeOfSample", [](BlockCase& c) { c.rope = Rope::raster, c.gathered = true; }},
      {"KeyMask", [](BlockCase& c) { c.masked = true; }},
      {"Conditioned", [](BlockCase& c) { c.options.conditioned = true; }},
      {"DropPath", [](BlockCase& c) { c.options.drop_path = 0.4, c.training = true; }},
      {"AttnDrop", [](BlockCase& c) { c.options.attn_drop = 0.3, c.training = true; }},
      {"ProjDrop", [](BlockCase& c) { c.options.proj_drop = 0.3, c.training = true; }},
  };
  std::vector<BlockCase> cases;
  for (size_t i = 0; i < changes.size(); ++i)
    for (size_t j = i + 1; j < changes.size(); ++j) {
      BlockCase c = block_cases().front();
      c.name = std::string(changes[i].first) + "And" + changes[j].first;
      changes[i].second(c);
      changes[j].second(c);
      cases.push_back(c);
    }
  return cases;
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

}  // namespace vitrail::nn
