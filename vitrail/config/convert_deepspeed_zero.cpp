// DeepSpeed's section zero_optimization.

#include <fmt/format.h>

#include "vitrail/config/convert_deepspeed.h"

namespace vitrail::config {
namespace {

const std::string kZero = "zero_optimization";

std::string at(const std::string& key) { return kZero + "." + key; }

/// DeepSpeed takes many keys with and without "stage3_" in front.
std::string either(const Converter& converter, const std::string& key) {
  return converter.has(at(key)) ? at(key) : at("stage3_" + key);
}

const char* strategy_of(int64_t stage) {
  constexpr const char* names[] = {"ddp", "zero1", "zero2", "zero3"};
  return names[stage];
}

/// -1 when there is none.
int64_t convert_stage(Converter& converter) {
  const Node* section = converter.take(kZero);
  if (const std::optional<bool> old = section ? as_bool(*section) : std::nullopt) {
    converter.set(kZero, "parallel.strategy", *old ? "zero1" : "ddp",
                  "deprecated form of \"stage\": " + std::string(*old ? "1" : "0"));
    return -1;
  }
  if (!converter.enter(kZero)) return -1;
  converter.auto_means("auto: DeepSpeed's default");
  const int64_t stage = converter.integer(at("stage")).value_or(0);
  if (stage < 0 || stage > 3) {
    converter.refuse(at("stage"), fmt::format("must be 0, 1, 2 or 3 but got {}", stage));
    return -1;
  }
  const char* const divides[] = {"nothing is divided", "optimizer state", "and gradients",
                                 "and weights"};
  if (converter.has(at("stage")))
    converter.set(at("stage"), "parallel.strategy", strategy_of(stage), divides[stage]);
  else
    converter.derive("parallel.strategy", "ddp", "zero_optimization without a stage is stage 0");
  return stage;
}

struct Offload {
  std::string optimizer = "none", parameters = "none";  // none, cpu, nvme
  std::string folder;
  std::string optimizer_path, parameters_path;  // the keys that say so
};

std::string device_at(Converter& converter, const std::string& section) {
  if (!converter.enter(section)) return "none";
  converter.auto_means("auto: none, DeepSpeed's default");
  const std::string device = converter.text(section + ".device").value_or("none");
  if (device == "none" || device == "cpu" || device == "nvme") return device;
  converter.refuse(section + ".device", "must be none, cpu or nvme but got '" + device + "'");
  return "none";
}

Offload read_offload(Converter& converter) {
  Offload offload;
  offload.optimizer_path = at("offload_optimizer.device");
  offload.parameters_path = at("offload_param.device");
  offload.optimizer = device_at(converter, at("offload_optimizer"));
  offload.parameters = device_at(converter, at("offload_param"));
  offload.folder = converter.text(at("offload_optimizer.nvme_path")).value_or("");
  for (const auto& [old, now, device, path] :
       {std::tuple{"cpu_offload", "offload_optimizer", &offload.optimizer, &offload.optimizer_path},
        std::tuple{"cpu_offload_param", "offload_param", &offload.parameters,
                   &offload.parameters_path}}) {
    const std::optional<bool> on = converter.boolean(at(old));
    if (!on) continue;
    converter.note(at(old), fmt::format("deprecated: became {}{}", now,
                                        *on ? ".device = cpu" : "; false asks for nothing"));
    if (*on && *device == "none") *device = "cpu", *path = at(old);
  }
  answer(converter, kZero,
         {{"cpu_offload_use_pin_memory", "deprecated; always so: host buffers are page-locked"}});
  return offload;
}

/// One word of ours for the two sections: parameters implies the optimizer.
void convert_offload(Converter& converter, int64_t stage) {
  const Offload offload = read_offload(converter);
  const auto off = [&](const std::string& path, const std::string& device) {
    if (converter.has(path) && device == "none") converter.note(path, "off");
  };
  off(at("offload_optimizer.device"), offload.optimizer);
  off(at("offload_param.device"), offload.parameters);
  if (offload.parameters != "none" && stage != 3) {
    converter.note(offload.parameters_path, "DeepSpeed offloads parameters at stage 3 only");
  } else if (offload.parameters != "none") {
    converter.set(offload.parameters_path, "parallel.offload", "parameters",
                  offload.optimizer == "none" ? "takes the optimizer's state along"
                                              : "the optimizer's state too");
    if (offload.parameters == "nvme" || offload.optimizer == "nvme")
      converter.note(offload.parameters_path,
                     "with the weights in host memory nothing goes to files");
    if (offload.optimizer != "none")
      converter.note(offload.optimizer_path, "follows from offload_param");
    return;
  }
  if (offload.optimizer == "none") return;
  if (stage == 0) {
    converter.note(offload.optimizer_path, "DeepSpeed offloads at stages 1 to 3 only");
  } else if (offload.optimizer == "cpu") {
    converter.set(offload.optimizer_path, "parallel.offload", "optimizer");
  } else if (offload.folder.empty()) {
    converter.refuse(offload.optimizer_path, "nvme needs nvme_path, a folder on a fast disk");
  } else {
    converter.set(offload.optimizer_path, "parallel.offload", "nvme");
    converter.set(at("offload_optimizer.nvme_path"), "parallel.offload_folder",
                  recipe_text(offload.folder));
  }
}

void answer_offload(Converter& converter) {
  const char* const pinned = "always so: host buffers are page-locked";
  const char* const buffers = "needs no counterpart: buffers are as large as the largest unit";
  answer(converter, at("offload_optimizer"),
         {{"pin_memory", pinned},
          {"buffer_count", buffers},
          {"pipeline", "always so: one unit is read while another is updated"},
          {"pipeline_read", "always so: a unit is read ahead"},
          {"pipeline_write", "always so: a unit is written behind"},
          {"fast_init", "no counterpart"},
          {"ratio", "whole: the update of all elements runs on the host"}});
  answer(converter, at("offload_param"),
         {{"pin_memory", pinned},
          {"buffer_count", buffers},
          {"buffer_size", buffers},
          {"max_in_cpu", "no counterpart: all weights are there"}});
  for (const char* section : {"offload_optimizer", "offload_param"}) {
    const std::string path = at(section) + ".nvme_path";
    if (converter.take(path)) converter.note(path, "of the device nvme");
  }
}

/// Groups of ranks inside which weights are divided.
void convert_groups(Converter& converter, int64_t stage) {
  converter.auto_means("auto: DeepSpeed's default, none");
  if (const auto size = converter.integer(at("zero_hpz_partition_size")); size && *size > 1) {
    if (stage != 3) {
      converter.note(at("zero_hpz_partition_size"), "of stage 3 only");
    } else {
      converter.set(at("zero_hpz_partition_size"), "parallel.shard", std::to_string(*size));
      converter.set(at("zero_hpz_partition_size"), "parallel.shard_optimizer", "all",
                    "weights are divided inside the group, optimizer state over all ranks");
    }
  } else if (size) {
    converter.note(at("zero_hpz_partition_size"), "1: no groups");
  }
  if (const auto size = converter.integer(at("mics_shard_size")); size && *size > 0) {
    converter.set(at("mics_shard_size"), "parallel.strategy", "hybrid");
    converter.set(at("mics_shard_size"), "parallel.shard", std::to_string(*size));
  } else if (size) {
    converter.note(at("mics_shard_size"), "off");
  }
}

void convert_sizes(Converter& converter, int64_t stage) {
  constexpr double kMebi = 1048576.0;
  converter.auto_means("auto: the recipe's value stays");
  if (const auto elements = converter.number(at("reduce_bucket_size"))) {
    if (stage == 0 && *elements >= 1)
      converter.set(at("reduce_bucket_size"), "parallel.bucket_mib",
                    recipe_number(4 * *elements / kMebi), "elements in fp32");
    else
      converter.note(at("reduce_bucket_size"),
                     "gradients are reduced block by block (parallel.bucket_mib is for ddp)");
  }
  const std::string persist = either(converter, "param_persistence_threshold");
  converter.take(at("param_persistence_threshold"));
  if (const auto elements = converter.integer(persist)) {
    if (stage == 3)
      converter.set(persist, "parallel.persist_below", std::to_string(*elements),
                    "of whole units (blocks) here, of tensors there");
    else
      converter.note(persist, "of stage 3 only");
  }
  const std::string prefetch = either(converter, "prefetch_bucket_size");
  converter.take(at("prefetch_bucket_size"));
  if (const auto elements = converter.number(prefetch)) {
    if (*elements == 0)
      converter.set(prefetch, "parallel.prefetch_depth", "0", "nothing ahead of use");
    else
      converter.note(prefetch, "counted in blocks here: parallel.prefetch_depth");
  }
}

}  // namespace

void convert_zero(Converter& converter) {
  const int64_t stage = convert_stage(converter);
  if (stage < 0) return;
  convert_offload(converter, stage);
  answer_offload(converter);
  convert_groups(converter, stage);
  convert_sizes(converter, stage);
  const char* const live =
      "counted in blocks here: at most parallel.prefetch_depth + 1 are whole at once";
  const char* const saved = "always so: weights.safetensors holds the whole weights, in fp32";
  const char* const unquantised = "no counterpart: weights cross ranks in the compute type";
  answer(
      converter, kZero,
      {{"allgather_partitions", "always so: updated weights come by all-gather"},
       {"allgather_bucket_size", "weights are gathered block by block"},
       {"overlap_comm", "always so: reductions run while backward goes on"},
       {"reduce_scatter", "always so from stage 1 on"},
       {"contiguous_gradients", "always so: gradients lie in one flat buffer"},
       {"round_robin_gradients", "needs no counterpart: every rank copies its own slice only"},
       {"load_from_fp32_weights", "always so: master weights are loaded as fp32"},
       {"ignore_unused_parameters", "always so: a parameter without a gradient keeps zero"},
       {"sub_group_size", "needs no counterpart: the update runs unit by unit"},
       {"stage3_max_live_parameters", live},
       {"max_live_parameters", live},
       {"stage3_max_reuse_distance", live},
       {"max_reuse_distance", live},
       {"stage3_model_persistence_threshold", "no counterpart: parallel.persist_below alone says"},
       {"model_persistence_threshold", "no counterpart: parallel.persist_below alone says"},
       {"stage3_gather_16bit_weights_on_model_save", saved},
       {"gather_16bit_weights_on_model_save", saved},
       {"stage3_gather_fp16_weights_on_model_save",
        "deprecated: became stage3_gather_16bit_weights_on_model_save; always so, in fp32"},
       {"zero_quantized_weights", unquantised},
       {"zero_quantized_gradients",
        "no counterpart; parallel.reduce_precision=bf16 halves what crosses ranks"},
       {"zero_quantized_nontrainable_weights", unquantised},
       {"zeropp_loco_param", "no counterpart"},
       {"mics_hierarchical_params_gather", "no counterpart"},
       {"elastic_checkpoint", "deprecated; checkpoints load on any number of ranks"},
       {"legacy_stage1", "deprecated; there is one stage 1"},
       {"use_multi_rank_bucket_allreduce", "no counterpart"},
       {"use_all_reduce_for_fetch_params", "never: weights come by all-gather"},
       {"stage3_use_all_reduce_for_fetch_params", "never: weights come by all-gather"},
       {"module_granularity_threshold", "no counterpart: a block is gathered whole"},
       {"stage3_module_granularity_threshold", "no counterpart: a block is gathered whole"},
       {"memory_efficient_linear", "needs no counterpart"},
       {"override_module_apply", "no counterpart"},
       {"pipeline_loading_checkpoint", "no counterpart"}});
}

}  // namespace vitrail::config
