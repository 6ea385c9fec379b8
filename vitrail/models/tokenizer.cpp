#include "vitrail/models/tokenizer.h"

#include <algorithm>

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/tensor.h>
#include <fmt/ranges.h>

#include "vitrail/core/error.h"
#include "vitrail/models/mixed_resolution.h"
#include "vitrail/models/parts.h"
#include "vitrail/models/variables.h"
#include "vitrail/ops/embed.h"
#include "vitrail/ops/masking.h"

namespace vitrail::models {
namespace {

/// The reference system's norms around the linear layer of leaves.
constexpr nn::NormOptions kLeafNorm{nn::NormKind::layernorm, 1e-5};

std::string shape_of(const at::Tensor& tensor) {
  return tensor.defined() ? fmt::format("{}", fmt::join(tensor.sizes(), ", ")) : "";
}

at::Tensor keep_tokens(const at::Tensor& x_BLS, const at::Tensor& keep_BK) {
  return keep_BK.defined() ? ops::gather_tokens(x_BLS, keep_BK) : x_BLS;
}

}  // namespace

NamedTokenizer make_tokenizer(const config::Model& options) {
  if (!options.variables.empty()) return {"", std::make_shared<VariableTokenizer>(options)};
  VT_REQUIRE(ConfigError, !trees_per_channel(options),
             "[config] model.adaptive.trees=per_channel needs model.variables, whose embeddings "
             "tell the leaves apart");
  if (options.mixed_resolution.num_tokens > 0)
    return {"patch_embed", std::make_shared<MixedEmbed>(options)};
  if (options.num_leaves() > 0) return {"patch_embed", std::make_shared<LeafEmbed>(options)};
  return {"patch_embed", std::make_shared<PatchEmbed>(options)};
}

Projection::Projection(const config::Model& options, int64_t channels) {
  std::vector<int64_t> shape{options.embed_dim, channels};
  shape.insert(shape.end(), options.image_size.size(), options.patch_size);
  weight_ = register_parameter("weight", shape);
  if (options.patch_bias) bias_ = register_parameter("bias", {options.embed_dim});
}

at::Tensor Projection::forward(const at::Tensor& patches) const {
  return at::linear(patches, weight_.flatten(1), bias_);
}

ConvolutionLayer::ConvolutionLayer(const config::Model& options, int64_t channels) {
  proj_ = register_module("proj", std::make_shared<Projection>(options, channels));
}

LeafLayer::LeafLayer(const config::Model& options, int64_t values) {
  const bool has_norms = options.adaptive.token_norm;
  if (has_norms) norm1_ = register_module("norm1", std::make_shared<nn::Norm>(values, kLeafNorm));
  proj_ = register_module(
      "proj", std::make_shared<nn::Linear>(values, options.embed_dim, options.patch_bias));
  if (has_norms)
    norm2_ = register_module("norm2", std::make_shared<nn::Norm>(options.embed_dim, kLeafNorm));
}

at::Tensor LeafLayer::forward(const at::Tensor& leaves) const {
  const at::Tensor tokens = proj_->forward(norm1_ ? norm1_->forward(leaves) : leaves);
  return norm2_ ? norm2_->forward(tokens) : tokens;
}

PatchEmbed::PatchEmbed(const config::Model& options) : options_(options) {
  VT_REQUIRE(ConfigError, options.image_size.size() == 2 || options.image_size.size() == 3,
             "[config] model.image_size must have 2 or 3 sides but got {}",
             options.image_size.size());
  layer_ = register_module("", std::make_shared<ConvolutionLayer>(options, options.in_channels));
}

at::Tensor PatchEmbed::forward(const data::Batch& batch, const at::Tensor& keep_BK) const {
  check_image(options_, options_.in_channels, batch.image);
  const at::Tensor patches_BLS = ops::embed_patches(batch.image, options_.patch_size, dtype());
  return layer_->forward(keep_tokens(patches_BLS, keep_BK));
}

LeafEmbed::LeafEmbed(const config::Model& options) : options_(options) {
  layer_ = register_module("", std::make_shared<LeafLayer>(options, options.patch_values()));
}

at::Tensor LeafEmbed::forward(const data::Batch& batch, const at::Tensor& keep_BK) const {
  check_leaves(options_, options_.in_channels, batch);
  const at::Tensor leaves_BLS = batch.leaf_tokens.to(dtype()).permute({0, 2, 3, 1}).flatten(2);
  return layer_->forward(keep_tokens(leaves_BLS, keep_BK));
}

void check_image(const config::Model& options, int64_t channels, const at::Tensor& image) {
  std::vector<int64_t> shape{channels};
  shape.insert(shape.end(), options.image_size.begin(), options.image_size.end());
  VT_CHECK(image.defined() && image.dim() >= 1 && image.sizes().slice(1) == at::IntArrayRef(shape),
           "[model] images must be [B, {}] (channels, model.image_size) but got [{}]",
           fmt::join(shape, ", "), shape_of(image));
}

void check_leaves(const config::Model& options, int64_t channels, const data::Batch& batch) {
  const bool apart = trees_per_channel(options);
  const int64_t L = apart ? channels * options.adaptive.fixed_length : options.num_leaves();
  const auto axes = static_cast<int64_t>(options.image_size.size());
  const std::vector<int64_t> tokens{apart ? 1 : channels, L, patch_pixels(options)},
      boxes{L, 2 * axes};
  const auto fits = [&](const at::Tensor& tensor, const std::vector<int64_t>& shape) {
    return tensor.defined() && tensor.dim() == static_cast<int64_t>(shape.size()) + 1 &&
           tensor.size(0) == batch.size() && tensor.sizes().slice(1) == at::IntArrayRef(shape);
  };
  VT_CHECK(fits(batch.leaf_tokens, tokens),
           "[model] leaf_tokens must be [B, {}] (channels, leaves, pixels of a "
           "patch) but got [{}]",
           fmt::join(tokens, ", "), shape_of(batch.leaf_tokens));
  VT_CHECK(fits(batch.leaf_boxes, boxes), "[model] leaf_boxes must be [{}, {}] but got [{}]",
           batch.size(), fmt::join(boxes, ", "), shape_of(batch.leaf_boxes));
}

std::vector<int64_t> variable_ids(const config::Model& options,
                                  const std::vector<std::string>& names) {
  std::vector<int64_t> ids;
  if (names.empty())
    for (size_t v = 0; v < options.variables.size(); ++v) ids.push_back(static_cast<int64_t>(v));
  for (const std::string& name : names) {
    const auto place = std::ranges::find(options.variables, name);
    VT_REQUIRE(DataError, place != options.variables.end(),
               "[model] variable '{}' must be one of model.variables ({})", name,
               fmt::join(options.variables, ", "));
    const int64_t id = place - options.variables.begin();
    VT_REQUIRE(DataError, std::ranges::find(ids, id) == ids.end(),
               "[model] a batch must hold variable '{}' once but names it twice", name);
    ids.push_back(id);
  }
  return ids;
}

LeafPosition::LeafPosition(const config::Model& options, int64_t width)
    : sides_(at::tensor(std::vector<double>(options.image_size.begin(), options.image_size.end()),
                        at::kFloat)) {
  const auto axes = static_cast<int64_t>(options.image_size.size());
  proj_ = register_module("proj", std::make_shared<nn::Linear>(1 + axes, width));
}

at::Tensor LeafPosition::forward(const at::Tensor& given) const {
  const at::Tensor boxes = given.to(at::kFloat);
  const int64_t axes = boxes.size(-1) / 2;
  const at::Tensor sides = sides_.like(boxes);
  const at::Tensor low = boxes.slice(-1, 0, axes) / sides;
  const at::Tensor high = boxes.slice(-1, axes) / sides;
  const at::Tensor code_BL1k =
      at::cat({(high - low).mean(-1, /*keepdim=*/true), (low + high) * 0.5}, -1);
  const at::Tensor positions_BLD =
      at::gelu(at::linear(code_BL1k, proj_->weight().to(at::kFloat), proj_->bias().to(at::kFloat)));
  return (positions_BLD * real_leaves(boxes).unsqueeze(-1)).to(proj_->weight().scalar_type());
}

bool trees_per_channel(const config::Model& options) {
  return options.adaptive.fixed_length > 0 && options.adaptive.trees == "per_channel";
}

at::Tensor real_leaves(const at::Tensor& boxes) {
  VT_CHECK(boxes.defined() && boxes.dim() == 3,
           "[model] adaptive patches need leaf_boxes [B, L, 2k] but got [{}]", shape_of(boxes));
  const int64_t axes = boxes.size(-1) / 2;
  return boxes.slice(-1, axes).gt(boxes.slice(-1, 0, axes)).all(-1);
}

at::Tensor leaf_areas(const at::Tensor& boxes) {
  const int64_t axes = boxes.size(-1) / 2;
  const at::Tensor wide = boxes.to(at::kFloat);
  return (wide.slice(-1, axes) - wide.slice(-1, 0, axes)).clamp_min(0.0).prod(-1);
}

}  // namespace vitrail::models
