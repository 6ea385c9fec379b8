#pragma once
/// Trunks of two small fp64 blocks, one for every option of a block, with the tokens and the context they run on.
///
/// Shapes   B batch, T tokens (one prefix token, then patches), D width.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include "vitrail/nn/engine.h"
#include "vitrail/nn/stack.h"
#include "vitrail/ops/random.h"
#include "vitrail/ops/rotary.h"

namespace vitrail::nn {

constexpr int64_t kCaseBatch = 3, kCaseWidth = 48, kCaseHeads = 4, kCasePrefix = 1;

/// Uniform in [-0.5, 0.5), another for each `place`.
inline at::Tensor draw(uint16_t place, at::IntArrayRef shape) {
  int64_t count = 1;
  for (const int64_t side : shape) count *= side;
  const core::DrawKey key{7, core::Stream::test, 0, place};
  return (ops::uniform(key, at::zeros({1}, at::kLong), count).view(shape) - 0.5).to(at::kDouble);
}

enum class Rope { none, raster, axial };

struct BlockCase {
  std::string name;
  BlockOptions options;
  Rope rope = Rope::none;
  std::vector<int64_t> grid = {2, 3};
  bool gathered = false;  // other patches for each sample, in their own order
  bool masked = false;
  bool training = false;
  bool recompute = false;
};

inline std::vector<BlockCase> block_cases() {
  BlockCase plain{.name = "Gelu", .options = {}};
  plain.options.width = kCaseWidth, plain.options.num_heads = kCaseHeads;
  plain.options.mlp_hidden = 20;
  std::vector<BlockCase> cases{plain};
  const auto add = [&](const char* name, auto&& change) {
    BlockCase next = plain;
    next.name = name;
    change(next);
    cases.push_back(next);
  };
  const auto every = [](BlockCase& c) {
    c.options.mlp = MlpKind::swiglu, c.options.norm.kind = NormKind::rmsnorm;
    c.options.qk_norm = c.options.layer_scale = c.options.conditioned = true;
    c.options.num_kv_heads = 2;
    c.options.drop_path = 0.2, c.options.attn_drop = 0.2, c.options.proj_drop = 0.25;
    c.rope = Rope::axial, c.gathered = c.masked = c.training = true;
  };
  add("Swiglu", [](BlockCase& c) { c.options.mlp = MlpKind::swiglu; });
  add("RmsNorm", [](BlockCase& c) { c.options.norm.kind = NormKind::rmsnorm; });
  add("QkNorm", [](BlockCase& c) { c.options.qk_norm = true; });
  add("QkRmsNorm",
      [](BlockCase& c) { c.options.qk_norm = true, c.options.norm.kind = NormKind::rmsnorm; });
  add("LayerScale", [](BlockCase& c) { c.options.layer_scale = true; });
  add("GroupedQueries", [](BlockCase& c) { c.options.num_kv_heads = 2; });
  add("OneKeyHead", [](BlockCase& c) { c.options.num_kv_heads = 1; });
  add("NoBiases", [](BlockCase& c) { c.options.qkv_bias = c.options.proj_bias = false; });
  add("NoBiasesSwiglu", [](BlockCase& c) {
    c.options.qkv_bias = c.options.proj_bias = false, c.options.mlp = MlpKind::swiglu;
  });
  add("RasterRope", [](BlockCase& c) { c.rope = Rope::raster; });
  add("AxialRope2d", [](BlockCase& c) { c.rope = Rope::axial; });
  add("AxialRope3d", [](BlockCase& c) { c.rope = Rope::axial, c.grid = {2, 1, 3}; });
  add("GatheredRope", [](BlockCase& c) { c.rope = Rope::raster, c.gathered = true; });
  add("KeyMask", [](BlockCase& c) { c.masked = true; });
  add("Conditioned", [](BlockCase& c) { c.options.conditioned = true; });
  add("DropPath", [](BlockCase& c) { c.options.drop_path = 0.4, c.training = true; });
  add("AttnDrop", [](BlockCase& c) { c.options.attn_drop = 0.3, c.training = true; });
  add("AttnDropGroupedMasked", [](BlockCase& c) {
    c.options.attn_drop = 0.3, c.options.num_kv_heads = 2, c.masked = c.training = true;
  });
  add("ProjDrop", [](BlockCase& c) { c.options.proj_drop = 0.3, c.training = true; });
  add("Recompute", [](BlockCase& c) { c.recompute = true; });
  add("Everything", every);
  add("EverythingRecomputed", [&](BlockCase& c) { every(c), c.recompute = true; });
  return cases;
}

/// Whether a parameter has no effect: a bias on every key moves all scores of a query alike, which softmax forgets;
/// turning the keys makes it matter.
inline bool is_flat(const BlockCase& c, const std::string& parameter) {
  return c.rope == Rope::none && parameter.ends_with("k_norm.bias");
}

struct BlockRun {
  std::unique_ptr<Stack> stack;
  at::Tensor x_BTD;
  at::Tensor ids_BK;  // raster index of each patch
  Context context;
  int64_t tokens = 0;
};

/// Parameters away from zero, gains around one; in `type`.
inline void fill_parameters(Module& module, at::ScalarType type) {
  uint16_t place = 100;
  for (NamedTensor& parameter : module.named_parameters()) {
    at::Tensor values = draw(place++, parameter.tensor.sizes()) * 0.6;
    if (parameter.name.find("norm") != std::string::npos && parameter.name.ends_with("weight"))
      values = values + 1.0;
    parameter.tensor.set_data(values.to(type));
  }
}

inline std::unique_ptr<Stack> case_stack(const BlockCase& c, at::ScalarType type) {
  std::vector<std::shared_ptr<Block>> blocks;
  for (int i = 0; i < 2; ++i) {
    BlockOptions options = c.options;
    options.index = 3 + i;
    blocks.push_back(std::make_shared<Block>(options));
  }
  auto stack = std::make_unique<Stack>(std::move(blocks));
  stack->set_engine(autograd_engine({c.recompute ? Recompute::block : Recompute::none}));
  fill_parameters(*stack, type);
  return stack;
}

inline BlockRun make_run(const BlockCase& c, at::ScalarType type = at::kDouble) {
  at::set_num_threads(1);  // tensors this small gain nothing, and busy machines lose much
  BlockRun run{.stack = case_stack(c, type)};
  int64_t cells = 1;
  for (const int64_t side : c.grid) cells *= side;
  run.ids_BK = at::arange(cells, at::kLong).unsqueeze(0).expand({kCaseBatch, cells}).contiguous();
  if (c.gathered)
    run.ids_BK = at::tensor({4, 0, 5, 1, 2, 3, 0, 4, 5, 2, 1, 3}, at::kLong).view({3, 4});
  run.tokens = kCasePrefix + run.ids_BK.size(1);
  run.x_BTD = (draw(0, {kCaseBatch, run.tokens, kCaseWidth}) * 3.0).to(type);
  run.context = Draws{11, 3, at::arange(100, 100 + kCaseBatch, at::kLong), c.training};
  const int64_t head_width = c.options.width / c.options.num_heads;
  if (c.rope == Rope::raster)
    run.context.rotary = ops::raster_rotary(c.grid, kCasePrefix, head_width, 100.0);
  if (c.rope == Rope::axial)
    run.context.rotary = ops::axial_rotary(c.grid, kCasePrefix, head_width, 100.0);
  if (c.gathered) run.context.rotary = ops::gather(run.context.rotary, run.ids_BK, kCasePrefix);
  if (c.masked) {
    const at::Tensor real_B = at::tensor({3, 1, 1000}, at::kLong);
    run.context.key_mask_BT = at::arange(run.tokens).unsqueeze(0).lt(real_B.unsqueeze(1));
  }
  if (c.options.conditioned)
    run.context.condition_BD = (draw(1, {kCaseBatch, kCaseWidth}) * 3.0).to(type);
  return run;
}

/// A fixed scalar of the trunk's output in which every value counts differently.
inline at::Tensor scalar_of(const at::Tensor& y_BTD) {
  const at::Tensor weights = draw(2, y_BTD.sizes()).to(y_BTD.scalar_type());
  return (y_BTD * weights + y_BTD.square() * weights * 0.3).sum();
}

}  // namespace vitrail::nn
