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
#include "vitrail/config/recipe_train.h"

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
