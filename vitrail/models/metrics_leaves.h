#pragma once
/// How well hidden leaves were predicted, seen on the image.

#include "vitrail/models/metrics.h"

namespace vitrail::models {

/// The metrics of ReconstructionTally (metrics_reconstruction.h) over pixels instead of tokens, so that trees and grids
/// of patches can be compared: predictions are pasted to the image, and the pixels of hidden leaves (of all leaves where
/// a sample hides none) are scored. What a leaf larger than a patch cannot say is an error here.
///
/// rmse  root of the mean squared error
/// psnr  20 log10(data_range / rmse), in dB
/// r2    1 - sum of squared errors / sum of squared distances from the mean over all these values
/// ssim  mean structural similarity of the image and the image with the guesses pasted in; sides of at least 11
/// loss  mean over samples of the training loss of each alone
class LeafReconstructionTally : public Tally {
 public:
  LeafReconstructionTally(const config::Model& options, const PixelScale& scale);

  /// batch with image, leaf_tokens and leaf_boxes; output.output [B, L, S], output.mask [B, L].
  void add(const data::Batch& batch, const Output& output) override;
  MetricList metrics() const override;

 private:
  config::Model options_;
  PixelScale scale_;
};

}  // namespace vitrail::models
