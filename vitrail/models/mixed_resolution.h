#pragma once
/// Mixed-resolution tokens: patches of several sizes, small where a scorer finds most, each as the same number of pixels.
///
/// Paper    Ronen et al. 2023, arXiv:2304.00287 (Quadformer).
/// Steps    scores of all patches of each size; patching::divide; pixels of the patches that are left.
/// Sizes    level l has patches of edge min_patch * 2^l, up to max_patch; all tiles of max_patch are there at the start,
///          and the largest score is divided into its four quarters until there are num_tokens.
/// Differs  larger scores are divided first (the reference has the signs turned round); sides need not be powers of two
///          nor equal; tokens lie in Morton order, large and small together.
/// Shapes   B batch, C channels, n = num_tokens, P = min_patch, D width; image [B, C, H, W].

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "vitrail/config/recipe_model.h"
#include "vitrail/models/feature_scorer.h"
#include "vitrail/models/tokenizer.h"
#include "vitrail/nn/draws.h"
#include "vitrail/patching/batch.h"

namespace vitrail::models {

class MixedResolution {
 public:
  /// Reads the weights of scorer feature_based.
  /// throws   CheckpointError for weights that do not fit, ConfigError for options that the recipe would refuse.
  explicit MixedResolution(const config::Model& options);

  /// tokens float [B, C, n, P^2], boxes float [B, n, 4] (patching/batch.h). Batched, without host synchronisation on a
  /// GPU, no gradient.
  /// throws   Error naming both shapes when the image is not the model's.
  patching::LeafTensors leaves_of(const at::Tensor& image, const at::Tensor& pixel_range,
                                  const nn::Draws& draws) const;

  /// The steps of leaves_of. Scores of each level's patches of the image, float [B, H / edge, W / edge]; those of level 0
  /// are zero. NaN counts as 0.
  ///
  /// pixel_blur     sqrt(edge * mean squared difference to the copy that was reduced by edge / P and enlarged again)
  ///                (patching/blur_scores.h).
  /// feature_based  FeatureScorer's loss for that copy, averaged over the patch (interpolated where the map is coarser).
  /// given          mean of one channel over the patch.
  /// random         uniform; new ones at every step of training, a sample's own in evaluation.
  std::vector<at::Tensor> scores(const at::Tensor& image, const at::Tensor& pixel_range,
                                 const nn::Draws& draws) const;
  /// Pixels of the patches `boxes`, each those of the whole image resized by P / edge (bilinear, half-pixel centres, no
  /// smoothing): it reads 2 x 2 pixels around every centre, which lie in the patch.
  at::Tensor tokens(const at::Tensor& image, const at::Tensor& boxes) const;
  /// The image reduced in that way by edge / P and enlarged again, one a level from 1.
  std::vector<at::Tensor> blurred(const at::Tensor& image) const;

  /// Sizes of patches; 0 when max_patch is not patch_size times a power of two.
  static int64_t count_levels(const config::Model& options);

 private:
  std::vector<at::Tensor> blur_scores(const at::Tensor& image) const;
  std::vector<at::Tensor> feature_scores(const at::Tensor& image,
                                         const at::Tensor& pixel_range) const;
  std::vector<at::Tensor> given_scores(const at::Tensor& image) const;
  std::vector<at::Tensor> random_scores(const nn::Draws& draws) const;
  std::vector<int64_t> grid(int64_t level) const;

  config::Model options_;
  int64_t patch_, levels_;
  std::shared_ptr<const FeatureScorer> features_;  // null with another scorer
};

/// log2(edge / patch) of boxes of edges patch * 2^l, int64 [B, L].
at::Tensor levels_of(const at::Tensor& boxes, int64_t patch);

/// Paints every token over its box: tokens [B, n, D] -> [B, D, grid...] over an image of `sides`; cells whose centre is
/// in no box are zero. Differentiable in tokens (on a GPU the gradient adds in no fixed order; models multiply by
/// leaf_shares, which is the same where cells do not straddle boxes).
at::Tensor reverse(const at::Tensor& tokens, const at::Tensor& boxes, at::IntArrayRef sides,
                   at::IntArrayRef grid);

/// The convolution of a ViT over the pixels of mixed-resolution tokens, without norms: weights of a plain ViT fit.
/// Names    proj.weight [D, C, P, P], proj.bias [D]; size_embed [levels, D] (model.mixed_resolution.size_embedding), a row
///          for edge P first.
class MixedEmbed : public Tokenizer {
 public:
  explicit MixedEmbed(const config::Model& options);
  at::Tensor forward(const data::Batch& batch, const at::Tensor& keep_BK) const override;
  int64_t num_patches() const override { return options_.num_leaves(); }
  at::ScalarType dtype() const override { return layer_->dtype(); }
  std::vector<std::string> prefixes() const override { return {"patch_embed."}; }

 private:
  config::Model options_;
  std::shared_ptr<ConvolutionLayer> layer_;
  at::Tensor size_embed_;
};

}  // namespace vitrail::models
