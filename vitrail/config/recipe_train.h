#pragma once
/// The recipe's section `train`: how weights are found. See recipe.h for how fields are described.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "vitrail/config/choice.h"

namespace vitrail::config {

struct Optimizer {
  Choice kind{"adamw", {"adamw", "sgd"}};
  double lr = 1e-3;
  std::vector<double> betas{0.9, 0.999};
  double eps = 1e-8;
  double weight_decay = 0.05;
  double momentum = 0.9;
  std::optional<double> layer_decay;
  Choice state{"fp32", {"fp32", "bf16", "fp8"}};

  template <class Self, class Visitor>
  static void fields(Self& self, Visitor& visit) {
    visit("kind", self.kind, "update rule");
    visit("lr", self.lr, "base learning rate, at the end of the warm-up");
    visit("betas", self.betas, "adamw: decay of the two moments");
    visit("eps", self.eps, "adamw: added to the root of the second moment");
    visit("weight_decay", self.weight_decay,
          "decoupled for adamw, added to the gradient for sgd; not on biases, norms, tokens and "
          "position tables");
    visit("momentum", self.momentum, "sgd: momentum");
    visit("layer_decay", self.layer_decay,
          "learning rate of the embedding and of each block as a power of this factor, 1 at the "
          "head; null = the same everywhere");
    visit(
        "state", self.state,
        "adamw: type in which the moments are kept; bf16 and fp8 (with a scale for every 128) are "
        "rounded at random, master weights stay fp32");
  }
  bool operator==(const Optimizer&) const = default;
};

struct Schedule {
  Choice kind{"cosine", {"cosine", "linear", "constant"}};
  int64_t warmup_steps = 0;
  double warmup_start_lr = 0.0;
  double min_lr = 0.0;
  Choice warmup{"linear", {"linear", "log"}};
  Choice counting{"vitrail", {"vitrail", "deepspeed"}};
  std::optional<int64_t> total_steps;

  template <class Self, class Visitor>
  static void fields(Self& self, Visitor& visit) {
    visit("kind", self.kind, "shape after the warm-up; stays at its last value past the end");
    visit("warmup_steps", self.warmup_steps, "steps of the rise from warmup_start_lr to lr");
    visit("warmup_start_lr", self.warmup_start_lr, "learning rate of step 0 with a warm-up");
    visit("min_lr", self.min_lr, "learning rate at the end");
    visit("warmup", self.warmup,
          "rise of the warm-up: in proportion to the step, or to its logarithm as DeepSpeed's "
          "WarmupLR");
    visit(
        "counting", self.counting,
        "which step a value belongs to: deepspeed gives the values of WarmupLR, WarmupDecayLR and "
        "WarmupCosineLR step by step");
    visit("total_steps", self.total_steps,
          "steps from the first to the last value; null = those of the run");
  }
  bool operator==(const Schedule&) const = default;
};

/// fp16: how the loss is scaled so that small gradients do not vanish.
struct LossScale {
  double fixed = 0.0;
  int64_t initial_power = 16;
  int64_t window = 1000;
  int64_t hysteresis = 2;
  bool consecutive_hysteresis = false;
  double minimum = 1.0;

  template <class Self, class Visitor>
  static void fields(Self& self, Visitor& visit) {
    visit("fixed", self.fixed, "factor that never changes; 0 = found while training");
    visit("initial_power", self.initial_power, "first factor, as a power of two");
    visit("window", self.window, "steps without an overflow after which the factor doubles");
    visit("hysteresis", self.hysteresis, "overflows that are let pass before the factor is halved");
    visit("consecutive_hysteresis", self.consecutive_hysteresis,
          "every step without an overflow gives the hysteresis back; false: only a doubling does");
    visit("minimum", self.minimum, "an overflow at this factor ends the run (exit code 6)");
  }
  bool operator==(const LossScale&) const = default;
};

/// Decorrelated attention: a loss on what the heads of a block have in common.
struct Decatt {
  double weight = 0.0;
  std::vector<int64_t> blocks;
  Choice form{"heads", {"heads", "token_thirds"}};

  template <class Self, class Visitor>
  static void fields(Self& self, Visitor& visit) {
    visit("weight", self.weight,
          "factor of the sum of squared correlations between heads, added to the loss; 0 = none");
    visit("blocks", self.blocks,
          "blocks whose attention is taken, from 0; empty = the first three");
    visit("form", self.form,
          "heads: off-diagonal, on each head's attention output; token_thirds: as first published "
          "in code, on "
          "pieces of the token sequence of the last of the blocks, diagonal left in");
  }
  bool operator==(const Decatt&) const = default;
};

struct Train {
  std::optional<int64_t> epochs;
  std::optional<int64_t> steps;
  int64_t micro_batches = 1;
  Choice precision{"fp32", {"fp32", "bf16", "fp16", "fp8"}};
  LossScale loss_scale;
  Choice fp8_weight_gradients{"bf16", {"bf16", "fp8"}};
  Choice engine{"auto", {"auto", "fused", "autograd"}};
  Choice attention{"sdpa", {"sdpa", "plain"}};
  Choice attention_kernel{"auto", {"auto", "cudnn", "short", "narrow", "aten"}};
  double tune_seconds = 2.0;
  std::string tuning_table;
  Optimizer optimizer;
  Schedule schedule;
  double clip_grad_norm = 0.0;
  std::optional<double> ema_decay;
  Decatt decatt;
  Choice recompute{"none", {"none", "cheap", "block", "every_k", "selective"}};
  int64_t recompute_every = 2;
  bool offload_activations = false;
  Choice cuda_graph{"auto", {"auto", "off"}};
  Choice on_non_finite{"stop", {"stop", "skip"}};

  template <class Self, class Visitor>
  static void fields(Self& self, Visitor& visit) {
    visit("epochs", self.epochs, "passes over the data; give this or steps");
    visit("steps", self.steps, "optimizer steps; give this or epochs");
    visit("micro_batches", self.micro_batches,
          "pieces of a rank's batch whose gradients are added before one update");
    visit("precision", self.precision,
          "of weights and activations in the model; master weights, loss and norms' statistics are "
          "fp32; fp8: the products of the blocks, the rest in bf16 (fused engine on a GPU)");
    visit("loss_scale", self.loss_scale, "fp16: factor of the loss");
    visit("fp8_weight_gradients", self.fp8_weight_gradients,
          "precision fp8: type of the products that make weight gradients");
    visit("engine", self.engine,
          "how blocks run: fused has forward and backward of its own in few passes over memory, "
          "autograd is the reference; auto takes the fastest that supports the options");
    visit("attention", self.attention,
          "library attention (scaled dot product) or the written-out formula");
    visit("attention_kernel", self.attention_kernel,
          "fused engine on a GPU: whose attention runs; auto times cuDNN's and short at the start. "
          "short: at most 320 tokens, narrow: head widths 16 and 32, by this word only");
    visit("tune_seconds", self.tune_seconds,
          "fused engine on a GPU: time for choosing the algorithm of each matrix product at the "
          "start; 0 = the "
          "library's own choice");
    visit("tuning_table", self.tuning_table,
          "fused engine on a GPU: file that keeps the choices for the next start; empty = in the "
          "run's folder");
    visit("optimizer", self.optimizer, "update rule");
    visit("schedule", self.schedule, "learning rate over steps");
    visit("clip_grad_norm", self.clip_grad_norm, "largest global gradient norm; 0 = no clipping");
    visit(
        "ema_decay", self.ema_decay,
        "decay of an exponential moving average of the weights, used for evaluation; null = none");
    visit("decatt", self.decatt, "loss that makes the heads of a block differ");
    visit("cuda_graph", self.cuda_graph,
          "on a GPU, repeat the step as one launch where one rank trains and batches keep their "
          "shapes; off: launch "
          "every kernel every step");
    visit("recompute", self.recompute,
          "compute blocks again in backward and keep only their inputs: of every block, of every "
          "recompute_every-th, or of every block but with the results of attention kept "
          "(selective); cheap: only "
          "what takes no matrix product (norms, activations; fused engine)");
    visit("recompute_every", self.recompute_every,
          "recompute every_k: the first of each this many blocks is computed again");
    visit("offload_activations", self.offload_activations,
          "with recompute, keep what blocks save in host memory between forward and backward");
    visit("on_non_finite", self.on_non_finite,
          "a NaN or infinite gradient stops the run (exit code 6) or skips the update");
  }
  bool operator==(const Train&) const = default;
};

}  // namespace vitrail::config
