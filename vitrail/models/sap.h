#pragma once
/// SAP: every token is spread over its patch and classified there, without skips or activations.
///
/// Paper    Zhang et al. 2024, "Adaptive Patching for High-resolution Image Segmentation with Transformers",
///          arXiv:2404.09707.
/// Differs  dense or leaves, 2-D or 3-D. The two linear maps behind the encoder are multiplied first, so that no map of
///          decoder_embed_dim channels at full resolution ever exists; a function of the same parameters.
/// Shapes   B batch, L tokens, D width, W = decoder_embed_dim, P patch edge, k axes. Dense: logits and labels have the
///          image's sides. Leaves: any number of them, one prediction [classes, P^k] each, whose loss is taken on the
///          leaves (model.adaptive.loss_space leaf: of the label as it is on them) or on the image (of the label itself,
///          after pasting); labels have the image's sides in both, and so has the output.
/// Names    neck.weight [D, W, P...] (a transposed convolution of kernel and stride P), head.weight [classes, W, 1...],
///          head.bias [classes].
/// Taps     embed, blocks.i, norm [B, L, D].

#include <string>
#include <vector>

#include "vitrail/models/segmenter.h"

namespace vitrail::models {

/// output: logits [B, classes, sides...]; loss when there are labels [B, sides...]. In training with a loss on leaves
/// nothing needs the image, and output is what there is: logits [B, classes, L, P^k] of the leaves.
class Sap : public Segmenter {
 public:
  /// throws ConfigError when the options contradict each other.
  explicit Sap(const config::Model& options);

  /// The trunk, and 6 per multiply-add of the product with neck and head in one; their own product, once a batch, is
  /// left out.
  double train_flops_per_sample() const override;

 private:
  void conclude(Flow& flow, const Known& known, Taps& tap, Output& out) override;
  std::vector<std::string> end_taps() const override { return {"embed", "norm"}; }
  /// Logits without their bias, patch by patch: [B, L, classes * P^k].
  at::Tensor decode(const at::Tensor& x_BLD) const;
  at::Tensor add_bias(const at::Tensor& logits) const;
  void finish_leaves(Output& out, const at::Tensor& logits_BCLP, const data::Batch& batch,
                     bool training) const;

  at::Tensor neck_, head_, head_bias_;
};

/// segmenter_initial.
InitialRule sap_initial(const config::Model& options);

}  // namespace vitrail::models
