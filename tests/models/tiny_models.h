#pragma once
/// Models of a few thousand parameters and inputs for them.

#include <algorithm>
#include <set>
#include <string>
#include <vector>

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/stack.h>
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

/// Boxes [count + padding, 2k] that tile an image: the largest, the first of equals, is halved along its longest side until
/// there are enough. `turn` begins with another axis where sides are equal, so that samples differ.
inline at::Tensor tiling(const std::vector<int64_t>& sides, int64_t count, int64_t padding = 0,
                         int64_t turn = 0) {
  const size_t axes = sides.size();
  std::vector<std::vector<int64_t>> boxes{std::vector<int64_t>(2 * axes)};
  std::copy(sides.begin(), sides.end(), boxes[0].begin() + static_cast<std::ptrdiff_t>(axes));
  while (static_cast<int64_t>(boxes.size()) < count) {
    size_t largest = 0, longest = 0;
    int64_t most = 0;
    for (size_t b = 0; b < boxes.size(); ++b) {
      int64_t volume = 1;
      for (size_t a = 0; a < axes; ++a) volume *= boxes[b][axes + a] - boxes[b][a];
      if (volume > most) most = volume, largest = b;
    }
    int64_t length = 0;
    for (size_t i = 0; i < axes; ++i) {
      const size_t a = (i + static_cast<size_t>(turn)) % axes;
      const int64_t side = boxes[largest][axes + a] - boxes[largest][a];
      if (side > length) length = side, longest = a;
    }
    std::vector<int64_t> upper = boxes[largest];
    const int64_t middle = upper[longest] + length / 2;
    boxes[largest][axes + longest] = upper[longest] = middle;
    boxes.push_back(upper);
  }
  at::Tensor all = at::zeros({count + padding, static_cast<int64_t>(2 * axes)});
  for (size_t b = 0; b < boxes.size(); ++b)
    for (size_t i = 0; i < 2 * axes; ++i)
      all[static_cast<int64_t>(b)][static_cast<int64_t>(i)] = static_cast<double>(boxes[b][i]);
  return all;
}

/// Boxes of `count` samples by their ids; the last third of every tree of sample 1 is padding.
inline at::Tensor tilings(const config::Model& options, int64_t count) {
  const int64_t L = options.adaptive.fixed_length, trees = options.num_leaves() / L;
  std::vector<at::Tensor> samples;
  for (int64_t id = 0; id < count; ++id) {
    std::vector<at::Tensor> of_sample;
    for (int64_t tree = 0; tree < trees; ++tree) {
      const int64_t padding = id == 1 ? L / 3 : 0;
      of_sample.push_back(tiling(options.image_size, L - padding, padding, id + tree));
    }
    samples.push_back(at::cat(of_sample));
  }
  return at::stack(samples);
}

/// The same sample under the same id in any batch. Adaptive: the last third of sample 1's leaves is padding with
/// arbitrary content; the image comes too where the loss reads it. Mixed resolution: an image.
inline data::Batch batch_for(const config::Model& options, int64_t size, int64_t first_id = 0) {
  data::Batch batch;
  const int64_t count = first_id + size, L = options.num_leaves();
  const bool adaptive = options.adaptive.fixed_length > 0;
  if (adaptive) {
    int64_t pixels = 1;
    for (size_t axis = 0; axis < options.image_size.size(); ++axis) pixels *= options.patch_size;
    const int64_t channels = options.adaptive.trees == "shared" ? options.in_channels : 1;
    batch.leaf_tokens = random({count, channels, L, pixels}).slice(0, first_id).clone();
    batch.leaf_boxes = tilings(options, count).slice(0, first_id).clone();
  }
  if (!adaptive || options.adaptive.loss_space == "image") {
    std::vector<int64_t> shape{count, options.in_channels};
    shape.insert(shape.end(), options.image_size.begin(), options.image_size.end());
    batch.image = random(shape, adaptive ? 1 : 0).slice(0, first_id).clone();
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

inline void make_mixed(config::Model& options) {
  options.image_size = {8, 16};
  options.patch_size = 2, options.mixed_resolution.max_patch = 8;
  options.mixed_resolution.num_tokens = 11;  // two patches, three divisions
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
         options.adaptive.position_embedding = false, options.adaptive.token_norm = true;
         options.pool.value = "attention";
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
      {"mae_adaptive_by_area",
       [] {
         config::Model options = tiny("mae");
         make_adaptive(options);
         options.adaptive.area_weight = true;
         return options;
       }},
      {"mae_adaptive_on_the_image",
       [] {
         config::Model options = tiny("mae");
         make_adaptive(options);
         options.adaptive.loss_space.value = "image", options.adaptive.position_embedding = false;
         options.pos_embed.value = "sincos";
         return options;
       }},
      {"vit_adaptive_sincos",
       [] {
         config::Model options = tiny("vit");
         make_adaptive(options);
         options.adaptive.position_embedding = false, options.pos_embed.value = "sincos";
         return options;
       }},
      {"vit_trees_per_channel",
       [] {
         config::Model options = tiny("vit");
         make_adaptive(options);
         add_variables(options, 3);
         options.adaptive.trees.value = "per_channel", options.pool.value = "avg";
         return options;
       }},
      {"mae_trees_per_channel",
       [] {
         config::Model options = tiny("mae");
         make_adaptive(options);
         add_variables(options, 3);
         options.adaptive.trees.value = "per_channel", options.shared_tokenizer = true;
         options.adaptive.position_embedding = false;
         return options;
       }},
      {"mae_trees_per_channel_on_the_image",
       [] {
         config::Model options = tiny("mae");
         make_adaptive(options);
         add_variables(options, 2);
         options.adaptive.trees.value = "per_channel";
         options.adaptive.loss_space.value = "image", options.loss.value = "mse";
         return options;
       }},
      {"vit_mixed_resolution",
       [] {
         config::Model options = tiny("vit");
         make_mixed(options);
         options.mixed_resolution.size_embedding = true, options.pos_embed.value = "sincos";
         return options;
       }},
      {"mae_mixed_resolution",
       [] {
         config::Model options = tiny("mae");
         make_mixed(options);
         options.pos_embed.value = "learned", options.norm_pix_loss = true;
         return options;
       }},
  };
  return all;
}

}  // namespace vitrail::models
