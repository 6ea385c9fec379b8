// The TOML of torchtitan-mae (3-D masked autoencoders), at the commits whose README is that of the system.

#include <fmt/format.h>

#include "vitrail/config/convert_deepspeed.h"
#include "vitrail/config/problems.h"
#include "vitrail/config/toml.h"

namespace vitrail::config {
namespace {

void convert_model(Converter& converter) {
  converter.enter("model");
  const std::string flavor = converter.text("model.flavor").value_or("");
  if (flavor == "2B" || flavor == "8B")
    converter.set("model.flavor", "model.preset", flavor == "2B" ? "mae3d_2b" : "mae3d_8b");
  else if (!flavor.empty())
    converter.refuse("model.flavor", "must be 2B or 8B to have a preset but is '" + flavor + "'");
  answer(converter, "model", {{"name", "a left-over name; the flavor says the model"}});
  if (const auto side = converter.integer("training.img_size"))
    converter.set("training.img_size", "model.image_size", fmt::format("[{0}, {0}, {0}]", *side));
  if (const auto patch = converter.integer("training.patch_size"))
    converter.set("training.patch_size", "model.patch_size", std::to_string(*patch));
  if (const auto ratio = converter.number("training.mask_ratio"))
    converter.set("training.mask_ratio", "model.mask_ratio", recipe_number(*ratio));
}

void convert_data(Converter& converter, int64_t data_ranks) {
  const std::string folder = converter.text("training.data_dir").value_or("");
  const std::string inner =
      converter.text("training.subdir_name").value_or("recon-1/em/fibsem-uint8");
  const std::string level = converter.text("training.resolution").value_or("s0");
  const std::string array = inner + "/" + level;
  if (!folder.empty()) {
    converter.set("training.data_dir", "data.sources[0].reader", "zarr");
    converter.set("training.data_dir", "data.sources[0].root", recipe_text(folder + "/*/*.zarr"),
                  "one volume a sub-folder");
    converter.derive("data.sources[0].array", recipe_text(array), "subdir_name/resolution");
    converter.derive("data.sources[0].axes", "zyx", "volumes are stored Z, Y, X");
    const std::string side = converter.has("training.img_size")
                                 ? value_text(*converter.take("training.img_size"))
                                 : "512";
    converter.derive("data.sources[0].random_crop",
                     fmt::format("{{size: [{0}, {0}, {0}], per_epoch: 1000}}", side),
                     "crops at random places; an epoch there has no end");
  }
  if (const auto size = converter.integer("training.batch_size"))
    converter.set("training.batch_size", "data.batch_size", std::to_string(*size * data_ranks),
                  fmt::format("{} a rank x {} data ranks", *size, data_ranks));
}

void convert_optimisation(Converter& converter) {
  converter.enter("optimizer");
  const std::string name = converter.text("optimizer.name").value_or("AdamW");
  if (name != "AdamW" && name != "Adam")
    converter.refuse("optimizer.name", "must be AdamW or Adam but is '" + name + "'");
  else if (converter.has("optimizer.name"))
    converter.set("optimizer.name", "train.optimizer.kind", "adamw");
  else
    converter.derive("train.optimizer.kind", "adamw", "name is not given: its default");
  const double rate = converter.number("optimizer.lr").value_or(8e-4);
  if (converter.has("optimizer.lr"))
    converter.set("optimizer.lr", "train.optimizer.lr", recipe_number(rate));
  else
    converter.derive("train.optimizer.lr", recipe_number(rate), "lr is not given: its default");
  converter.derive("train.optimizer.betas", "[0.9, 0.95]", "fixed in its code");
  converter.derive("train.optimizer.weight_decay", "0.1",
                   "fixed in its code; there on norms and tokens too");
  answer(converter, "optimizer", {{"fused", "always so"}});

  const int64_t warmup = converter.integer("training.warmup_steps").value_or(1000);
  const char* const rises = "step s has lr (s + 1) / (warmup_steps + 1), as there";
  if (converter.has("training.warmup_steps"))
    converter.set("training.warmup_steps", "train.schedule.warmup_steps", std::to_string(warmup));
  else
    converter.derive("train.schedule.warmup_steps", "1000", "not given: its default");
  converter.derive("train.schedule.warmup_start_lr",
                   recipe_number(rate / static_cast<double>(warmup + 1)), rises);
  converter.derive("train.schedule.kind", "linear", "down to 0 at the last step");
  converter.derive("train.schedule.counting", "deepspeed",
                   "falls from the warm-up's end on, as there");
  if (const auto steps = converter.integer("training.steps"))
    converter.set("training.steps", "train.steps", std::to_string(*steps));
  if (const auto norm = converter.number("training.max_norm"))
    converter.set("training.max_norm", "train.clip_grad_norm", recipe_number(*norm));
}

/// Returns the data ranks that the file names.
int64_t convert_layout(Converter& converter) {
  const int64_t replicate =
      converter.integer("training.data_parallel_replicate_degree").value_or(1);
  const int64_t shard = converter.integer("training.data_parallel_shard_degree").value_or(-1);
  const char* const strategy = shard == 1 ? "ddp" : replicate > 1 ? "hybrid" : "zero3";
  converter.derive("parallel.strategy", strategy,
                   "its FSDP keeps weights from forward to backward, which is zero2");
  if (converter.has("training.data_parallel_replicate_degree"))
    converter.set("training.data_parallel_replicate_degree", "parallel.replicate",
                  std::to_string(replicate));
  else if (shard != 1)
    converter.derive("parallel.replicate", "1", "not given: its default");
  if (shard != 1 && converter.has("training.data_parallel_shard_degree"))
    converter.set("training.data_parallel_shard_degree", "parallel.shard", std::to_string(shard));
  else if (shard != 1)
    converter.derive("parallel.shard", "-1", "not given: all ranks");
  const auto degree = [&](const char* path, const char* key) {
    if (const auto size = converter.integer(path); size)
      converter.set(path, key, std::to_string(*size));
  };
  degree("training.tensor_parallel_degree", "parallel.tensor");
  converter.enter("experimental");
  degree("experimental.pipeline_parallel_degree", "parallel.pipeline");
  degree("experimental.pipeline_parallel_microbatches", "train.micro_batches");
  if (const auto kind = converter.text("experimental.pipeline_parallel_schedule"))
    converter.set("experimental.pipeline_parallel_schedule", "parallel.pipeline_schedule",
                  *kind == "gpipe"                                ? "gpipe"
                  : kind->find("nterleaved") != std::string::npos ? "interleaved"
                                                                  : "1f1b");
  return shard > 0 ? replicate * shard : replicate;
}

void convert_recompute(Converter& converter) {
  converter.enter("activation_checkpoint");
  const std::string mode = converter.text("activation_checkpoint.mode").value_or("selective");
  const std::string option =
      converter.text("activation_checkpoint.selective_ac_option").value_or("2");
  const char* const path = "activation_checkpoint.mode";
  if (mode == "full" || mode == "none") {
    converter.set(path, "train.recompute", mode == "full" ? "block" : "none");
    if (converter.has("activation_checkpoint.selective_ac_option"))
      converter.note("activation_checkpoint.selective_ac_option", "of mode selective");
    return;
  }
  if (option == "op") {
    converter.derive("train.recompute", "selective", "keeps the results of attention");
    return;
  }
  converter.derive("train.recompute", "every_k", "of mode selective with a number");
  converter.derive("train.recompute_every",
                   recipe_text(option).find('"') == 0 ? option : recipe_text(option),
                   "selective_ac_option");
}

void convert_precision_of_training(Converter& converter) {
  if (const auto type = converter.text("training.mixed_precision_param"))
    converter.set("training.mixed_precision_param", "train.precision",
                  *type == "bfloat16" ? "bf16" : "fp32");
  else
    converter.derive("train.precision", "bf16", "mixed_precision_param is not given: its default");
  converter.enter("float8");
  if (converter.boolean("float8.enable_float8_linear").value_or(false))
    converter.set("float8.enable_float8_linear", "train.precision", "fp8");
  else if (converter.has("float8.enable_float8_linear"))
    converter.note("float8.enable_float8_linear", "off");
  answer(converter, "float8",
         {{"enable_fsdp_float8_all_gather", "weights cross ranks in bf16"},
          {"precompute_float8_dynamic_scale_for_fsdp", "scales are found for each row when needed"},
          {"scaling_type_input", "always dynamic"},
          {"scaling_type_weight", "always dynamic"},
          {"scaling_type_grad_output", "always dynamic"}});
  answer(converter, "training",
         {{"mixed_precision_reduce", "parallel.reduce_precision is fp32 unless said otherwise"},
          {"compile", "train.engine auto takes the fused engine"},
          {"enable_loss_parallel", "needs no counterpart: there is no vocabulary"},
          {"gc_freq", "needs no counterpart: there is no garbage collector"},
          {"shuffle_seed", "run.seed fixes the order too"}});
  if (const auto seed = converter.integer("training.seed"))
    converter.set("training.seed", "run.seed", std::to_string(*seed));
}

void convert_saving(Converter& converter) {
  converter.enter("checkpoint");
  const bool saves = converter.boolean("checkpoint.enable_checkpoint").value_or(false);
  const int64_t interval = converter.integer("checkpoint.interval").value_or(500);
  if (converter.has("checkpoint.enable_checkpoint"))
    converter.set("checkpoint.enable_checkpoint", "checkpoint.every_steps",
                  std::to_string(saves ? interval : 0), saves ? "interval" : "only at the end");
  if (converter.has("checkpoint.interval"))
    converter.note("checkpoint.interval",
                   saves ? "checkpoint.every_steps" : "of enable_checkpoint");
  if (const auto keep = converter.integer("checkpoint.keep_latest_k"))
    converter.set("checkpoint.keep_latest_k", "checkpoint.keep", std::to_string(*keep));
  if (const auto mode = converter.text("checkpoint.async_mode"))
    converter.set("checkpoint.async_mode", "checkpoint.async",
                  *mode == "disabled" ? "false" : "true");
  answer(converter, "checkpoint",
         {{"folder", "checkpoints lie in the run's folder"},
          {"interval_type", "steps"},
          {"model_weights_only", "weights.safetensors is written beside full checkpoints"},
          {"export_dtype", "weights.safetensors holds fp32"},
          {"create_seed_checkpoint", "needs no counterpart: first values follow from run.seed"}});
  converter.enter("metrics");
  if (const auto steps = converter.integer("metrics.log_freq"))
    converter.set("metrics.log_freq", "logging.every_steps", std::to_string(*steps));
  if (const auto on = converter.boolean("metrics.enable_tensorboard"))
    converter.set("metrics.enable_tensorboard", "logging.tensorboard", *on ? "true" : "false");
  answer(converter, "metrics",
         {{"enable_color_printing", "no counterpart"},
          {"save_tb_folder", "events lie in the run's folder"},
          {"rank_0_only", "always so"}});
  converter.enter("job");
  if (const auto folder = converter.text("job.dump_folder"))
    converter.set("job.dump_folder", "run.output", recipe_text(*folder));
  answer(converter, "job",
         {{"description", "no counterpart: run.name names the run"},
          {"config_file", "no counterpart"},
          {"use_for_integration_test", "no counterpart"}});
}

void answer_rest(Converter& converter) {
  converter.enter("profiling");
  converter.enter("comm");
  converter.enter("memory_estimation");
  const char* const trace = "`vitrail train --trace FILE`";
  answer(converter, "profiling",
         {{"enable_profiling", trace},
          {"save_traces_folder", trace},
          {"profile_freq", trace},
          {"enable_memory_snapshot", "metrics hold the peak; `vitrail plan` lists memory by kind"},
          {"save_memory_snapshot_folder", "no counterpart"}});
  answer(converter, "comm",
         {{"init_timeout_seconds", "no counterpart: environment variables, docs/parallel.md"},
          {"train_timeout_seconds", "no counterpart: environment variables, docs/parallel.md"},
          {"trace_buf_size", "always so: the flight recorder names the exchange that hangs"}});
  answer(converter, "memory_estimation",
         {{"enabled", "`vitrail plan`"}, {"disable_fake_mode", "`vitrail plan`"}});
  answer(converter, "experimental",
         {{"enable_async_tensor_parallel", "parallel.tensor_chunks overlaps products"},
          {"enable_compiled_autograd", "no counterpart"},
          {"pipeline_parallel_split_points", "no counterpart: stages are cut evenly"}});
}

}  // namespace

Conversion convert_torchtitan_mae(const std::string& toml, const std::string& name,
                                  const ConvertOptions& options) {
  Problems problems;
  const Node root = parse_toml(toml, name, problems);
  problems.throw_if_any();
  Converter converter(root, printable(name), "torchtitan-mae");
  converter.auto_means("auto: its default");
  converter.enter("training");
  convert_model(converter);
  const int64_t ranks = convert_layout(converter);
  convert_data(converter, options.data_ranks ? options.data_ranks : ranks);
  convert_optimisation(converter);
  convert_precision_of_training(converter);
  convert_recompute(converter);
  convert_saving(converter);
  answer_rest(converter);
  return converter.finish();
}

}  // namespace vitrail::config
