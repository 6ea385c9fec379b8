#include "vitrail/nn/fused_engine.h"

#include <optional>
#include <set>
#include <utility>
#include <vector>

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/zeros_like.h>
#include <fmt/format.h>

#include "vitrail/config/recipe.h"
#include "vitrail/core/error.h"
#include "vitrail/core/log.h"
#include "vitrail/kernels/residual_norm.h"
#include "vitrail/nn/fused_block.h"
#include "vitrail/nn/fused_fp8.h"
#include "vitrail/ops/on_device.h"

namespace vitrail::nn {
namespace {

using fused::Gradient;
using fused::Kept;
using fused::Pass;

using WeakTensor = c10::weak_intrusive_ptr<at::TensorImpl, at::UndefinedTensorImpl>;

/// What Saved::more holds.
struct State {
  bool is_fused = true;
  Saved inner;  // of the autograd engine, where that runs the block
  Kept kept;
  std::unique_ptr<StoredTensors> input, results;  // in the hands of a store; null: in `kept`
};

/// Kernels read rows 8 values at a time.
constexpr int64_t kWidthUnit = 8;
constexpr int64_t kMostHeadWidth = 256;

std::string kernel_reason(const Block& block, const at::Tensor& x_BLD) {
  if (x_BLD.scalar_type() != at::kBFloat16) return "train.precision (kernels take bf16)";
  const BlockOptions& options = block.options();
  const int64_t head_width = options.width / options.num_heads;
  if (options.width % kWidthUnit != 0 || options.width > kernels::kMostNormWidth)
    return "model.embed_dim (kernels take multiples of 8)";
  if (options.mlp_hidden % kWidthUnit != 0)
    return "model.mlp_hidden_dim (kernels take multiples of 8)";
  if (head_width % kWidthUnit != 0 || head_width > kMostHeadWidth)
    return "model.num_heads (kernels take head widths that are multiples of 8)";
  return "";
}

/// Which option a block cannot run fused with; empty: it can.
std::string reason_against(Block& block, const at::Tensor& x_BLD) {
  Attention& attention = block.attention();
  Mlp& mlp = block.mlp();
  const bool is_divided = attention.has_enter() || mlp.has_enter() || !attention.qkv().is_plain() ||
                          !attention.proj().is_plain() || !mlp.fc2().is_plain();
  if (is_divided) return "parallel.tensor";
  const at::ScalarType type = x_BLD.scalar_type();
  if (attention.qkv().weight().scalar_type() != type)
    return "weights of another type than the tokens";
  if (x_BLD.is_cuda()) return kernel_reason(block, x_BLD);
  const bool is_known = type == at::kFloat || type == at::kDouble || type == at::kBFloat16;
  return x_BLD.is_cpu() && is_known ? "" : "the device or the type of the tokens";
}

/// Recompute selective keeps what attention's core made.
void drop_all_but_core(Kept& kept) {
  Kept rest;
  rest.x_BLD = std::move(kept.x_BLD);
  rest.core = std::move(kept.core);
  rest.cores = std::move(kept.cores);
  kept = std::move(rest);
}

void drop_cheap(const Block& block, Kept& kept) {
  for (at::Tensor* cheap : {&kept.norm1.y_BLD, &kept.norm2.y_BLD, &kept.hidden_BLH}) cheap->reset();
  kept.norm1_codes = kept.norm2_codes = kept.hidden_codes = {};
  // Turned alone they are qkv itself. A local core's leaves hold them anyway.
  if (block.options().qk_norm && !kept.local.out_BNLE.defined()) kept.heads = {};
}

class Engine : public FusedEngine {
 public:
  Engine(const EngineOptions& options, const FusedOptions& fused)
      : options_(options),
        fused_(fused),
        ran_fused_(!fused.only_with_kernels),
        autograd_(autograd_engine(options)) {}

  std::string name() const override {
    return (ran_fused_ ? "fused" : "autograd") + recompute_words(options_);
  }

  at::Tensor forward(Block& block, const at::Tensor& x_BLD, const Context& context, int i,
                     Saved& keep) override {
    const auto state = std::make_shared<State>();
    keep.more = state;
    const std::string reason = reason_against(block, x_BLD);
    const bool is_left_out = fused_.only_with_kernels && !x_BLD.is_cuda();
    state->is_fused = ran_fused_ = reason.empty() && !is_left_out;
    if (!state->is_fused) {
      if (!fused_.only_with_kernels)
        say(fmt::format("fused engine: blocks run under autograd because of {}", reason));
      state->inner.wants_attention = keep.wants_attention;
      at::Tensor y_BLD = autograd_->forward(block, x_BLD, context, i, state->inner);
      keep.attention = state->inner.attention;
      return y_BLD;
    }
    const at::NoGradGuard no_grad;
    state->kept.x_BLD = x_BLD.detach().contiguous();
    if (recomputes(i)) return forward_once(block, context, *state, keep);
    const Pass pass{block, context, options_of(block)};
    at::Tensor y_BLD = run(pass, state->kept);
    if (keep.wants_attention) keep.attention = state->kept.core.out_BLF;
    if (!fused_.keeps_cheap) drop_cheap(block, state->kept);
    note(i, state->kept);
    return y_BLD;
  }

  at::Tensor backward(Block& block, const at::Tensor& dy_BLD, const Context& context, int i,
                      Saved& kept) override {
    const auto state = std::static_pointer_cast<State>(kept.more);
    if (!state->is_fused) {
      state->inner.input_gradient = kept.input_gradient;
      state->inner.attention_gradient = kept.attention_gradient;
      return autograd_->backward(block, dy_BLD, context, i, state->inner);
    }
    if (!dy_BLD.defined() && !kept.attention_gradient.defined()) return kept.input_gradient;
    const at::NoGradGuard no_grad;
    const Pass pass{block, context, options_of(block)};
    if (recomputes(i)) recompute(pass, *state);
    state->kept.dattention_BLF = kept.attention_gradient;
    const Gradient dy =
        with_known_sums(dy_BLD.defined() ? dy_BLD : at::zeros_like(state->kept.x_BLD));
    const at::Tensor dnorm2_BLD = fused::mlp_backward(pass, dy, state->kept);
    Gradient dx = fused::attention_backward(pass, dy.values_BLD, dnorm2_BLD, state->kept);
    if (kept.input_gradient.defined()) dx = {dx.values_BLD + kept.input_gradient, {}};
    handed_ = {WeakTensor(dx.values_BLD.getIntrusivePtr()), dx.sums_D};
    return dx.values_BLD;
  }

  std::string describe() const override;

 private:
  bool recomputes(int i) const {
    if (options_.recompute == Recompute::every_k) return i % options_.every == 0;
    return options_.recompute != Recompute::none;
  }

  FusedOptions options_of(Block& block) {
    FusedOptions options = fused_;
    if (options.products == Products::bf16) return options;
    const std::string reason = fused::codes_reason(block);
    if (reason.empty()) return options;
    say(fmt::format("fused engine: products of blocks run in bf16 because of {}", reason));
    options.products = Products::bf16;
    return options;
  }

  at::Tensor run(const Pass& pass, Kept& kept) {
    fused::attend(pass, kept);
    const std::string reason = fused::local_reason(pass, kept.heads);
    if (!reason.empty())
      say(fmt::format("fused engine: attention's core runs under autograd because of {}", reason));
    fused::close_attention(pass, kept);
    fused::open_mlp(pass, kept);
    return fused::close_mlp(pass, kept);
  }

  at::Tensor forward_once(Block& block, const Context& context, State& state, Saved& keep) {
    Kept& kept = state.kept;
    // Before the block's own work, so that moving the input away runs beside it.
    if (options_.store) state.input = options_.store->keep({kept.x_BLD});
    const Pass pass{block, context, options_of(block), /*keeps_graph=*/false};
    const bool is_selective = options_.recompute == Recompute::selective;
    at::Tensor y_BLD;
    {
      std::optional<ops::KeepCores> scope;
      if (is_selective) scope.emplace(kept.cores);
      y_BLD = run(pass, kept);
    }
    if (keep.wants_attention) keep.attention = kept.core.out_BLF;
    drop_all_but_core(kept);
    // A core under autograd has its results in `cores`.
    if (!is_selective || !kept.core.lse.defined()) kept.core = {};
    if (!is_selective) kept.cores.clear();
    note(-1, kept);
    if (options_.store) hand_over(state);
    return y_BLD;
  }

  void hand_over(State& state) {
    state.kept.x_BLD.reset();
    std::vector<at::Tensor> results;
    for_each_result(state.kept,
                    [&](at::Tensor& x) { results.push_back(std::exchange(x, at::Tensor())); });
    if (!results.empty()) state.results = options_.store->keep(std::move(results));
  }

  /// What recompute selective keeps besides the input.
  template <class Visit>
  static void for_each_result(Kept& kept, Visit&& visit) {
    if (kept.core.lse.defined() || kept.is_core_away) {
      visit(kept.core.out_BLF);
      visit(kept.core.lse);
      kept.is_core_away = !kept.is_core_away;
    }
    for (ops::KeptCore& core : kept.cores) {
      if (core.more.empty()) continue;  // not kept
      visit(core.out);
      visit(core.more[0]);
    }
  }

  void recompute(const Pass& pass, State& state) {
    Kept& kept = state.kept;
    if (state.results) {
      const std::vector<at::Tensor> results = std::exchange(state.results, {})->restore();
      size_t next = 0;
      for_each_result(kept, [&](at::Tensor& x) { x = results[next++]; });
    }
    if (state.input) kept.x_BLD = std::exchange(state.input, {})->restore()[0];
    fused::attend(pass, kept);
    fused::close_attention(pass, kept);
    fused::open_mlp(pass, kept);
    // Only LayerScale's gradient asks for what the MLP made.
    if (pass.block.branch_gamma(1).defined())
      fused::close_mlp(pass, kept);
    else
      kept.scales[1] = fused::scales_of(pass, kept.x_BLD, 1);
  }

  /// What the block above handed down comes with its column sums.
  Gradient with_known_sums(const at::Tensor& dy_BLD) {
    const Handed handed = std::exchange(handed_, {});
    const bool is_same = handed.values.lock().get() == dy_BLD.unsafeGetTensorImpl();
    if (is_same && dy_BLD.is_contiguous()) return {dy_BLD, handed.sums_D};
    return {dy_BLD.contiguous(), {}};
  }

  void say(const std::string& line) {
    if (said_.insert(line).second) core::log_info_line(line);
  }

  /// Remembers what a block keeps: the last one of the recomputed (-1) and of the others.
  void note(int i, Kept& kept);

  struct Part {
    std::string name;
    int64_t bytes = 0;
  };
  /// What the last backward returned, most often what the next one gets; its memory is not held.
  struct Handed {
    WeakTensor values{c10::intrusive_ptr<at::TensorImpl, at::UndefinedTensorImpl>()};
    at::Tensor sums_D;
  };

  EngineOptions options_;
  FusedOptions fused_;
  bool ran_fused_;
  std::unique_ptr<BlockEngine> autograd_;
  std::set<std::string> said_;
  Handed handed_;
  std::vector<Part> kept_parts_, recomputed_parts_;
};

void Engine::note(int i, Kept& kept) {
  std::vector<Part>& parts = i < 0 ? recomputed_parts_ : kept_parts_;
  parts.clear();
  fused::for_each_large(kept, [&](const char* name, const at::Tensor& x) {
    if (x.defined()) parts.push_back({name, static_cast<int64_t>(x.nbytes())});
  });
}

std::string Engine::describe() const {
  constexpr double kMiB = 1 << 20;
  const auto line = [&](const char* which, const std::vector<Part>& parts) -> std::string {
    if (parts.empty()) return "";
    std::string text;
    int64_t sum = 0;
    for (const Part& part : parts) {
      text += fmt::format("{}{} {:.2f}", text.empty() ? "" : ", ", part.name, part.bytes / kMiB);
      sum += part.bytes;
    }
    return fmt::format("{} keeps {:.2f} MiB: {}\n", which, sum / kMiB, text);
  };
  return line("a block", kept_parts_) + line("a recomputed block", recomputed_parts_);
}

}  // namespace

FusedOptions fused_options(const config::Train& train) {
  const bool is_fp8 = train.precision == "fp8";
  const Products of_fp8 =
      train.fp8_weight_gradients == "fp8" ? Products::fp8_gradients : Products::fp8;
  return {.attention = ops::attention_kind(train.attention_kernel.value),
          .products = is_fp8 ? of_fp8 : Products::bf16,
          .only_with_kernels = train.engine == "auto" && !is_fp8};
}

std::unique_ptr<FusedEngine> fused_engine(const EngineOptions& options, const FusedOptions& fused) {
  VT_CHECK(options.every >= 1, "[engine] recompute_every must be 1 or more but got {}",
           options.every);
  return std::make_unique<Engine>(options, fused);
}

}  // namespace vitrail::nn
