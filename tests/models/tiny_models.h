#pragma once
/// Models of a few thousand parameters and inputs for them.

#include <set>
#include <string>
#include <vector>

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/zeros.h>

#include "vitrail/models/model.h"
#include "vitrail/ops/random.h"

namespace vitrail::models {
inline config::Model tiny(const char* kind) {
  config::Model options;
  options.kind.value = kind;
  options.image_size = {8, 12};
  options.patch_size = 4, options.in_channels = 2, options.num_classes = 5;
  options.embed_dim = 16, options.depth = 2, options.num_heads = 2, options.mlp_ratio = 2;
  options.decoder_embed_dim = 8, options.decoder_depth = 2, options.decoder_num_heads = 2,
  options.mask_ratio = 0.5;
  if (options.kind == "mae") options.pos_embed.value = "sincos", options.loss.value = "masked_mse";
  return options;
}

inline at::Tensor random(at::IntArrayRef shape, uint16_t layer = 0) {
  int64_t count = 1;
  for (const int64_t side : shape) count *= side;
  return (ops::uniform({9, core::Stream::test, 0, layer}, at::zeros({1}, at::kLong), count)
              .view(shape) -
          0.5) *
         2.0;
}

/// The same sample under the same id in any batch. Adaptive: the last third of sample 1's leaves is padding with
/// arbitrary content.
inline data::Batch batch_for(const config::Model& options, int64_t size, int64_t first_id = 0) {
  data::Batch batch;
  const int64_t count = first_id + size, L = options.adaptive.fixed_length;
  const auto axes = static_cast<int64_t>(options.image_size.size());
  std::vector<int64_t> shape{count, options.in_channels};
  if (L > 0) {
    int64_t pixels = 1;
    for (int64_t axis = 0; axis < axes; ++axis) pixels *= options.patch_size;
    batch.leaf_tokens = random({count, options.in_channels, L, pixels}).slice(0, first_id).clone();
    const at::Tensor low = (random({count, L, axes}, 1) + 1.0) * 3.0;
    at::Tensor boxes = at::cat({low, low + (random({count, L, axes}, 2) + 1.5)}, -1);
    if (count > 1) boxes.select(0, 1).slice(0, L - L / 3).zero_();
    batch.leaf_boxes = boxes.slice(0, first_id).clone();
  } else {
    shape.insert(shape.end(), options.image_size.begin(), options.image_size.end());
    batch.image = random(shape).slice(0, first_id).clone();
  }
  batch.label = at::arange(first_id, first_id + size, at::kLong).remainder(5);
  batch.sample_ids = at::arange(first_id, first_id + size, at::kLong);
  return batch;
}

inline nn::Draws draws_of(const data::Batch& batch, bool training = false) {
  return {3, 1, batch.sample_ids, training};
}

inline void randomise(Model& model) {
  const at::NoGradGuard no_grad;
  uint16_t layer = 50;
  for (nn::NamedTensor& parameter : model.named_parameters())
    parameter.tensor.copy_(random(parameter.tensor.sizes(), layer++) * 0.5);
}

inline std::set<std::string> names_of(const std::vector<nn::NamedTensor>& tensors) {
  std::set<std::string> names;
  for (const nn::NamedTensor& entry : tensors) names.insert(entry.name);
  return names;
}

/// What `tiny` is made into by name: "mae, 3-D, shared keys, raster" and so on.
struct Variant {
  const char* name;
  config::Model (*options)();
};

inline void make_3d(config::Model& options) {
  options.image_size = {4, 8, 8}, options.embed_dim = 24, options.decoder_embed_dim = 12;
  options.num_heads = 2, options.decoder_num_heads = 1;
}

inline void add_variables(config::Model& options, int64_t count) {
  options.in_channels = count;
  for (int64_t v = 0; v < count; ++v) options.variables.push_back("v" + std::to_string(v));
}

inline void make_adaptive(config::Model& options) {
  options.adaptive.fixed_length = 6;
  options.pos_embed.value = "learned";
}

inline const std::vector<Variant>& variants() {
  static const std::vector<Variant> all{
      {"vit_3d_axial_gqa_attention_pool",
       [] {
         config::Model options = tiny("vit");
         make_3d(options);
         options.rope.value = "axial", options.num_kv_heads = 1, options.pool.value = "attention";
         options.register_tokens = 2, options.loss.value = "focal";
         return options;
       }},
      {"mae_3d_raster_gqa_no_bias",
       [] {
         config::Model options = tiny("mae");
         make_3d(options);
         options.rope.value = "raster", options.num_kv_heads = 1, options.pos_embed.value = "none";
         options.qkv_bias = options.proj_bias = options.patch_bias = options.class_token = false;
         options.norm.value = "rmsnorm", options.mlp.value = "swiglu", options.norm_pix_loss = true;
         options.decoder_rope_theta = 100.0;
         return options;
       }},
      {"mae_with_registers",
       [] {
         config::Model options = tiny("mae");
         options.register_tokens = 2, options.pos_embed.value = "learned";
         return options;
       }},
      {"vit_variables",
       [] {
         config::Model options = tiny("vit");
         add_variables(options, 4);
         options.aggregation.queries = 3, options.aggregation.num_heads = 4, options.qk_norm = true;
         return options;
       }},
      {"vit_variables_linear_in_cross_groups",
       [] {
         config::Model options = tiny("vit");
         add_variables(options, 4);
         options.aggregation.groups = 2, options.aggregation.kind.value = "linear";
         options.aggregation.partial.value = "cross_attention";
         options.shared_tokenizer = true;
         return options;
       }},
      {"mae_variables_cross_in_linear_groups",
       [] {
         config::Model options = tiny("mae");
         add_variables(options, 4);
         options.aggregation.groups = 2, options.aggregation.shared_groups = true;
         return options;
       }},
      {"vit_adaptive_average",
       [] {
         config::Model options = tiny("vit");
         make_adaptive(options);
         options.pool.value = "avg";
         return options;
       }},
      {"vit_adaptive_variables_table",
       [] {
         config::Model options = tiny("vit");
         make_adaptive(options);
         add_variables(options, 2);
         options.adaptive.position_embedding = false, options.pool.value = "attention";
         return options;
       }},
      {"mae_adaptive",
       [] {
         config::Model options = tiny("mae");
         make_adaptive(options);
         return options;
       }},
      {"mae_adaptive_linear_decoder",
       [] {
         config::Model options = tiny("mae");
         make_adaptive(options);
         options.decoder.value = "linear", options.loss.value = "mse", options.class_token = false;
         return options;
       }},
  };
  return all;
}

}  // namespace vitrail::models
