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

namespace vitrail::config {

/// A word out of a fixed list; reading any other word is an error that prints the list and the
/// nearest one.
struct Choice {
  std::string value;
  std::vector<std::string> allowed;
  Choice(std::string initial, std::vector<std::string> words)
      : value(std::move(initial)), allowed(std::move(words)) {}
  bool operator==(const char* word) const { return value == word; }
  bool operator==(const Choice& other) const = default;
};

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

struct Weights {
  std::string path;
  Choice from{"auto", {"auto", "vitrail", "timm", "mae", "hf"}};
  bool strict = true;

  template <class Self, class Visitor>
  static void fields(Self& self, Visitor& visit) {
    visit("path", self.path, "safetensors file to start from; empty = fresh initialisation");
    visit("from", self.from, "naming scheme of the file");
    visit("strict", self.strict,
          "every parameter must be found with its shape; otherwise what matched is reported");
  }
  bool operator==(const Weights&) const = default;
};

struct Model {
  Choice kind{"vit", {"vit", "mae"}};
  std::string preset;
  std::vector<int64_t> image_size{224, 224};
  int64_t patch_size = 16;
  int64_t in_channels = 3;
  int64_t num_classes = 1000;
  int64_t embed_dim = 768;
  int64_t depth = 12;
  int64_t num_heads = 12;
  double mlp_ratio = 4.0;
  // blocks
  bool qkv_bias = true;
  bool qk_norm = false;
  std::optional<double> layer_scale;
  Choice norm{"layernorm", {"layernorm", "rmsnorm"}};
  double norm_eps = 1e-6;
  Choice mlp{"gelu", {"gelu", "swiglu"}};
  std::optional<int64_t> mlp_hidden_dim;
  double drop_path_rate = 0.0;
  double attn_drop_rate = 0.0;
  double proj_drop_rate = 0.0;
  // ends
  bool class_token = true;
  int64_t register_tokens = 0;
  Choice pool{"token", {"token", "avg", "none"}};
  bool final_norm = true;
  Choice pos_embed{"learned", {"learned", "sincos", "none"}};
  double pos_drop_rate = 0.0;
  double drop_rate = 0.0;
  bool patch_bias = true;
  // mae
  double mask_ratio = 0.75;
  Choice decoder{"transformer", {"transformer", "linear"}};
  int64_t decoder_embed_dim = 512;
  int64_t decoder_depth = 8;
  int64_t decoder_num_heads = 16;
  double decoder_mlp_ratio = 4.0;
  bool norm_pix_loss = false;
  Choice loss{"masked_mse", {"masked_mse", "mse"}};
  // training objective of the classifier
  double label_smoothing = 0.0;
  Weights weights;

  /// Tokens of the patch grid, class and register tokens not counted.
  int64_t num_patches() const;
  /// patch_size^k * in_channels.
  int64_t patch_values() const;

  template <class Self, class Visitor>
  static void fields(Self& self, Visitor& visit) {
    visit("kind", self.kind, "model family");
    visit("preset", self.preset, "named sizes, listed below; other keys override them one by one");
    visit("image_size", self.image_size, "[H, W] or [D, H, W]; the length chooses 2-D or 3-D");
    visit("patch_size", self.patch_size, "patch edge P; must divide every side");
    visit("in_channels", self.in_channels, "image channels C");
    visit("num_classes", self.num_classes, "classes of the head; 0 = no head");
    visit("embed_dim", self.embed_dim, "token width D");
    visit("depth", self.depth, "transformer blocks");
    visit("num_heads", self.num_heads, "attention heads N; must divide embed_dim");
    visit("mlp_ratio", self.mlp_ratio, "MLP hidden width / embed_dim");
    visit("qkv_bias", self.qkv_bias, "bias of the q, k, v projection");
    visit("qk_norm", self.qk_norm, "normalise q and k over the head dimension");
    visit("layer_scale", self.layer_scale,
          "initial LayerScale value on both branches; null = none");
    visit("norm", self.norm, "normalisation layer");
    visit("norm_eps", self.norm_eps, "epsilon of the normalisation");
    visit("mlp", self.mlp, "MLP form; gelu is the exact (erf) GELU");
    visit("mlp_hidden_dim", self.mlp_hidden_dim, "MLP hidden width; null = embed_dim * mlp_ratio");
    visit("drop_path_rate", self.drop_path_rate,
          "stochastic depth of the last block; linear over the blocks");
    visit("attn_drop_rate", self.attn_drop_rate, "dropout of attention probabilities");
    visit("proj_drop_rate", self.proj_drop_rate,
          "dropout after the attention projection and in the MLP");
    visit("class_token", self.class_token, "prepend a learned class token");
    visit("register_tokens", self.register_tokens,
          "learned tokens after the class token, ignored by the pool");
    visit("pool", self.pool,
          "what the head reads: class token, mean of patch tokens, or every token");
    visit("final_norm", self.final_norm,
          "normalise before the head; with pool avg it comes after the mean, as timm's fc_norm");
    visit("pos_embed", self.pos_embed, "position table");
    visit("pos_drop_rate", self.pos_drop_rate, "dropout after the position embedding");
    visit("drop_rate", self.drop_rate, "dropout before the head");
    visit("patch_bias", self.patch_bias, "bias of the patch embedding");
    visit("mask_ratio", self.mask_ratio, "mae: share of hidden patches");
    visit("decoder", self.decoder, "mae: decoder form");
    visit("decoder_embed_dim", self.decoder_embed_dim, "mae: decoder width");
    visit("decoder_depth", self.decoder_depth, "mae: decoder blocks");
    visit("decoder_num_heads", self.decoder_num_heads, "mae: decoder heads");
    visit("decoder_mlp_ratio", self.decoder_mlp_ratio,
          "mae: decoder MLP hidden width / decoder_embed_dim");
    visit("norm_pix_loss", self.norm_pix_loss,
          "mae: normalise each target patch to zero mean, unit variance");
    visit("loss", self.loss, "mae: mean squared error over hidden patches or over all");
    visit("label_smoothing", self.label_smoothing, "vit: cross-entropy label smoothing");
    visit("weights", self.weights, "pretrained weights");
  }
  bool operator==(const Model&) const = default;
};

/// One source of samples; see docs/data.md.
struct Source {
  std::string name;
  Choice reader{"image_folder", {"image_folder", "digits", "random"}};
  std::string root;
  double weight = 1.0;
  std::vector<double> split;
  std::vector<int64_t> resize;
  std::vector<double> mean;
  std::vector<double> std;
  std::vector<std::string> augment;

  template <class Self, class Visitor>
  static void fields(Self& self, Visitor& visit) {
    visit("name", self.name, "name in logs and metrics; default: the reader's name");
    visit("reader", self.reader, "format of the source");
    visit("root", self.root, "file or folder");
    visit("weight", self.weight, "share of samples when there are several sources");
    visit("split", self.split,
          "[start, end) as ratios of the sorted list, taken before any shuffle; empty = all");
    visit("resize", self.resize,
          "side lengths to resize to (bilinear, half-pixel centres); empty = model.image_size");
    visit("mean", self.mean, "subtracted per channel, in units of [0, 1]; empty = 0.5");
    visit("std", self.std, "divided by per channel; empty = 0.5");
    visit("augment", self.augment, "training steps in order: flip, crop:PAD, shift:PIXELS");
  }
  bool operator==(const Source&) const = default;
};

struct Data {
  int64_t batch_size = 64;
  int64_t workers = 2;
  int64_t prefetch = 4;
  bool drop_last = true;
  Choice on_error{"stop", {"stop", "skip"}};
  std::vector<Source> sources;

  template <class Self, class Visitor>
  static void fields(Self& self, Visitor& visit) {
    visit("batch_size", self.batch_size, "global: samples per optimizer step over all ranks");
    visit("workers", self.workers, "reading threads per rank");
    visit("prefetch", self.prefetch, "batches kept ready per rank");
    visit("drop_last", self.drop_last,
          "training skips the last incomplete global batch of an epoch");
    visit("on_error", self.on_error,
          "a broken file stops the run, or is named and replaced by the next sample");
    visit("sources", self.sources, "where samples come from");
  }
  bool operator==(const Data&) const = default;
};

struct Optimizer {
  Choice kind{"adamw", {"adamw", "sgd"}};
  double lr = 1e-3;
  std::vector<double> betas{0.9, 0.999};
  double eps = 1e-8;
  double weight_decay = 0.05;
  double momentum = 0.9;

  template <class Self, class Visitor>
  static void fields(Self& self, Visitor& visit) {
    visit("kind", self.kind, "update rule");
    visit("lr", self.lr, "base learning rate, at the end of the warm-up");
    visit("betas", self.betas, "adamw: decay of the two moments");
    visit("eps", self.eps, "adamw: added to the root of the second moment");
    visit("weight_decay", self.weight_decay,
          "decoupled for adamw, added to the gradient for sgd; not on biases, norms, tokens and position tables");
    visit("momentum", self.momentum, "sgd: momentum");
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
  Choice engine{"auto", {"auto", "autograd"}};
  Choice attention{"sdpa", {"sdpa", "plain"}};
  Optimizer optimizer;
  Schedule schedule;
  double clip_grad_norm = 0.0;
  std::optional<double> ema_decay;
  Choice recompute{"none", {"none", "block"}};
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
          "how blocks run; auto takes the fastest that supports the options");
    visit("attention", self.attention,
          "library attention (scaled dot product) or the written-out formula");
    visit("optimizer", self.optimizer, "update rule");
    visit("schedule", self.schedule, "learning rate over steps");
    visit("clip_grad_norm", self.clip_grad_norm, "largest global gradient norm; 0 = no clipping");
    visit(
        "ema_decay", self.ema_decay,
        "decay of an exponential moving average of the weights, used for evaluation; null = none");
    visit("recompute", self.recompute,
          "block: keep only block inputs and compute blocks again in backward");
    visit("on_non_finite", self.on_non_finite,
          "a NaN or infinite gradient stops the run (exit code 6) or skips the update");
  }
  bool operator==(const Train&) const = default;
};

struct Parallel {
  Choice strategy{"ddp", {"none", "ddp"}};
  int64_t replicate = -1;
  int64_t shard = 1;
  int64_t pipeline = 1;
  int64_t sequence = 1;
  int64_t tensor = 1;
  double bucket_mib = 25.0;

  template <class Self, class Visitor>
  static void fields(Self& self, Visitor& visit) {
    visit("strategy", self.strategy,
          "none: one rank; ddp: every rank holds the model, gradients are averaged");
    visit("replicate", self.replicate, "mesh axis; -1 = all ranks the other axes leave");
    visit("shard", self.shard, "mesh axis; -1 = all ranks the other axes leave");
    visit("pipeline", self.pipeline, "mesh axis");
    visit("sequence", self.sequence, "mesh axis");
    visit("tensor", self.tensor, "mesh axis");
    visit("bucket_mib", self.bucket_mib,
          "ddp: gradients are reduced in pieces of at least this size");
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
