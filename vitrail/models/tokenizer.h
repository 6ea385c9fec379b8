#pragma once
/// From pixels to patch embeddings, without positions.
///
/// Four forms behind one interface: a convolution of stride P over all channels (timm's patch_embed.proj); the same over
/// leaves of mixed resolution (mixed_resolution.h); a linear layer between two norms over adaptive leaves; one of them
/// once per variable, whose tokens are then aggregated to one per place, or stay tokens where every variable has leaves of
/// its own (variables.h).
/// Shapes   B batch, C channels, L patches or leaves, K kept patches (K = L without a choice), D width, P patch edge,
///          k axes, S values of one embedding's input.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "vitrail/config/recipe.h"
#include "vitrail/data/batch.h"
#include "vitrail/models/parts.h"
#include "vitrail/nn/linear.h"
#include "vitrail/nn/module.h"
#include "vitrail/nn/norm.h"

namespace vitrail::models {

class Tokenizer : public nn::Module {
 public:
  /// keep_BK (int64 or undefined): only these patches are embedded, in this order -> [B, K, D] in the parameters' type.
  /// throws Error naming both shapes when the input is not of the model's channels and size.
  virtual at::Tensor forward(const data::Batch& batch, const at::Tensor& keep_BK) const = 0;
  virtual int64_t num_patches() const = 0;
  virtual at::ScalarType dtype() const = 0;
  /// Names of the parameters' prefixes, for units: {"patch_embed."}, {"token_embeds.", "var_embed", "var_agg."}.
  virtual std::vector<std::string> prefixes() const = 0;
};

/// The form that the recipe asks for; `name` is what the owner registers it as ("patch_embed", or "" when it names its
/// own parameters).
struct NamedTokenizer {
  std::string name;
  std::shared_ptr<Tokenizer> tokenizer;
};
NamedTokenizer make_tokenizer(const config::Model& options);

/// The convolution of stride P of a ViT, kept conv-shaped as timm does: `weight` [D, C, P, P(, P)], `bias` [D].
class Projection : public nn::Module {
 public:
  Projection(const config::Model& options, int64_t channels);
  /// patches [..., S] in the weight's order (c, p, q[, r]) -> [..., D]
  at::Tensor forward(const at::Tensor& patches) const;
  const at::Tensor& weight() const { return weight_; }
  const at::Tensor& bias() const { return bias_; }

 private:
  at::Tensor weight_, bias_;
};

/// What turns one patch into one token.
class PatchLayer : public nn::Module {
 public:
  /// patches [..., S] -> [..., D]
  virtual at::Tensor forward(const at::Tensor& patches) const = 0;
  virtual at::ScalarType dtype() const = 0;
};

/// Name: proj.
class ConvolutionLayer : public PatchLayer {
 public:
  ConvolutionLayer(const config::Model& options, int64_t channels);
  at::Tensor forward(const at::Tensor& patches) const override { return proj_->forward(patches); }
  at::ScalarType dtype() const override { return proj_->weight().scalar_type(); }
  const Projection& projection() const { return *proj_; }

 private:
  std::shared_ptr<Projection> proj_;
};

/// A linear layer over the values of an adaptive leaf, with adaptive.token_norm between two LayerNorms of eps 1e-5.
/// Names    proj.weight [D, S], proj.bias [D]; with norms norm1 [S], norm2 [D].
class LeafLayer : public PatchLayer {
 public:
  LeafLayer(const config::Model& options, int64_t values);
  at::Tensor forward(const at::Tensor& leaves) const override;
  at::ScalarType dtype() const override { return proj_->weight().scalar_type(); }

 private:
  std::shared_ptr<nn::Norm> norm1_, norm2_;
  std::shared_ptr<nn::Linear> proj_;
};

/// The convolution over an image or volume of all channels.
class PatchEmbed : public Tokenizer {
 public:
  explicit PatchEmbed(const config::Model& options);
  at::Tensor forward(const data::Batch& batch, const at::Tensor& keep_BK) const override;
  int64_t num_patches() const override { return options_.num_patches(); }
  at::ScalarType dtype() const override { return layer_->dtype(); }
  std::vector<std::string> prefixes() const override { return {"patch_embed."}; }

 private:
  config::Model options_;
  std::shared_ptr<ConvolutionLayer> layer_;
};

/// The linear layer over adaptive leaves of all channels, channel fastest inside a leaf.
class LeafEmbed : public Tokenizer {
 public:
  explicit LeafEmbed(const config::Model& options);
  at::Tensor forward(const data::Batch& batch, const at::Tensor& keep_BK) const override;
  int64_t num_patches() const override { return options_.num_leaves(); }
  at::ScalarType dtype() const override { return layer_->dtype(); }
  std::vector<std::string> prefixes() const override { return {"patch_embed."}; }

 private:
  config::Model options_;
  std::shared_ptr<LeafLayer> layer_;
};

/// throws Error naming both shapes unless the image is [B, channels, model.image_size].
void check_image(const config::Model& options, int64_t channels, const at::Tensor& image);
/// throws Error naming both shapes unless leaf_tokens is [B, channels, L, P^k] and leaf_boxes [B, L, 2k]; with a tree per
/// channel [B, 1, channels * fixed_length, P^k] and [B, channels * fixed_length, 2k].
void check_leaves(const config::Model& options, int64_t channels, const data::Batch& batch);

/// Places of `names` in model.variables, 0 ... V-1 when there are none.
/// throws DataError naming an unknown or repeated variable.
std::vector<int64_t> variable_ids(const config::Model& options,
                                  const std::vector<std::string>& names);

/// Position of an adaptive leaf: GELU(Linear(size, centre)) on fp32 coordinates divided by the image's sides; the size
/// is the mean over the axes.
/// Names    proj.weight [D, 1 + k], proj.bias [D].
class LeafPosition : public nn::Module {
 public:
  LeafPosition(const config::Model& options, int64_t width);
  /// boxes_BLx2k -> [B, L, D] in the parameters' type, zero for padding; computed in fp32.
  at::Tensor forward(const at::Tensor& boxes) const;

 private:
  mutable FixedTable sides_;  // of the image; its copy on the device is a cache
  std::shared_ptr<nn::Linear> proj_;
};

/// model.adaptive.trees per_channel: every channel has leaves of its own, which are tokens of their own.
bool trees_per_channel(const config::Model& options);

/// bool [B, L]: true for leaves of some extent along every axis.
at::Tensor real_leaves(const at::Tensor& boxes);
/// fp32 [B, L]: pixels that each leaf covers, 0 for padding.
at::Tensor leaf_areas(const at::Tensor& boxes);

}  // namespace vitrail::models
