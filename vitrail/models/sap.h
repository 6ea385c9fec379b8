#pragma once
/// SAP: every token is spread over its patch and classified there, without skips or activations.
///
/// Paper    Zhang et al. 2024, "Adaptive Patching for High-resolution Image Segmentation with Transformers",
///          arXiv:2404.09707.
/// Differs  dense or adaptive tokens, 2-D or 3-D. The two linear maps behind the encoder are multiplied first, so that no
///          map of decoder_embed_dim channels at full resolution ever exists; a function of the same parameters.
/// Shapes   B batch, L tokens, D width, W = decoder_embed_dim, P patch edge, k axes. Dense: logits and labels have the
///          image's sides. Adaptive: L = s^k leaves lie row-major in a mosaic of sides s * P, which logits and labels
///          share; labels of padding leaves count nowhere.
/// Names    neck.weight [D, W, P...] (a transposed convolution of kernel and stride P), head.weight [classes, W, 1...],
///          head.bias [classes].
/// Taps     embed, blocks.i, norm [B, L, D].

#include <string>
#include <vector>

#include "vitrail/models/segmenter.h"

namespace vitrail::models {

class Sap : public Segmenter {
 public:
  /// throws ConfigError when the options contradict each other, or fixed_length is not s^k.
  explicit Sap(const config::Model& options);

  /// output: logits [B, classes, sides...]; loss when there are labels [B, sides...].
  Output forward(const data::Batch& batch, const nn::Draws& draws,
                 const std::vector<std::string>& taps = {}) override;
  /// The trunk, and 6 per multiply-add of the product with neck and head in one; their own product, once a batch, is
  /// left out.
  double train_flops_per_sample() const override;

 private:
  at::Tensor decode(const at::Tensor& x_BLD) const;
  at::Tensor label_of(const data::Batch& batch) const;

  std::vector<int64_t> grid_;  // of the image, or of the mosaic
  at::Tensor neck_, head_, head_bias_;
};

/// segmenter_initial.
InitialRule sap_initial(const config::Model& options);

}  // namespace vitrail::models
