#pragma once
/// How well hidden patches, noise or real values were predicted.

#include "vitrail/models/metrics.h"

namespace vitrail::models {

/// Metrics over every value that was to be guessed in all samples: those of hidden patches, or of all
/// patches of a sample that hides none; padding leaves count nowhere. Values are taken back to what
/// they were before normalisation (and before norm_pix_loss), so that errors are in units of
/// scale.data_range.
///
/// rmse  root of the mean squared error
/// psnr  20 log10(data_range / rmse), in dB
/// r2    1 - sum of squared errors / sum of squared distances from the mean over all these values
/// ssim  mean structural similarity (ops/image_quality.h) of the original and the original with the
///       guesses pasted in; for images whose sides are at least 11, in models without leaves
/// loss  mean over samples of the training loss of each alone, in fp64
/// Paper He et al. 2022, arXiv:2111.06377.
class ReconstructionTally : public Tally {
 public:
  ReconstructionTally(const config::Model& options, const PixelScale& scale);

  /// output.output [B, L, S] in the order (p, q[, r], c), output.mask [B, L]; batch.image, or for
  /// models with leaves leaf_tokens and leaf_boxes (and for a loss on the image batch.image too).
  /// throws Error naming the shapes.
  void add(const data::Batch& batch, const Output& output) override;
  MetricList metrics() const override;

  /// One sample as it was before normalisation, as tokens, fp64.
  struct Pictures {
    at::Tensor original_1LS;
    at::Tensor pasted_1LS;  // the guesses where there are any, the original elsewhere
    at::Tensor scored_1L1;  // bool, 1 = a guess
  };

 private:
  void add_errors(const Pictures& pictures);
  void add_similarity(const Pictures& pictures, at::IntArrayRef sides);

  config::Model options_;
  PixelScale scale_;
};

/// rmse and r2 of the predicted noise over all its values, and loss, their mean squared error. The
/// true noise is batch.noise or, when the model drew it, output.taps["noise"].
/// Needs    one of the two; with neither, loss and rmse come from output.loss and r2 is left out.
class DenoisingTally : public Tally {
 public:
  DenoisingTally();
  void add(const data::Batch& batch, const Output& output) override;
  MetricList metrics() const override;
};

/// loss (mean squared error), rmse, mae (mean absolute error) and r2 over all values whose target is
/// a number.
class RegressionTally : public Tally {
 public:
  RegressionTally();
  void add(const data::Batch& batch, const Output& output) override;
  MetricList metrics() const override;
};

}  // namespace vitrail::models
