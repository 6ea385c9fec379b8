// DeepSpeed's JSON (version 0.16): the batch, precision, and everything that is neither optimizer nor ZeRO.

#include "vitrail/config/convert_deepspeed.h"

#include <fmt/format.h>

#include "vitrail/config/problems.h"
#include "vitrail/config/yaml.h"

namespace vitrail::config {
namespace {

/// JSON is YAML, but for tabs between values.
Node parse_json(const std::string& text, const std::string& name) {
  std::string spaced = text;
  bool in_string = false;
  for (size_t i = 0; i < spaced.size(); ++i) {
    if (spaced[i] == '"' && (i == 0 || spaced[i - 1] != '\\')) in_string = !in_string;
    if (spaced[i] == '\t' && !in_string) spaced[i] = ' ';
  }
  Problems problems;
  Node root = parse_yaml(spaced, name, problems);
  if (!root.is_map() && problems.empty())
    problems.add(root.place, "a DeepSpeed file must be a JSON object but got " + describe(root));
  problems.throw_if_any();
  return root;
}

struct BatchSizes {
  int64_t whole = 0, micro = 0, steps = 0;  // 0: not given
};

constexpr const char *kWhole = "train_batch_size", *kMicro = "train_micro_batch_size_per_gpu",
                     *kSteps = "gradient_accumulation_steps";

/// 0 for what is not given or wrong.
int64_t size_at(Converter& converter, const char* path) {
  const std::optional<int64_t> value = converter.integer(path);
  if (!value) return 0;
  if (*value >= 1) return *value;
  converter.refuse(path, fmt::format("must be at least 1 but got {}", *value));
  return 0;
}

/// The data ranks that the file alone implies; 0 when it leaves them open.
int64_t implied_ranks(const BatchSizes& sizes) {
  if (!sizes.whole || !sizes.micro || !sizes.steps) return 0;
  return sizes.whole / (sizes.micro * sizes.steps);
}

/// Fills in what DeepSpeed would: the accumulation first. False when nothing whole fits, which is refused.
bool complete(Converter& converter, BatchSizes& sizes, int64_t ranks) {
  const auto refuse = [&](const std::string& why) {
    converter.refuse(kWhole, why);
    return false;
  };
  if (sizes.micro && !sizes.whole) {
    if (!sizes.steps) sizes.steps = 1;
    sizes.whole = sizes.micro * sizes.steps * ranks;
    return true;
  }
  if (!sizes.micro) {
    const int64_t pieces = (sizes.steps ? sizes.steps : 1) * ranks;
    if (sizes.whole % pieces != 0)
      return refuse(fmt::format("must be a multiple of {} x data ranks but got {} and {} x {}",
                                kSteps, sizes.whole, sizes.steps ? sizes.steps : 1, ranks));
    if (!sizes.steps) sizes.steps = 1;
    sizes.micro = sizes.whole / pieces;
    return true;
  }
  if (sizes.whole % (sizes.micro * ranks) != 0)
    return refuse(
        fmt::format("must be {} x {} x data ranks but {} is no multiple of {} samples x "
                    "{} ranks; start another number of ranks or change the sizes",
                    kMicro, kSteps, sizes.whole, sizes.micro, ranks));
  sizes.steps = sizes.whole / (sizes.micro * ranks);
  return true;
}

}  // namespace

void answer(Converter& converter, const std::string& section, const Notes& notes) {
  for (const auto& [key, why] : notes) {
    const std::string path = section.empty() ? key : section + "." + key;
    if (converter.take(path)) converter.note(path, why);
  }
}

void convert_batch(Converter& converter, const ConvertOptions& options) {
  converter.auto_means("auto: found from the other sizes, else the recipe's");
  const BatchSizes given{size_at(converter, kWhole), size_at(converter, kMicro),
                         size_at(converter, kSteps)};
  if (!given.whole && !given.micro) {
    if (given.steps)
      converter.set(kSteps, "train.micro_batches", std::to_string(given.steps),
                    "of the recipe's data.batch_size");
    return;
  }
  if (given.whole && given.micro && given.steps && given.whole % (given.micro * given.steps) != 0) {
    converter.refuse(
        kWhole, fmt::format("must be {} x {} x data ranks but {} is not {} x {} x a whole number",
                            kMicro, kSteps, given.whole, given.micro, given.steps));
    return;
  }
  BatchSizes sizes = given;
  const int64_t implied = implied_ranks(given);
  const int64_t ranks = options.data_ranks ? options.data_ranks : implied ? implied : 1;
  if (!complete(converter, sizes, ranks)) return;
  const std::string identity =
      fmt::format("{} = {} samples x {} pieces x {} data rank{}", sizes.whole, sizes.micro,
                  sizes.steps, ranks, ranks == 1 ? "" : "s");
  const auto set = [&](const char* path, const char* key, int64_t value, const std::string& note) {
    if (converter.has(path))
      converter.set(path, key, std::to_string(value), note);
    else
      converter.derive(key, std::to_string(value), note);
  };
  set(kWhole, "data.batch_size", sizes.whole, identity);
  if (given.micro) converter.note(kMicro, "follows: data.batch_size / data ranks / micro_batches");
  std::string why;
  if (given.steps && sizes.steps != given.steps)
    why = fmt::format("the file is for {} data ranks, here are {}: more pieces keep both sizes",
                      implied, ranks);
  set(kSteps, "train.micro_batches", sizes.steps, why);
}

void convert_precision(Converter& converter) {
  converter.auto_means("auto: the recipe's train.precision stays");
  converter.enter("fp16");
  const char* bf16 = converter.has("bfloat16") ? "bfloat16" : "bf16";
  converter.enter("bf16");
  converter.enter(bf16);
  const std::string bf16_enabled = fmt::format("{}.enabled", bf16);
  const std::optional<bool> half = converter.boolean("fp16.enabled");
  const std::optional<bool> brain = converter.boolean(bf16_enabled);
  if (half.value_or(false) && brain.value_or(false)) {
    converter.refuse("fp16.enabled", "excludes bf16.enabled but both are true");
    return;
  }
  if (half && (*half || !brain))
    converter.set("fp16.enabled", "train.precision", *half ? "fp16" : "fp32");
  else if (half)
    converter.note("fp16.enabled", "the other section says what runs");
  if (brain && (*brain || !half))
    converter.set(bf16_enabled, "train.precision", *brain ? "bf16" : "fp32",
                  *brain ? "master weights are fp32; no loss scale is needed" : "");
  else if (brain)
    converter.note(bf16_enabled, "the other section says what runs");

  const bool scales = half.value_or(false);
  converter.auto_means("auto: DeepSpeed's default, which is vitrail's");
  const auto scaling = [&](const char* name, const char* key, const std::string& note = "") {
    const std::string path = fmt::format("fp16.{}", name);
    const std::optional<double> value = converter.number(path);
    if (!value) return;
    if (!scales) return converter.note(path, "unused while fp16.enabled is not true");
    converter.set(path, fmt::format("train.loss_scale.{}", key), recipe_number(*value), note);
  };
  const Node* fixed = converter.take("fp16.loss_scale");
  scaling("loss_scale", "fixed",
          fixed && as_number(*fixed) == 0.0 ? "0: found while training" : "");
  scaling("initial_scale_power", "initial_power");
  scaling("loss_scale_window", "window");
  scaling("hysteresis", "hysteresis");
  scaling("min_loss_scale", "minimum");
  if (const auto value = converter.boolean("fp16.consecutive_hysteresis"); value && scales)
    converter.set("fp16.consecutive_hysteresis", "train.loss_scale.consecutive_hysteresis",
                  *value ? "true" : "false");
  answer(converter, "fp16",
         {{"auto_cast", "always so: inputs are cast to the weights' type"},
          {"fused_mode", "always so: the optimizer walks flat buffers in one kernel"},
          {"fp16_master_weights_and_grads", "never: master weights and gradients are fp32"}});
  answer(converter, bf16,
         {{"immediate_grad_update", "always so: gradients are added up in fp32 at once"}});
  if (converter.has("bfloat16"))
    converter.note("bfloat16", "deprecated name of DeepSpeed's section bf16");

  converter.enter("data_types");
  answer(converter, "data_types", {{"grad_accum_dtype", "gradients are added up in fp32"}});
  if (const auto type = converter.text("communication_data_type")) {
    if (*type == "bf16" || *type == "bfp16")
      converter.set("communication_data_type", "parallel.reduce_precision", "bf16");
    else if (*type == "fp32")
      converter.set("communication_data_type", "parallel.reduce_precision", "fp32");
    else
      converter.note("communication_data_type",
                     "gradients cross ranks as fp32, or as bf16 "
                     "with parallel.reduce_precision=bf16");
  }
}

namespace {

/// Recompute belongs to the recipe in DeepSpeed too (the model's code); a section that asks for less memory is taken to
/// mean it.
void convert_recompute(Converter& converter, const Recipe& base) {
  const std::string section = "activation_checkpointing";
  if (!converter.enter(section)) return;
  converter.auto_means("auto: off, DeepSpeed's default");
  const bool partition = converter.boolean(section + ".partition_activations").value_or(false);
  const bool on_host = converter.boolean(section + ".cpu_checkpointing").value_or(false);
  const bool is_on = !(base.train.recompute == "none");
  const std::string wanted = is_on ? base.train.recompute.value : "block";
  const char* const why = "DeepSpeed leaves to the model's code which blocks; train.recompute says";
  if (converter.has(section + ".partition_activations")) {
    if (partition)
      converter.set(
          section + ".partition_activations", "train.recompute", wanted,
          std::string(why) + ". Tensor ranks keep a share of each input with parallel.split_norms");
    else
      converter.note(section + ".partition_activations", "off");
  }
  if (converter.has(section + ".cpu_checkpointing")) {
    if (on_host) {
      converter.set(section + ".cpu_checkpointing", "train.offload_activations", "true",
                    "copies overlap with compute");
      if (!partition) converter.set(section + ".cpu_checkpointing", "train.recompute", wanted, why);
    } else {
      converter.note(section + ".cpu_checkpointing", "off");
    }
  }
  answer(
      converter, section,
      {{"contiguous_memory_optimization",
        "needs no counterpart: the allocator reuses one "
        "block's memory for the next"},
       {"number_checkpoints", "needs no counterpart: nothing is allocated for checkpoints ahead"},
       {"synchronize_checkpoint_boundary", "off; `vitrail train --trace FILE` shows times"},
       {"profile", "`vitrail train --trace FILE` shows times"}});
}

/// Sections that change what is learnt when they are on.
void refuse_sections(Converter& converter) {
  const Notes sections{
      {"amp", "is Apex's mixed precision, which vitrail lacks; use fp16 or bf16"},
      {"sparse_attention", "is not in vitrail (model.kind rat has its own sparse attention)"},
      {"progressive_layer_drop", "is not in vitrail; model.drop_path_rate drops whole branches"},
      {"curriculum_learning", "is not in vitrail"},
      {"data_efficiency", "is not in vitrail"},
      {"compression_training", "is not in vitrail"},
      {"quantize_training", "is not in vitrail"},
      {"eigenvalue", "is not in vitrail"},
      {"elasticity", "is not in vitrail; checkpoints load on any number of ranks"}};
  for (const auto& [section, why] : sections) {
    if (!converter.take(section)) continue;
    const std::string enabled = fmt::format("{}.enabled", section);
    const Node* value = converter.take(enabled);
    const bool is_on = value ? as_bool(*value).value_or(true) : true;
    if (is_on)
      converter.refuse(section, why);
    else
      converter.note(section, "off");
  }
}

void convert_logging(Converter& converter) {
  converter.auto_means("auto: the recipe's value stays");
  if (const auto steps = converter.integer("steps_per_print")) {
    if (*steps >= 1)
      converter.set("steps_per_print", "logging.every_steps", std::to_string(*steps));
    else
      converter.refuse("steps_per_print", fmt::format("must be at least 1 but got {}", *steps));
  }
  if (converter.enter("tensorboard")) {
    if (const auto on = converter.boolean("tensorboard.enabled"))
      converter.set("tensorboard.enabled", "logging.tensorboard", *on ? "true" : "false");
    answer(converter, "tensorboard",
           {{"output_path", "events lie in the run's folder, run.output/run.name/tensorboard"},
            {"job_name", "run.name names the run"}});
  }
  if (const auto drop = converter.boolean("dataloader_drop_last"))
    converter.set("dataloader_drop_last", "data.drop_last", *drop ? "true" : "false");
}

}  // namespace

void convert_rest(Converter& converter, const ConvertOptions& options) {
  convert_recompute(converter, options.base);
  refuse_sections(converter);
  convert_logging(converter);
  if (converter.enter("tensor_parallel"))
    if (const auto size = converter.integer("tensor_parallel.autotp_size"); size && *size > 1)
      converter.set("tensor_parallel.autotp_size", "parallel.tensor", std::to_string(*size));
  answer(
      converter, "",
      {{"prescale_gradients", "needs no counterpart: gradients are averaged in fp32"},
       {"gradient_predivide_factor", "needs no counterpart: gradients are averaged in fp32"},
       {"sparse_gradients", "no counterpart: no layer has sparse gradients"},
       {"zero_allow_untested_optimizer", "no counterpart: adamw and sgd are tested"},
       {"zero_force_ds_cpu_optimizer", "always so: an offloaded update runs vitrail's own loop"},
       {"wall_clock_breakdown", "`vitrail train --trace FILE` and `vitrail bench step --profile`"},
       {"memory_breakdown", "`vitrail plan` lists memory by kind; metrics hold the peak"},
       {"dump_state", "`vitrail check` prints every value with its origin"},
       {"flops_profiler", "model_tflops and mfu are in every metrics line"},
       {"comms_logger", "`vitrail train --trace FILE` shows every exchange"},
       {"autotuning", "`vitrail plan --search` proposes layouts"},
       {"wandb", "no counterpart: metrics.jsonl and TensorBoard events are written"},
       {"csv_monitor", "always so in JSON: metrics.jsonl"},
       {"comet", "no counterpart: metrics.jsonl and TensorBoard events are written"},
       {"aio", "needs no counterpart: offload nvme reads and writes a unit ahead by itself"},
       {"checkpoint", "needs no counterpart: sharded, verified, loadable on any number of ranks"},
       {"graph_harvesting", "train.cuda_graph auto records steps where they can be"},
       {"disable_allgather", "no counterpart"},
       {"vocabulary_size", "no counterpart: images have no vocabulary"},
       {"compile", "no counterpart: train.engine auto takes the fused engine"},
       {"torch_autocast", "no counterpart: train.precision says how everything is computed"},
       {"timers", "`vitrail train --trace FILE` shows times"},
       {"communication_options", "no counterpart"},
       {"seq_parallel_comm_data_type", "exchanges of sequence ranks keep the type of the tensor"},
       {"use_data_before_expert_parallelism", "no counterpart: there are no experts"},
       {"hybrid_engine", "no counterpart: `vitrail predict` applies models"},
       {"nebula", "no counterpart: checkpoint.async writes in the background"},
       {"local_rank", "comes from the launcher"},
       {"weight_quantization", "no counterpart"}});
}

Conversion convert_deepspeed(const std::string& json, const std::string& name,
                             const ConvertOptions& options) {
  const Node root = parse_json(json, name);
  Converter converter(root, printable(name), "DeepSpeed");
  convert_batch(converter, options);
  convert_precision(converter);
  convert_optimizer(converter, options);
  convert_zero(converter);
  convert_rest(converter, options);
  return converter.finish();
}

}  // namespace vitrail::config
