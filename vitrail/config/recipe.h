#pragma once
/// The recipe: typed sections with their defaults. Each field is described once, in `fields`;
/// reading, printing, checking of names and docs/formats/recipe.md come from that line.
///
/// A visitor is called as visit("key", field, "one-line description"). Field types: bool, int64_t,
/// double, string, Choice (a string out of a fixed list), vector of int64_t / double / string,
/// optional of any of these, a section, a vector of sections.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "vitrail/config/choice.h"
#include "vitrail/config/recipe_data.h"
#include "vitrail/config/recipe_model.h"

namespace vitrail::config {

struct Run {
  std::string name = "run";
  std::string output = "runs";
  int64_t seed = 0;
  bool deterministic = false;
  Choice device{"auto", {"auto", "cpu", "cuda"}};
  int64_t threads = 0;

  template <class Self, class Visitor>
  static void fields(Self& self, Visitor& visit) {
    visit("name", self.name, "name of the run; its folder is output/name");
    visit("output", self.output, "folder that holds run folders");
    visit("seed", self.seed, "every random number is a function of this seed and its place");
    visit("deterministic", self.deterministic,
          "only kernels whose result does not depend on timing");
    visit("device", self.device, "where tensors live; auto takes a GPU when one is visible");
    visit("threads", self.threads,
          "CPU threads for tensor operations per rank; 0 = cores / local ranks");
  }
  bool operator==(const Run&) const = default;
};

struct Optimizer {
  Choice kind{"adamw", {"adamw", "sgd"}};
  double lr = 1e-3;
  std::vector<double> betas{0.9, 0.999};
  double eps = 1e-8;
  double weight_decay = 0.05;
  double momentum = 0.9;
  std::optional<double> layer_decay;

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
  }
  bool operator==(const Optimizer&) const = default;
};

struct Schedule {
  Choice kind{"cosine", {"cosine", "linear", "constant"}};
  int64_t warmup_steps = 0;
  double warmup_start_lr = 0.0;
  double min_lr = 0.0;

  template <class Self, class Visitor>
  static void fields(Self& self, Visitor& visit) {
    visit("kind", self.kind, "shape after the warm-up; stays at its last value past the end");
    visit("warmup_steps", self.warmup_steps, "steps of linear rise from warmup_start_lr to lr");
    visit("warmup_start_lr", self.warmup_start_lr, "learning rate of step 0 with a warm-up");
    visit("min_lr", self.min_lr, "learning rate at the end");
  }
  bool operator==(const Schedule&) const = default;
};

struct Train {
  std::optional<int64_t> epochs;
  std::optional<int64_t> steps;
  int64_t micro_batches = 1;
  Choice precision{"fp32", {"fp32", "bf16"}};
  Choice engine{"auto", {"auto", "fused", "autograd"}};
  Choice attention{"sdpa", {"sdpa", "plain"}};
  Choice attention_kernel{"auto", {"auto", "cudnn", "short", "narrow", "aten"}};
  double tune_seconds = 2.0;
  std::string tuning_table;
  Optimizer optimizer;
  Schedule schedule;
  double clip_grad_norm = 0.0;
  std::optional<double> ema_decay;
  Choice recompute{"none", {"none", "block", "every_k", "selective"}};
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
          "fp32");
    visit("engine", self.engine,
          "how blocks run: fused has forward and backward of its own in few passes over memory, "
          "autograd is the reference; auto takes the fastest that supports the options");
    visit("attention", self.attention,
          "library attention (scaled dot product) or the written-out formula");
    visit("attention_kernel", self.attention_kernel,
          "fused engine on a GPU: whose attention runs; auto times those that can at the start. "
          "short: at most 320 "
          "tokens, narrow: head widths 16 and 32");
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
    visit("cuda_graph", self.cuda_graph,
          "on a GPU, repeat the step as one launch where one rank trains and batches keep their "
          "shapes; off: launch "
          "every kernel every step");
    visit(
        "recompute", self.recompute,
        "compute blocks again in backward and keep only their inputs: of every block, of every "
        "recompute_every-th, or of every block but with the results of attention kept (selective)");
    visit("recompute_every", self.recompute_every,
          "recompute every_k: the first of each this many blocks is computed again");
    visit("offload_activations", self.offload_activations,
          "with recompute, keep what blocks save in host memory between forward and backward");
    visit("on_non_finite", self.on_non_finite,
          "a NaN or infinite gradient stops the run (exit code 6) or skips the update");
  }
  bool operator==(const Train&) const = default;
};

/// Axes of the mesh and how model, gradients and optimizer are laid over them (docs/parallel.md).
struct Parallel {
  Choice strategy{"ddp", {"none", "ddp", "zero1", "zero2", "zero3", "hybrid"}};
  int64_t replicate = -1;
  std::optional<int64_t> shard;
  int64_t pipeline = 1;
  int64_t sequence = 1;
  int64_t tensor = 1;
  // sharding
  double bucket_mib = 25.0;
  Choice prefetch{"pre", {"none", "post", "pre"}};
  int64_t prefetch_depth = 1;
  bool limit_all_gathers = true;
  Choice reduce_precision{"fp32", {"fp32", "bf16"}};
  int64_t persist_below = 0;
  Choice shard_optimizer{"group", {"group", "all"}};
  Choice offload{"none", {"none", "optimizer", "parameters", "nvme"}};
  std::string offload_folder;
  // tensor
  bool split_norms = false;
  int64_t tensor_chunks = 1;
  bool split_channels = false;
  // sequence
  std::optional<int64_t> ulysses;
  // pipeline
  Choice pipeline_schedule{"1f1b", {"1f1b", "gpipe", "interleaved"}};
  int64_t pipeline_parts = 1;

  template <class Self, class Visitor>
  static void fields(Self& self, Visitor& visit) {
    visit("strategy", self.strategy,
          "what data ranks share: none (one rank), ddp (nothing: each holds the model), zero1 "
          "(optimizer state), zero2 (gradients too), zero3 (weights too), hybrid (zero3 inside "
          "groups of `shard` ranks)");
    visit("replicate", self.replicate,
          "mesh axis: ranks that hold the same; -1 = all ranks the other axes leave");
    visit("shard", self.shard,
          "mesh axis: ranks that share what the strategy divides; -1 = all ranks the other axes "
          "leave; null = that for zero1 to zero3, the ranks of one host for hybrid, else 1");
    visit("pipeline", self.pipeline, "mesh axis: stages of consecutive blocks");
    visit("sequence", self.sequence, "mesh axis: ranks that share the tokens of a sample");
    visit("tensor", self.tensor,
          "mesh axis: ranks that share heads and hidden units of every block");
    visit("bucket_mib", self.bucket_mib,
          "ddp: gradients are reduced in pieces of at least this size");
    visit("prefetch", self.prefetch,
          "zero2, zero3: when backward asks for the weights of the next block: before computing "
          "the present one (pre), after (post), or when they are needed (none)");
    visit("prefetch_depth", self.prefetch_depth,
          "blocks whose weights are asked for ahead of use; 0 = none in forward");
    visit("limit_all_gathers", self.limit_all_gathers,
          "zero3: hold the weights of no more than prefetch_depth + 1 blocks at once; false: ask "
          "for all as early as they can come");
    visit("reduce_precision", self.reduce_precision, "type in which gradients cross ranks");
    visit("persist_below", self.persist_below,
          "zero3: units with fewer elements stay whole between uses");
    visit("shard_optimizer", self.shard_optimizer,
          "all: optimizer state and master weights are divided over replicate x shard, weights "
          "over shard only");
    visit("offload", self.offload,
          "to host memory: optimizer state and its update, the weights between uses too, or the "
          "optimizer state on to files in offload_folder (nvme)");
    visit("offload_folder", self.offload_folder, "offload nvme: folder on a fast local disk");
    visit("split_norms", self.split_norms,
          "tensor: norms and residuals run on a share of the tokens (all-gather and reduce-scatter "
          "take the place of all-reduce)");
    visit("tensor_chunks", self.tensor_chunks,
          "tensor: products are cut into this many pieces whose communication overlaps with the "
          "next; 1 = whole");
    visit("split_channels", self.split_channels,
          "tensor: each rank embeds and aggregates its share of model.variables (D-CHAG); needs "
          "model.aggregation.groups to be a multiple of tensor");
    visit("ulysses", self.ulysses,
          "sequence: how many of its ranks exchange heads; rings of the rest pass keys and values "
          "on; null = as many as the heads allow, 1 = one ring");
    visit("pipeline_schedule", self.pipeline_schedule,
          "order of micro-batches: one forward one backward, the same over pipeline_parts stages "
          "a rank, or all forward then all backward");
    visit("pipeline_parts", self.pipeline_parts, "interleaved: stages of each rank");
  }
  bool operator==(const Parallel&) const = default;
};

struct Checkpoint {
  int64_t every_steps = 0;
  int64_t keep = 3;
  bool async = true;

  template <class Self, class Visitor>
  static void fields(Self& self, Visitor& visit) {
    visit("every_steps", self.every_steps, "steps between checkpoints; 0 = only at the end");
    visit("keep", self.keep, "newest checkpoints kept; 0 = all");
    visit("async", self.async, "write in the background while training goes on");
  }
  bool operator==(const Checkpoint&) const = default;
};

struct Eval {
  int64_t every_epochs = 1;
  int64_t every_steps = 0;
  int64_t batch_size = 0;
  std::vector<Source> sources;

  template <class Self, class Visitor>
  static void fields(Self& self, Visitor& visit) {
    visit("every_epochs", self.every_epochs,
          "epochs between evaluations; the last step always evaluates; 0 = only then");
    visit("every_steps", self.every_steps, "steps between evaluations; 0 = by epochs");
    visit("batch_size", self.batch_size, "global batch of an evaluation; 0 = data.batch_size");
    visit("sources", self.sources, "held-out data");
  }
  bool operator==(const Eval&) const = default;
};

struct Logging {
  int64_t every_steps = 10;
  bool tensorboard = true;
  bool html = true;

  template <class Self, class Visitor>
  static void fields(Self& self, Visitor& visit) {
    visit("every_steps", self.every_steps, "steps between log lines");
    visit("tensorboard", self.tensorboard, "write TensorBoard events");
    visit("html", self.html, "write report.html at the end");
  }
  bool operator==(const Logging&) const = default;
};

struct Recipe {
  Run run;
  Model model;
  Data data;
  Train train;
  Parallel parallel;
  Checkpoint checkpoint;
  Eval eval;
  Logging logging;

  template <class Self, class Visitor>
  static void fields(Self& self, Visitor& visit) {
    visit("run", self.run, "name, place, seed, device");
    visit("model", self.model, "architecture");
    visit("data", self.data, "training data");
    visit("train", self.train, "optimisation");
    visit("parallel", self.parallel, "layout over ranks");
    visit("checkpoint", self.checkpoint, "saving and resuming");
    visit("eval", self.eval, "held-out evaluation");
    visit("logging", self.logging, "what is written while training");
  }
  bool operator==(const Recipe&) const = default;
};

/// Where a value came from, for `check` and for messages: "default", "preset vit_tiny",
/// "recipe.yaml:12:9", "command line".
struct Origin {
  std::string key;
  std::string text;
};

struct ResolvedRecipe {
  Recipe recipe;
  std::vector<Origin> origins;  // in the order of the fields
};

/// Reads a recipe file, applies `overrides` ("key.path=value", "data.sources[0].root=x") and the
/// preset, validates. throws ConfigError naming every problem, one a line, with file:line:column.
ResolvedRecipe load_recipe(const std::string& path, const std::vector<std::string>& overrides);
/// The same from text; `name` stands for the file in messages.
ResolvedRecipe parse_recipe(const std::string& yaml, const std::string& name,
                            const std::vector<std::string>& overrides);

/// Every rule that spans fields (divisibility, ranges, needed keys); one message a problem, empty
/// if none.
std::vector<std::string> problems(const Recipe& recipe);

/// throws ConfigError unless the recipe holds what training needs: a source, epochs or steps, an
/// objective. Reading checks this for recipes with a source, epochs or steps; one without any of
/// them may describe a model alone.
void require_training(const Recipe& recipe);

/// YAML that load_recipe reads back to the same recipe. With origins, each line ends in a comment
/// saying where from.
std::string to_yaml(const Recipe& recipe);
std::string to_yaml(const ResolvedRecipe& resolved);
/// The reference page docs/formats/recipe.md.
std::string recipe_reference_markdown();

}  // namespace vitrail::config
