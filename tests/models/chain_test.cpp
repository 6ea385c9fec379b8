#include "vitrail/models/chain.h"

#include <cstdio>
#include <set>

#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include "tests/models/chain_cases.h"

namespace vitrail::models {
namespace {

class EveryChain : public testing::TestWithParam<ChainCase> {};
INSTANTIATE_TEST_SUITE_P(Models, EveryChain, testing::ValuesIn(chain_cases()),
                         [](const auto& tested) { return tested.param.name; });

Output run_pieces(Model& model, const std::vector<ChainPiece>& pieces, const data::Batch& batch,
                  const nn::Draws& draws) {
  Output out;
  Flow flow;
  for (const ChainPiece& piece : pieces) run(*model.chain(), piece, flow, batch, draws, out);
  return out;
}

/// The blocks of each trunk cut before block `cut` of all blocks; a cut at 0 is none.
std::vector<ChainPiece> cut_pieces(Chain& chain, int cut) {
  std::vector<ChainPiece> pieces;
  const std::vector<nn::Stack*> trunks = chain.trunks();
  int first = 0;
  for (int t = 0; t < static_cast<int>(trunks.size()); ++t) {
    pieces.push_back({.end = t, .trunk = -1, .range = {}});
    const int depth = trunks[t]->depth(), at = std::clamp(cut - first, 0, depth);
    if (at > 0) pieces.push_back({.end = -1, .trunk = t, .range = {0, at}});
    if (at < depth) pieces.push_back({.end = -1, .trunk = t, .range = {at, depth}});
    first += depth;
  }
  pieces.push_back({.end = static_cast<int>(trunks.size()), .trunk = -1, .range = {}});
  return pieces;
}

std::vector<at::Tensor> gradients(Model& model) {
  std::vector<at::Tensor> all;
  for (nn::NamedTensor& parameter : model.named_parameters()) {
    all.push_back(parameter.tensor.grad().clone());
    parameter.tensor.mutable_grad() = at::Tensor();
  }
  return all;
}

TEST_P(EveryChain, ComputesWhatForwardComputesWhereverItIsCut) {
  const auto model = make_model(GetParam().options, 3);
  randomise(*model);
  const data::Batch batch = chain_batch(GetParam().options, 3);
  const nn::Draws draws = draws_of(batch, true);
  const Output whole = model->forward(batch, draws);
  whole.loss.backward();
  const std::vector<at::Tensor> expected = gradients(*model);
  // Gradients that meet at a tap or at the condition are added in another order where a cut parts them: some roundings of
  // 6e-8. Everywhere else nothing changes.
  const bool meet =
      (GetParam().options.time_conditioning == "block" && GetParam().options.kind == "diffusion") ||
      !model->chain()->taps(0).empty();
  const double tolerance = meet ? 2e-6 : 0.0;
  int blocks = 0;
  for (const nn::Stack* trunk : model->chain()->trunks()) blocks += trunk->depth();
  double worst_gradient = 0.0;
  for (int cut = 0; cut <= blocks; ++cut) {
    SCOPED_TRACE(cut);
    const auto pieces =
        cut < blocks ? cut_pieces(*model->chain(), cut) : single_pieces(*model->chain());
    const Output out = run_pieces(*model, pieces, batch, draws);
    EXPECT_TRUE(at::equal(out.output, whole.output));
    EXPECT_TRUE(at::equal(out.loss, whole.loss));
    if (whole.mask.defined()) {
      EXPECT_TRUE(at::equal(out.mask, whole.mask));
    }
    out.loss.backward();
    const std::vector<at::Tensor> found = gradients(*model);
    for (size_t p = 0; p < found.size(); ++p) {
      const double scale = expected[p].abs().max().item<double>();
      const double error = worst(found[p], expected[p]) / std::max(scale, 1e-30);
      worst_gradient = std::max(worst_gradient, error);
      EXPECT_LE(error, tolerance) << model->named_parameters()[p].name;
    }
  }
  std::printf("%s: gradients differ by %.3g at most (tolerance %g)\n", GetParam().name.c_str(),
              worst_gradient, tolerance);
}

TEST_P(EveryChain, EvaluatesAsForwardDoes) {
  const at::NoGradGuard no_grad;
  const auto model = make_model(GetParam().options, 3);
  randomise(*model);
  const data::Batch batch = chain_batch(GetParam().options, 3);
  const Output whole = model->forward(batch, draws_of(batch)),
               cut = run_pieces(*model, single_pieces(*model->chain()), batch, draws_of(batch));
  EXPECT_TRUE(at::equal(cut.output, whole.output));
  EXPECT_TRUE(at::equal(cut.loss, whole.loss));
}

/// Forgets where what flows came from.
void cut_off(Flow& flow) {
  const auto leaf = [](const at::Tensor& x) {
    return x.defined() ? x.detach().set_requires_grad(true) : x;
  };
  flow.x_BTD = leaf(flow.x_BTD), flow.condition_BD = leaf(flow.condition_BD);
  for (at::Tensor& x : flow.inner) x = leaf(x);
}

TEST_P(EveryChain, UsesAtEveryEndThatEndsUnitsAndNoOthers) {
  const auto model = make_model(GetParam().options, 3);
  randomise(*model);
  Chain& chain = *model->chain();
  const data::Batch batch = chain_batch(GetParam().options, 3);
  Output out;
  Flow flow;
  for (const ChainPiece& piece : single_pieces(chain)) {
    cut_off(flow);
    run(chain, piece, flow, batch, draws_of(batch, true), out);
    if (piece.end < 0) continue;
    std::set<std::string> own, used;
    for (const UnitSpec& unit : model->units())
      if (!unit.stack && chain.end_of(unit.name) == piece.end)
        for (const nn::NamedTensor& parameter : unit.parameters) own.insert(parameter.name);
    if (out.loss.defined())
      out.loss.backward();
    else if (flow.condition_BD.defined())
      (flow.x_BTD.sum() + flow.condition_BD.sum()).backward();
    else
      flow.x_BTD.sum().backward();
    for (nn::NamedTensor& parameter : model->named_parameters()) {
      if (parameter.tensor.grad().defined()) used.insert(parameter.name);
      parameter.tensor.mutable_grad() = at::Tensor();
    }
    EXPECT_EQ(used, own) << "end " << piece.end;
  }
}

}  // namespace
}  // namespace vitrail::models
