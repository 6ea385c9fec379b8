#pragma once
/// The recipe's section `model`: what is trained. See recipe.h for how fields are described.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "vitrail/config/choice.h"
#include "vitrail/config/recipe_tasks.h"

namespace vitrail::config {

struct Weights {
  std::string path;
  Choice from{"auto",
              {"auto", "vitrail", "timm", "mae", "hf", "monai", "ucf-vit", "torchtitan-mae"}};
  bool strict = true;
  bool adapt = false;

  template <class Self, class Visitor>
  static void fields(Self& self, Visitor& visit) {
    visit("path", self.path, "safetensors file to start from; empty = fresh initialisation");
    visit("from", self.from, "naming scheme of the file");
    visit("strict", self.strict,
          "every parameter must be found with its shape; otherwise what matched is reported");
    visit("adapt", self.adapt,
          "resample position tables to this grid, inflate 2-D patches to 3-D, sum or repeat "
          "channels; every change is reported");
  }
  bool operator==(const Weights&) const = default;
};

/// How the tokens of one place, one per variable, become one.
struct Aggregation {
  Choice kind{"cross_attention", {"cross_attention", "linear"}};
  int64_t queries = 1;
  std::optional<int64_t> num_heads;
  int64_t groups = 1;
  Choice partial{"linear", {"linear", "cross_attention"}};
  bool shared_groups = false;

  template <class Self, class Visitor>
  static void fields(Self& self, Visitor& visit) {
    visit("kind", self.kind, "learned queries attend to the variables, or a learned weighted sum");
    visit("queries", self.queries,
          "cross_attention: learned queries per place; their results are merged by a linear layer");
    visit("num_heads", self.num_heads, "cross_attention: heads; null = model.num_heads");
    visit("groups", self.groups,
          "variables are first aggregated inside this many groups of neighbours, then over groups");
    visit("partial", self.partial, "form of the aggregation inside groups");
    visit("shared_groups", self.shared_groups, "all groups use the same weights");
  }
  bool operator==(const Aggregation&) const = default;
};

/// Tokens from adaptive patching: a fixed number of leaves of a tree over the image.
struct Adaptive {
  int64_t fixed_length = 0;
  Choice order{"morton", {"morton", "raster"}};
  Choice importance{"edges", {"edges", "gradient", "variance", "given", "feature_based"}};
  int64_t importance_channel = 0;
  int64_t min_leaf = 0;
  int64_t value_floor = -1;
  Choice resample{"area", {"area", "cubic", "linear"}};
  Choice labels{"majority", {"majority", "nearest"}};
  Choice trees{"shared", {"shared", "per_channel"}};
  Choice compat{"none", {"none", "ucf-vit"}};
  bool token_norm = false;
  bool position_embedding = true;
  bool area_weight = false;
  Choice loss_space{"leaf", {"leaf", "image"}};
  std::string scorer_weights;

  template <class Self, class Visitor>
  static void fields(Self& self, Visitor& visit) {
    visit("fixed_length", self.fixed_length, "leaves of one sample; 0 = a grid of patches");
    visit("order", self.order, "order of the leaves");
    visit("importance", self.importance,
          "what leaves are divided by: Canny edges, length of the gradient, variance around the "
          "local mean, one channel of the image, or a network's features lost by blurring");
    visit("importance_channel", self.importance_channel,
          "importance given: the channel that holds it");
    visit("min_leaf", self.min_leaf, "edge of the smallest leaf in pixels; 0 = patch_size");
    visit("value_floor", self.value_floor,
          "leaves whose importance sums to no more than this are not divided; -1 = all may be");
    visit("resample", self.resample,
          "leaves to patches and back: area average where they shrink and linear where they grow, "
          "bicubic as OpenCV's, or linear");
    visit("labels", self.labels, "classes of a patch's pixels: the most frequent, or the nearest");
    visit("trees", self.trees,
          "one tree over all channels, or one for each, whose leaves become tokens of their own");
    visit("compat", self.compat, "another program's rules and order, slow, for comparison");
    visit(
        "token_norm", self.token_norm,
        "LayerNorms before and after the linear layer over a leaf, as UCF-VIT has them; the first "
        "takes a leaf's brightness and contrast away");
    visit("position_embedding", self.position_embedding,
          "an MLP of each leaf's size and centre, beside model.pos_embed sincos if that is chosen; "
          "false: "
          "model.pos_embed alone, by place in the list or sin-cos of the centre");
    visit("area_weight", self.area_weight,
          "mae, sap: a leaf counts in the loss by the pixels it covers");
    visit("loss_space", self.loss_space,
          "mae, sap: where prediction and target are compared: on the leaves' patches, or on the "
          "image after pasting");
    visit("scorer_weights", self.scorer_weights,
          "importance feature_based: safetensors file of a ShuffleNetV2 x0.5 (torchvision names)");
  }
  bool operator==(const Adaptive&) const = default;
};

/// Tokens of three or more sizes: patches of max_patch are divided down to min_patch where a scorer finds most.
struct MixedResolution {
  int64_t num_tokens = 0;
  std::optional<int64_t> min_patch;
  int64_t max_patch = 64;
  Choice scorer{"pixel_blur", {"pixel_blur", "feature_based", "given", "random"}};
  int64_t scorer_channel = 0;
  std::string scorer_weights;
  bool size_embedding = false;

  template <class Self, class Visitor>
  static void fields(Self& self, Visitor& visit) {
    visit("num_tokens", self.num_tokens, "tokens of one image; 0 = a grid of patches");
    visit("min_patch", self.min_patch,
          "edge of the smallest patch in pixels, and of every token's pixels; null = patch_size, "
          "which it must equal");
    visit("max_patch", self.max_patch, "edge of the largest patch, min_patch times a power of two");
    visit("scorer", self.scorer,
          "what patches are divided by: the pixels or a network's features lost by blurring, one "
          "channel of the image, or chance");
    visit("scorer_channel", self.scorer_channel, "scorer given: the channel that holds it");
    visit("scorer_weights", self.scorer_weights,
          "scorer feature_based: safetensors file of a ShuffleNetV2 x0.5 (torchvision names)");
    visit("size_embedding", self.size_embedding, "add a learned vector for each patch size");
  }
  bool operator==(const MixedResolution&) const = default;
};

struct Model {
  Choice kind{"vit", {"vit", "mae", "unetr", "sap", "diffusion", "rat", "vit_detection"}};
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
  bool proj_bias = true;
  bool qk_norm = false;
  std::optional<int64_t> num_kv_heads;
  std::optional<double> layer_scale;
  Choice norm{"layernorm", {"layernorm", "rmsnorm"}};
  double norm_eps = 1e-6;
  Choice mlp{"gelu", {"gelu", "gelu_tanh", "swiglu"}};
  std::optional<int64_t> mlp_hidden_dim;
  double drop_path_rate = 0.0;
  double attn_drop_rate = 0.0;
  double proj_drop_rate = 0.0;
  // ends
  bool class_token = true;
  int64_t register_tokens = 0;
  Choice pool{"token", {"token", "avg", "attention", "none"}};
  bool final_norm = true;
  Choice pos_embed{"learned", {"learned", "sincos", "none"}};
  Choice rope{"none", {"none", "raster", "axial"}};
  double rope_theta = 10000.0;
  double pos_drop_rate = 0.0;
  double patch_drop_rate = 0.0;
  double drop_rate = 0.0;
  bool patch_bias = true;
  // variables
  std::vector<std::string> variables;
  bool variable_embedding = true;
  bool shared_tokenizer = false;
  bool single_channel = false;
  Aggregation aggregation;
  Adaptive adaptive;
  MixedResolution mixed_resolution;
  // mae
  double mask_ratio = 0.75;
  Choice decoder{"transformer", {"transformer", "linear", "conv"}};
  int64_t decoder_embed_dim = 512;
  int64_t decoder_depth = 8;
  int64_t decoder_num_heads = 16;
  double decoder_mlp_ratio = 4.0;
  std::optional<double> decoder_rope_theta;
  bool norm_pix_loss = false;
  // unetr
  int64_t feature_size = 16;
  bool skips = true;
  // diffusion
  int64_t num_timesteps = 1000;
  Choice beta_schedule{"linear", {"linear", "cosine"}};
  Choice time_conditioning{"input", {"input", "block"}};
  double time_drop_rate = 0.0;
  double class_drop_rate = 0.1;
  // rat, detection
  Rat rat;
  Detection detection;
  // objective
  Choice loss{"cross_entropy",
              {"cross_entropy", "masked_mse", "mse", "dice", "dice_ce", "generalized_dice", "focal",
               "dice_focal", "bce", "bce_dice", "boxes"}};
  double label_smoothing = 0.0;
  std::vector<double> class_weights;
  double focal_gamma = 2.0;
  Weights weights;

  /// Tokens of the patch grid, class and register tokens not counted.
  int64_t num_patches() const;
  /// Tokens that are leaves of a tree (adaptive or mixed resolution); 0 = a grid of patches.
  int64_t num_leaves() const;
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
    visit("proj_bias", self.proj_bias,
          "biases of the attention projection, the MLP and the decoder's linear layers");
    visit("qk_norm", self.qk_norm, "normalise q and k over the head dimension");
    visit("num_kv_heads", self.num_kv_heads,
          "key and value heads, each shared by num_heads / num_kv_heads query heads; null = "
          "num_heads");
    visit("layer_scale", self.layer_scale,
          "initial LayerScale value on both branches; null = none");
    visit("norm", self.norm, "normalisation layer");
    visit("norm_eps", self.norm_eps, "epsilon of the normalisation");
    visit("mlp", self.mlp,
          "MLP form; gelu is the exact (erf) GELU, gelu_tanh its usual approximation");
    visit("mlp_hidden_dim", self.mlp_hidden_dim, "MLP hidden width; null = embed_dim * mlp_ratio");
    visit("drop_path_rate", self.drop_path_rate,
          "stochastic depth of the last block; linear over the blocks");
    visit("attn_drop_rate", self.attn_drop_rate, "dropout of attention probabilities");
    visit("proj_drop_rate", self.proj_drop_rate,
          "dropout after the attention projection and in the MLP");
    visit("class_token", self.class_token, "prepend a learned class token");
    visit("register_tokens", self.register_tokens,
          "learned tokens after the class token, ignored by the pool");
    visit(
        "pool", self.pool,
        "what the head reads: class token, mean of patch tokens, a learned query's attention over "
        "them, or every token");
    visit("final_norm", self.final_norm,
          "normalise before the head; with pool avg it comes after the mean, as timm's fc_norm");
    visit("pos_embed", self.pos_embed, "position table");
    visit("rope", self.rope,
          "rotary positions inside attention: by raster index, or one part of each head per axis");
    visit("rope_theta", self.rope_theta, "base of the rotary frequencies");
    visit("pos_drop_rate", self.pos_drop_rate, "dropout after the position embedding");
    visit("patch_drop_rate", self.patch_drop_rate,
          "share of patch tokens left out of each training sample");
    visit("drop_rate", self.drop_rate, "dropout before the head");
    visit("patch_bias", self.patch_bias, "bias of the patch embedding");
    visit("variables", self.variables,
          "names of the variables, one channel each and each with its own patch embedding; a "
          "source may hold any of them; empty = channels are mixed");
    visit("variable_embedding", self.variable_embedding,
          "variables: add a learned vector to each variable's tokens");
    visit("shared_tokenizer", self.shared_tokenizer,
          "variables: one patch embedding for all of them");
    visit("single_channel", self.single_channel,
          "variables: a batch holds one variable, nothing is aggregated");
    visit("aggregation", self.aggregation, "variables: how the tokens of one place become one");
    visit("adaptive", self.adaptive, "tokens from adaptive patching");
    visit("mixed_resolution", self.mixed_resolution, "tokens of mixed resolution");
    visit("mask_ratio", self.mask_ratio, "mae: share of hidden patches");
    visit("decoder", self.decoder,
          "decoder form: transformer or linear (mae, diffusion), conv or linear (unetr)");
    visit("decoder_embed_dim", self.decoder_embed_dim, "mae, diffusion, sap: decoder width");
    visit("decoder_depth", self.decoder_depth, "mae, diffusion: decoder blocks");
    visit("decoder_num_heads", self.decoder_num_heads, "mae, diffusion: decoder heads");
    visit("decoder_mlp_ratio", self.decoder_mlp_ratio,
          "mae, diffusion: decoder MLP hidden width / decoder_embed_dim");
    visit("decoder_rope_theta", self.decoder_rope_theta,
          "base of the decoder's rotary frequencies; null = rope_theta");
    visit("norm_pix_loss", self.norm_pix_loss,
          "mae: normalise each target patch to zero mean, unit variance");
    visit("feature_size", self.feature_size, "unetr: channels at full resolution");
    visit("skips", self.skips, "unetr: feed the image and inner blocks to the decoder");
    visit("num_timesteps", self.num_timesteps, "diffusion: noise levels T");
    visit("beta_schedule", self.beta_schedule, "diffusion: noise added per level");
    visit("time_conditioning", self.time_conditioning,
          "diffusion: add the embedded time once to the tokens, or in every block");
    visit("time_drop_rate", self.time_drop_rate, "diffusion: dropout inside the time embedding");
    visit("class_drop_rate", self.class_drop_rate,
          "diffusion with classes: share of training samples whose class is hidden, for guidance");
    visit("rat", self.rat, "rat: scales, grouping attention, positions");
    visit("detection", self.detection, "vit_detection, rat with head detection: queries and loss");
    visit(
        "loss", self.loss,
        "vit: cross_entropy, focal, mse (learns num_classes real values); mae: masked_mse (hidden "
        "patches), mse (all); unetr, sap: any but masked_mse (mse learns num_classes real values a "
        "pixel), with bce and bce_dice for one class against the background (rat); diffusion: mse; "
        "detection: boxes");
    visit("label_smoothing", self.label_smoothing, "cross-entropy label smoothing");
    visit("class_weights", self.class_weights,
          "weight of each class in cross-entropy and focal terms; empty = 1");
    visit("focal_gamma", self.focal_gamma, "focal: exponent of (1 - probability)");
    visit("weights", self.weights, "pretrained weights");
  }
  bool operator==(const Model&) const = default;
};

}  // namespace vitrail::config
