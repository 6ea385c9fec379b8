// UCF-VIT's YAML, branch main of October 2025.

#include <algorithm>

#include <fmt/format.h>

#include "vitrail/config/convert_deepspeed.h"
#include "vitrail/config/problems.h"
#include "vitrail/config/yaml.h"

namespace vitrail::config {
namespace {

const std::string kNet = "model.net.init_args.";

/// Its training script decides what is trained; the keys tell which script a file is for.
std::string guess_kind(const Converter& converter, const std::string& class_path) {
  for (const auto& [part, kind] : {std::pair{"Diffusion", "diffusion"},
                                   {"UNETR", "unetr"},
                                   {"MAE", "mae"},
                                   {"SAP", "sap"},
                                   {"VIT", "vit"}})
    if (class_path.find(part) != std::string::npos) return kind;
  if (converter.has(kNet + "num_time_steps")) return "diffusion";
  if (converter.has(kNet + "feature_size")) return "unetr";
  if (converter.has("data.num_classes")) {
    const bool decodes = converter.has(kNet + "decoder_embed_dim");
    return decodes ? "sap" : "vit";
  }
  return converter.has(kNet + "mask_ratio") ? "mae" : "vit";
}

void copy_integer(Converter& converter, const std::string& path, const std::string& key) {
  if (const auto value = converter.integer(path)) converter.set(path, key, std::to_string(*value));
}
void copy_number(Converter& converter, const std::string& path, const std::string& key,
                 const std::string& note = "") {
  if (const auto value = converter.number(path))
    converter.set(path, key, recipe_number(*value), note);
}

std::string names(const Node& list) {
  std::string text;
  for (const Node& item : list.items) text += (text.empty() ? "" : ", ") + recipe_text(item.text);
  return "[" + text + "]";
}

void convert_variables(Converter& converter) {
  const Node* variables = converter.take(kNet + "default_vars");
  const bool embeds = converter.boolean(kNet + "use_varemb").value_or(false);
  const bool single = converter.boolean("data.single_channel").value_or(false);
  if (variables && variables->is_list() && embeds)
    converter.set(kNet + "default_vars", "model.variables", names(*variables));
  else if (variables && variables->is_list())
    converter.set(kNet + "default_vars", "model.in_channels",
                  std::to_string(single ? 1 : variables->items.size()), "use_varemb is off");
  if (converter.has(kNet + "use_varemb"))
    converter.note(kNet + "use_varemb", embeds ? "model.variables says so" : "off");
  if (embeds && single)
    converter.set("data.single_channel", "model.single_channel", "true");
  else if (converter.has("data.single_channel"))
    converter.note("data.single_channel", single ? "model.in_channels 1" : "off");
}

void convert_sides(Converter& converter) {
  const bool flat = converter.boolean(kNet + "twoD").value_or(false);
  std::vector<int64_t> sides = converter.integers(kNet + "tile_size");
  if (flat && sides.size() > 2) sides.resize(2);
  std::string text;
  for (const int64_t side : sides) text += (text.empty() ? "" : ", ") + std::to_string(side);
  if (!sides.empty())
    converter.set(kNet + "tile_size", "model.image_size", "[" + text + "]", flat ? "twoD" : "");
  if (converter.has(kNet + "twoD"))
    converter.note(kNet + "twoD", "the length of model.image_size says so");
}

void convert_adaptive(Converter& converter) {
  const bool on = converter.boolean(kNet + "adaptive_patching").value_or(false);
  const auto length = converter.integer(kNet + "fixed_length");
  if (!on) {
    for (const char* key : {"adaptive_patching", "fixed_length", "separate_channels",
                            "use_adaptive_pos_emb", "sqrt_len_method"})
      if (converter.take(kNet + key)) converter.note(kNet + key, "off with adaptive_patching");
    return;
  }
  converter.set(kNet + "adaptive_patching", "model.adaptive.fixed_length",
                std::to_string(length.value_or(4096)));
  if (length) converter.note(kNet + "fixed_length", "model.adaptive.fixed_length");
  if (converter.boolean(kNet + "separate_channels").value_or(false))
    converter.set(kNet + "separate_channels", "model.adaptive.trees", "per_channel");
  else if (converter.has(kNet + "separate_channels"))
    converter.note(kNet + "separate_channels", "one tree over all channels");
  if (const auto embeds = converter.boolean(kNet + "use_adaptive_pos_emb"))
    converter.set(kNet + "use_adaptive_pos_emb", "model.adaptive.position_embedding",
                  *embeds ? "true" : "false");
  answer(converter, kNet.substr(0, kNet.size() - 1),
         {{"sqrt_len_method", "needs no counterpart: leaves are embedded in place"}});
}

void convert_net(Converter& converter) {
  converter.enter("model");
  converter.enter("model.net");
  converter.enter("model.net.init_args");
  const std::string class_path = converter.text("model.net.class_path").value_or("");
  const std::string kind = guess_kind(converter, class_path);
  if (class_path.empty())
    converter.derive("model.kind", kind, "its training script says; guessed from the keys");
  else
    converter.set("model.net.class_path", "model.kind", kind);
  convert_sides(converter);
  convert_variables(converter);
  convert_adaptive(converter);
  for (const char* key : {"patch_size", "embed_dim", "depth", "num_heads"})
    copy_integer(converter, kNet + key, std::string("model.") + key);
  copy_number(converter, kNet + "mlp_ratio", "model.mlp_ratio");
  const bool decodes = kind == "mae" || kind == "diffusion";
  for (const auto& [key, target] : {std::pair{"decoder_embed_dim", "decoder_embed_dim"},
                                    {"decoder_depth", "decoder_depth"},
                                    {"decoder_num_heads", "decoder_num_heads"},
                                    {"mlp_ratio_decoder", "decoder_mlp_ratio"}}) {
    if (decodes)
      copy_number(converter, kNet + key, std::string("model.") + target);
    else if (converter.take(kNet + key))
      converter.note(kNet + key, "of masked autoencoders and diffusion");
  }
  copy_number(converter, kNet + "drop_path", "model.drop_path_rate");
  copy_number(converter, kNet + "drop_rate", "model.drop_rate");
  if (kind == "mae")
    copy_number(converter, kNet + "mask_ratio", "model.mask_ratio");
  else if (converter.take(kNet + "mask_ratio"))
    converter.note(kNet + "mask_ratio", "of masked autoencoders");
  if (const auto linear = converter.boolean(kNet + "linear_decoder");
      linear && (decodes || kind == "unetr"))
    converter.set(kNet + "linear_decoder", "model.decoder",
                  *linear           ? "linear"
                  : kind == "unetr" ? "conv"
                                    : "transformer");
  if (kind == "unetr") {
    if (const auto skips = converter.boolean(kNet + "skip_connection"))
      converter.set(kNet + "skip_connection", "model.skips", *skips ? "true" : "false");
    copy_integer(converter, kNet + "feature_size", "model.feature_size");
  } else {
    answer(converter, kNet.substr(0, kNet.size() - 1),
           {{"skip_connection", "of UNETR"}, {"feature_size", "of UNETR"}});
  }
  copy_integer(converter, kNet + "num_time_steps", "model.num_timesteps");
  if (kind == "vit") converter.derive("model.pool", "token", "its class token");
  copy_integer(converter, "data.num_classes", "model.num_classes");
  if (const auto loss = converter.text("model.loss_fn")) {
    if (kind == "mae")
      converter.set("model.loss_fn", "model.loss", *loss == "maskMSE" ? "masked_mse" : "mse");
    else
      converter.note("model.loss_fn", "ignored there too; model.loss says");
  }
}

void convert_optimisation(Converter& converter) {
  converter.derive("train.optimizer.kind", "adamw", "fixed in its code");
  copy_number(converter, "model.lr", "train.optimizer.lr");
  const auto first = converter.number("model.beta_1"), second = converter.number("model.beta_2");
  if (first || second)
    converter.set(first ? "model.beta_1" : "model.beta_2", "train.optimizer.betas",
                  fmt::format("[{}, {}]", recipe_number(first.value_or(0.9)),
                              recipe_number(second.value_or(0.95))));
  if (first && second) converter.note("model.beta_2", "train.optimizer.betas");
  copy_number(converter, "model.weight_decay", "train.optimizer.weight_decay",
              "not on biases, norms and tokens, which it decays too");
  converter.derive("train.schedule.kind", "cosine", "fixed in its code");
  copy_integer(converter, "model.warmup_steps", "train.schedule.warmup_steps");
  if (const auto steps = converter.integer("model.max_steps"))
    converter.set("model.max_steps", "train.schedule.total_steps", std::to_string(*steps),
                  "past it the rate stays; there it climbs again");
  copy_number(converter, "model.warmup_start_lr", "train.schedule.warmup_start_lr");
  copy_number(converter, "model.eta_min", "train.schedule.min_lr");
  answer(converter, "model",
         {{"use_grad_scaler", "needs no counterpart: fp32 and bf16 need no loss scale"}});
}

/// Returns its data ranks.
int64_t convert_layout(Converter& converter) {
  converter.enter("parallelism");
  const int64_t shard = converter.integer("parallelism.fsdp_size").value_or(1);
  const int64_t replicate = converter.integer("parallelism.simple_ddp_size").value_or(1);
  if (converter.has("parallelism.fsdp_size")) {
    converter.set("parallelism.fsdp_size", "parallel.strategy",
                  shard == 1      ? "ddp"
                  : replicate > 1 ? "hybrid"
                                  : "zero3");
    if (shard > 1) converter.set("parallelism.fsdp_size", "parallel.shard", std::to_string(shard));
  }
  if (converter.has("parallelism.simple_ddp_size"))
    converter.note("parallelism.simple_ddp_size",
                   "parallel.replicate -1: as many as the ranks allow");
  copy_integer(converter, "parallelism.tensor_par_size", "parallel.tensor");
  copy_integer(converter, "parallelism.seq_par_size", "parallel.sequence");
  answer(converter, "parallelism", {{"cpu_offloading", "ignored there; parallel.offload is not"}});
  return shard * replicate;
}

const char* reader_of(const std::string& dataset) {
  if (dataset == "imagenet" || dataset == "catsdogs") return "image_folder";
  if (dataset == "basic_ct") return "nifti";
  return dataset == "xct" ? "npy" : nullptr;
}

/// One source for each key of dict_root_dirs.
void convert_sources(Converter& converter) {
  const std::string dataset = converter.text("data.dataset").value_or("");
  const char* const reader = reader_of(dataset);
  if (converter.has("data.dataset")) {
    if (reader)
      converter.note("data.dataset", fmt::format("reader {}", reader));
    else
      converter.refuse("data.dataset",
                       "must be imagenet, catsdogs, basic_ct or xct but is '" + dataset + "'");
  }
  const Node* roots = converter.take("data.dict_root_dirs");
  if (!roots || !roots->is_map() || !reader) return;
  const auto overlap = converter.number("data.tile_overlap");
  const auto all = converter.boolean("data.use_all_data");
  const bool cuts = std::string(reader) != "image_folder";  // pictures are resized instead
  const Node* tile = converter.take(kNet + "tile_size");
  converter.note("data.dict_root_dirs", "a source for each");
  for (size_t i = 0; i < roots->entries.size(); ++i) {
    const Entry& entry = roots->entries[i];
    const std::string source = fmt::format("data.sources[{}]", i);
    converter.derive(source + ".name", recipe_text(entry.key), "");
    converter.derive(source + ".reader", reader, "");
    converter.derive(source + ".root", recipe_text(entry.value.text), "");
    const auto part = [&](const char* key) -> const Node* {
      const Node* map = converter.take(std::string("data.") + key);
      return map ? map->find(entry.key) : nullptr;
    };
    const Node *start = part("dict_start_idx"), *end = part("dict_end_idx");
    if (start && end)
      converter.derive(source + ".split", fmt::format("[{}, {}]", start->text, end->text),
                       "dict_start_idx, dict_end_idx");
    const Node* variables = part("dict_in_variables");
    const bool embeds = converter.boolean(kNet + "use_varemb").value_or(false);
    if (variables && variables->is_list() && embeds)
      converter.derive(source + ".variables", names(*variables), "dict_in_variables");
    if (cuts && tile) {
      std::string ratios;
      for (size_t axis = 0; axis < tile->items.size(); ++axis)
        ratios += (axis ? ", " : "") + recipe_number(overlap.value_or(0));
      converter.derive(source + ".tile", value_text(*tile), "tile_size");
      if (overlap && *overlap > 0)
        converter.derive(source + ".overlap", "[" + ratios + "]", "tile_overlap");
    }
    if (all && cuts)
      converter.derive(source + ".use_all_data", *all ? "true" : "false", "use_all_data");
  }
  for (const char* key : {"dict_start_idx", "dict_end_idx", "dict_in_variables"})
    if (converter.has(std::string("data.") + key))
      converter.note(std::string("data.") + key, "in each source");
  const char* const said = cuts ? "in each source" : "pictures are resized, not cut";
  if (overlap) converter.note("data.tile_overlap", said);
  if (all) converter.note("data.use_all_data", said);
}

void convert_data(Converter& converter, int64_t ranks) {
  converter.enter("data");
  if (const auto size = converter.integer("data.batch_size"))
    converter.set("data.batch_size", "data.batch_size", std::to_string(*size * ranks),
                  fmt::format("{} a rank x {} data ranks", *size, ranks));
  copy_integer(converter, "data.num_workers", "data.workers");
  convert_sources(converter);
  answer(converter, "data",
         {{"dict_buffer_sizes", "needs no counterpart: the order is a permutation of all samples"},
          {"num_channels_used", "a source's channels are counted"},
          {"pin_memory", "always so with a GPU"}});
  converter.enter("dataset_options");
  answer(converter, "dataset_options",
         {{"imagenet_resize", "model.image_size, or a source's resize"}});
  if (!converter.enter("load_balancing")) return;
  if (const auto on = converter.boolean("load_balancing.auto_load_balancing"))
    converter.note(
        "load_balancing.auto_load_balancing",
        *on ? "data.mixing sample needs none; `vitrail balance` and data.mixing rank" : "off");
  answer(
      converter, "load_balancing",
      {{"batches_per_rank_epoch", "counted from the files"},
       {"dataset_group_list", "data.ranks_per_source with data.mixing rank; `vitrail balance`"}});
}

void convert_trainer(Converter& converter) {
  converter.enter("trainer");
  copy_integer(converter, "trainer.max_epochs", "train.epochs");
  if (const auto type = converter.text("trainer.data_type"))
    converter.set("trainer.data_type", "train.precision", *type == "bfloat16" ? "bf16" : "fp32");
  const bool starts = converter.boolean("trainer.use_pretrained_mae_model").value_or(false);
  const std::string folder = converter.text("trainer.mae_checkpoint_path").value_or("");
  const std::string file = converter.text("trainer.mae_checkpoint_filename").value_or("");
  if (starts) {
    converter.set("trainer.use_pretrained_mae_model", "model.weights.path",
                  recipe_text(folder + "/" + file + ".safetensors"),
                  "convert the checkpoint with its own Python first: no pickle is read");
    converter.set("trainer.use_pretrained_mae_model", "model.weights.from", "ucf-vit");
  } else if (converter.has("trainer.use_pretrained_mae_model")) {
    converter.note("trainer.use_pretrained_mae_model", "off");
  }
  answer(converter, "trainer",
         {{"gpu_type", "needs no counterpart: attention is chosen by timing"},
          {"checkpoint_path", "checkpoints lie in run.output/run.name/checkpoints"},
          {"checkpoint_filename", "checkpoints are named by their step"},
          {"checkpoint_filename_for_loading", "--resume auto takes the newest valid one"},
          {"resume_from_checkpoint", "--resume auto, the default, does when there is one"},
          {"mae_checkpoint_path", "of use_pretrained_mae_model"},
          {"mae_checkpoint_filename", "of use_pretrained_mae_model"},
          {"inference_path", "`vitrail predict --output`"}});
}

}  // namespace

Conversion convert_ucf_vit(const std::string& yaml, const std::string& name,
                           const ConvertOptions& options) {
  Problems problems;
  const Node root = parse_yaml(yaml, name, problems);
  if (!root.is_map() && problems.empty())
    problems.add(root.place, "a UCF-VIT file must be a map of sections but got " + describe(root));
  problems.throw_if_any();
  Converter converter(root, printable(name), "UCF-VIT");
  converter.auto_means("auto: the recipe's value stays");
  convert_trainer(converter);
  const int64_t ranks = convert_layout(converter);
  convert_net(converter);
  convert_optimisation(converter);
  convert_data(converter, options.data_ranks ? options.data_ranks : ranks);
  return converter.finish();
}

}  // namespace vitrail::config
