// Rules of the layout over ranks: what can be said before the number of ranks is known.

#include <fmt/format.h>

#include "vitrail/config/rules.h"

namespace vitrail::config {

namespace {

constexpr int64_t kMaxRanks = int64_t{1} << 20;
constexpr double kMaxBucketMib = 65536;

void check_axes(const Parallel& parallel, RuleBook& rules) {
  const int64_t shard = parallel.shard.value_or(1);
  std::vector<std::string> open;
  for (const auto& [key, value] :
       {std::pair<const char*, int64_t>{"replicate", parallel.replicate}, {"shard", shard}}) {
    const std::string path = fmt::format("parallel.{}", key);
    if (value == -1)
      open.push_back(path);
    else if (value < 1 || value > kMaxRanks)
      rules.add({path}, fmt::format("{} must be a number of ranks from 1 to {}, or -1, but got {}",
                                    path, kMaxRanks, value));
  }
  if (open.size() > 1)
    rules.add(open,
              fmt::format("only one of {} and {} can be -1 (all ranks that are left) but both are",
                          open[0], open[1]));
  rules.within("parallel.pipeline", parallel.pipeline, 1, kMaxRanks);
  rules.within("parallel.sequence", parallel.sequence, 1, kMaxRanks);
  rules.within("parallel.tensor", parallel.tensor, 1, kMaxRanks);
}

/// The number of `key` must be a multiple of the tensor ranks.
void divides(const std::string& key, int64_t value, int64_t tensor, RuleBook& rules) {
  if (value % tensor != 0)
    rules.add({"parallel.tensor", key},
              fmt::format("parallel.tensor must divide {} but got {} and {}", key, tensor, value));
}

/// 0 for values that another rule refuses.
int64_t hidden_width(int64_t width, double ratio) {
  constexpr double kLargest = 1e15;
  if (!(static_cast<double>(width) * ratio < kLargest) || width < 1 || !(ratio > 0)) return 0;
  return static_cast<int64_t>(static_cast<double>(width) * ratio);
}

/// A cross-attention over variables shares its heads like a block.
bool aggregates_by_attention(const Model& model) {
  return !model.variables.empty() && !model.single_channel &&
         model.aggregation.kind == "cross_attention";
}

void check_hidden(const Model& model, int64_t tensor, RuleBook& rules) {
  const char* key = model.mlp_hidden_dim ? "model.mlp_hidden_dim" : "model.mlp_ratio";
  const int64_t hidden =
      model.mlp_hidden_dim.value_or(hidden_width(model.embed_dim, model.mlp_ratio));
  if (hidden % tensor != 0)
    rules.add({"parallel.tensor", key},
              fmt::format("parallel.tensor must divide the MLP's hidden width but got {} and {}",
                          tensor, hidden));
  if (!has_transformer_decoder(model)) return;
  const int64_t decoder = hidden_width(model.decoder_embed_dim, model.decoder_mlp_ratio);
  if (decoder % tensor != 0)
    rules.add({"parallel.tensor", "model.decoder_mlp_ratio"},
              fmt::format("parallel.tensor must divide the decoder MLP's hidden width but got {} "
                          "and {}",
                          tensor, decoder));
}

void check_split_channels(const Model& model, int64_t tensor, RuleBook& rules) {
  if (model.variables.empty())
    rules.add({"parallel.split_channels", "model.variables"},
              "parallel.split_channels divides model.variables but there are none");
  else if (model.aggregation.groups % tensor != 0)
    rules.add({"parallel.split_channels", "model.aggregation.groups"},
              fmt::format("parallel.split_channels needs model.aggregation.groups to be a multiple "
                          "of parallel.tensor but got {} and {}",
                          model.aggregation.groups, tensor));
  if (model.single_channel)
    rules.add({"parallel.split_channels", "model.single_channel"},
              "parallel.split_channels divides the variables of a batch, of which "
              "model.single_channel leaves one");
  if (model.adaptive.fixed_length > 0 && model.adaptive.trees == "per_channel")
    rules.add({"parallel.split_channels", "model.adaptive.trees"},
              "parallel.split_channels needs tokens that are aggregated over variables, which "
              "model.adaptive.trees per_channel keeps apart");
}

void check_tensor(const Model& model, const Parallel& parallel, RuleBook& rules) {
  const int64_t tensor = parallel.tensor;
  rules.within("parallel.tensor_chunks", parallel.tensor_chunks, 1, 64);
  if (tensor <= 1) {
    if (parallel.split_channels)
      rules.add({"parallel.split_channels", "parallel.tensor"},
                "parallel.split_channels needs parallel.tensor above 1 but it is 1");
    return;
  }
  divides("model.num_heads", model.num_heads, tensor, rules);
  if (model.num_kv_heads) divides("model.num_kv_heads", *model.num_kv_heads, tensor, rules);
  if (has_transformer_decoder(model))
    divides("model.decoder_num_heads", model.decoder_num_heads, tensor, rules);
  check_hidden(model, tensor, rules);
  if (aggregates_by_attention(model) && model.aggregation.num_heads)
    divides("model.aggregation.num_heads", *model.aggregation.num_heads, tensor, rules);
  if (parallel.split_channels) check_split_channels(model, tensor, rules);
}

void check_sequence(const Model& model, const Parallel& parallel, RuleBook& rules) {
  if (!parallel.ulysses) return;
  if (!rules.within("parallel.ulysses", *parallel.ulysses, 1, kMaxRanks)) return;
  if (parallel.sequence % *parallel.ulysses != 0)
    rules.add({"parallel.ulysses", "parallel.sequence"},
              fmt::format("parallel.ulysses must divide parallel.sequence but got {} and {}",
                          *parallel.ulysses, parallel.sequence));
  const int64_t exchanged = *parallel.ulysses * parallel.tensor;
  if (parallel.tensor >= 1 && model.num_heads % exchanged != 0)
    rules.add({"parallel.ulysses", "model.num_heads"},
              fmt::format("parallel.ulysses x parallel.tensor must divide model.num_heads but got "
                          "{} x {} and {}",
                          *parallel.ulysses, parallel.tensor, model.num_heads));
}

void check_pipeline(const Model& model, const Train& train, const Parallel& parallel,
                    RuleBook& rules) {
  if (!rules.within("parallel.pipeline_parts", parallel.pipeline_parts, 1, 1024)) return;
  const bool interleaved = parallel.pipeline_schedule == "interleaved";
  if (parallel.pipeline_parts > 1 && !interleaved)
    rules.add({"parallel.pipeline_parts", "parallel.pipeline_schedule"},
              fmt::format("parallel.pipeline_parts {} needs parallel.pipeline_schedule interleaved "
                          "but it is {}",
                          parallel.pipeline_parts, parallel.pipeline_schedule.value));
  if (parallel.pipeline <= 1) return;
  int64_t blocks = model.depth;
  if (has_transformer_decoder(model)) blocks += model.decoder_depth;
  const int64_t stages = parallel.pipeline * parallel.pipeline_parts;
  if (stages > blocks)
    rules.add(
        {"parallel.pipeline", "model.depth"},
        fmt::format("parallel.pipeline x pipeline_parts must not exceed the model's {} blocks "
                    "but got {}",
                    blocks, stages));
  if (interleaved && train.micro_batches % parallel.pipeline != 0)
    rules.add({"train.micro_batches", "parallel.pipeline"},
              fmt::format("the interleaved schedule needs train.micro_batches to be a multiple of "
                          "parallel.pipeline but got {} and {}",
                          train.micro_batches, parallel.pipeline));
}

void check_memory(const Train& train, const Parallel& parallel, RuleBook& rules) {
  if (rules.above("parallel.bucket_mib", parallel.bucket_mib, 0) &&
      parallel.bucket_mib > kMaxBucketMib)
    rules.add({"parallel.bucket_mib"},
              fmt::format("parallel.bucket_mib must be at most {} but got {}", kMaxBucketMib,
                          parallel.bucket_mib));
  rules.within("parallel.prefetch_depth", parallel.prefetch_depth, 0, 1024);
  rules.at_least("parallel.persist_below", static_cast<double>(parallel.persist_below), 0);
  rules.within("train.recompute_every", train.recompute_every, 1, 65536);
  if (train.offload_activations && train.recompute == "none")
    rules.add({"train.offload_activations", "train.recompute"},
              "train.offload_activations keeps what recompute saves but train.recompute is none");
  const bool whole = parallel.strategy == "none" || parallel.strategy == "ddp";
  if (whole && parallel.shard_optimizer == "all")
    rules.add(
        {"parallel.shard_optimizer", "parallel.strategy"},
        fmt::format("parallel.shard_optimizer all needs a strategy that divides the optimizer "
                    "but parallel.strategy is {}",
                    parallel.strategy.value));
  const bool weights_divided = parallel.strategy == "zero3" || parallel.strategy == "hybrid";
  if (parallel.offload == "parameters" && !weights_divided)
    rules.add({"parallel.offload", "parallel.strategy"},
              fmt::format("parallel.offload parameters needs parallel.strategy zero3 or hybrid but "
                          "it is {}",
                          parallel.strategy.value));
  if (parallel.offload == "nvme" && parallel.offload_folder.empty())
    rules.add({"parallel.offload_folder"},
              "parallel.offload_folder must name a folder for parallel.offload nvme but is empty");
}

}  // namespace

void check_parallel(const Recipe& recipe, RuleBook& rules) {
  check_axes(recipe.parallel, rules);
  check_tensor(recipe.model, recipe.parallel, rules);
  if (recipe.parallel.sequence >= 1) check_sequence(recipe.model, recipe.parallel, rules);
  if (recipe.parallel.pipeline >= 1)
    check_pipeline(recipe.model, recipe.train, recipe.parallel, rules);
  check_memory(recipe.train, recipe.parallel, rules);
}

}  // namespace vitrail::config
