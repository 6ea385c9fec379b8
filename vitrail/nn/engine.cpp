#include "vitrail/nn/engine.h"

#include <algorithm>
#include <optional>
#include <utility>

#include <ATen/core/grad_mode.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/autograd.h>

#include "vitrail/config/recipe.h"
#include "vitrail/core/error.h"
#include "vitrail/core/log.h"
#include "vitrail/nn/fused_engine.h"
#include "vitrail/ops/attention_kept.h"

namespace vitrail::nn {
namespace {

using torch::autograd::variable_list;

/// What a recomputed block keeps besides its input.
struct KeptBlock {
  std::vector<ops::KeptCore> cores;
  std::unique_ptr<StoredTensors> input, results;  // in the hands of a store; null: where they were
};

/// The tensors of kept results that grow with the batch, each in its place; the rest are single numbers.
template <class Visit>
void for_each_large(std::vector<ops::KeptCore>& cores, Visit&& visit) {
  for (ops::KeptCore& core : cores) {
    if (core.more.empty()) continue;  // not kept
    visit(core.out);
    visit(core.more[0]);
  }
}

/// Plain ATen under a local graph that begins at a detached leaf and ends at the block's output.
class AutogradEngine : public BlockEngine {
 public:
  explicit AutogradEngine(const EngineOptions& options) : options_(options) {
    VT_CHECK(options.every >= 1, "[engine] recompute_every must be 1 or more but got {}",
             options.every);
  }

  std::string name() const override { return "autograd" + recompute_words(options_); }

  at::Tensor forward(Block& block, const at::Tensor& x_BLD, const Context& context, int i,
                     Saved& keep) override {
    if (recomputes(i)) return forward_once(block, x_BLD, context, keep);
    keep.input = x_BLD.detach().set_requires_grad(true);
    build_graph(block, context, keep);
    return keep.output.detach();
  }

  at::Tensor backward(Block& block, const at::Tensor& dy_BLD, const Context& context, int i,
                      Saved& kept) override {
    if (recomputes(i)) recompute(block, context, kept);
    variable_list ends, gradients;
    if (dy_BLD.defined()) ends.push_back(kept.output), gradients.push_back(dy_BLD);
    if (kept.input_gradient.defined())
      ends.push_back(kept.entry), gradients.push_back(kept.input_gradient);
    if (kept.attention_gradient.defined())
      ends.push_back(kept.attention), gradients.push_back(kept.attention_gradient);
    if (ends.empty()) return {};
    torch::autograd::backward(ends, gradients);
    return kept.input.grad();
  }

 private:
  bool recomputes(int i) const {
    if (options_.recompute == Recompute::every_k) return i % options_.every == 0;
    return options_.recompute != Recompute::none;
  }

  at::Tensor forward_once(Block& block, const at::Tensor& x_BLD, const Context& context,
                          Saved& keep) {
    const at::NoGradGuard no_grad;
    const auto kept = std::make_shared<KeptBlock>();
    keep.more = kept;
    keep.input = x_BLD.detach();
    // Before the block's own work, so that moving the input away runs beside it.
    if (options_.store) kept->input = options_.store->keep({keep.input});
    at::Tensor y_BLD;
    {
      std::optional<ops::KeepCores> scope;
      if (options_.recompute == Recompute::selective) scope.emplace(kept->cores);
      y_BLD = block.forward(keep.input, asking(context, keep));
    }
    if (options_.recompute == Recompute::selective) say_what_is_not_kept(kept->cores);
    if (!options_.store) return y_BLD;
    keep.input = at::Tensor();
    std::vector<at::Tensor> results;
    for_each_large(kept->cores,
                   [&](at::Tensor& x) { results.push_back(std::exchange(x, at::Tensor())); });
    if (!results.empty()) kept->results = options_.store->keep(std::move(results));
    return y_BLD;
  }

  static void recompute(Block& block, const Context& context, Saved& kept) {
    const auto more = std::static_pointer_cast<KeptBlock>(kept.more);
    if (more->results) {
      const std::vector<at::Tensor> results = std::exchange(more->results, {})->restore();
      size_t next = 0;
      for_each_large(more->cores, [&](at::Tensor& x) { x = results[next++]; });
    }
    if (more->input) kept.input = std::exchange(more->input, {})->restore()[0];
    kept.input = kept.input.detach().set_requires_grad(true);
    std::optional<ops::TakeCores> scope;
    if (!more->cores.empty()) scope.emplace(more->cores);
    build_graph(block, context, kept);
  }

  static void build_graph(Block& block, const Context& context, Saved& keep) {
    const at::AutoGradMode grad_mode(true);
    keep.entry = keep.input.view_as(keep.input);
    keep.output = block.forward(keep.entry, asking(context, keep));
  }

  static Context asking(const Context& context, Saved& keep) {
    Context with_attention = context;
    if (keep.wants_attention) with_attention.attended_BTD = &keep.attention;
    return with_attention;
  }

  void say_what_is_not_kept(const std::vector<ops::KeptCore>& cores) {
    if (said_ || (!cores.empty() && std::ranges::all_of(cores, &ops::KeptCore::is_kept))) return;
    said_ = true;
    core::log_info(
        "recompute selective: the attention of some blocks runs without a backward of its own "
        "(written out, with dropout, or a kind the library lacks) and is computed again as well");
  }

  EngineOptions options_;
  bool said_ = false;
};

}  // namespace

EngineOptions engine_options(const config::Train& train) {
  EngineOptions options;
  options.every = static_cast<int>(train.recompute_every);
  if (train.recompute == "block") options.recompute = Recompute::block;
  if (train.recompute == "every_k") options.recompute = Recompute::every_k;
  if (train.recompute == "selective") options.recompute = Recompute::selective;
  return options;
}

std::string recompute_words(const EngineOptions& options) {
  std::string words;
  if (options.recompute == Recompute::block) words = ", blocks recomputed";
  if (options.recompute == Recompute::every_k)
    words = fmt::format(", one of {} blocks recomputed", options.every);
  if (options.recompute == Recompute::selective)
    words = ", blocks recomputed but for attention's core";
  return options.store ? words + ", what they keep in host memory" : words;
}

std::unique_ptr<BlockEngine> block_engine(const config::Train& train,
                                          const EngineOptions& options) {
  if (train.engine == "autograd") return autograd_engine(options);
  return fused_engine(options, fused_options(train));
}

std::unique_ptr<BlockEngine> autograd_engine(const EngineOptions& options) {
  return std::make_unique<AutogradEngine>(options);
}

}  // namespace vitrail::nn
