#include "vitrail/models/metrics_leaves.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/where.h>

#include "vitrail/core/error.h"
#include "vitrail/models/leaf_pictures.h"
#include "vitrail/models/losses_leaves.h"
#include "vitrail/ops/image_quality.h"

namespace vitrail::models {
namespace {

enum Sum : size_t {
  kSamples,
  kLoss,
  kValues,
  kError,   // of squares
  kTruth,   // of values
  kTruth2,  // of squares
  kSimilarity,
  kSimilarities,
  kSums
};

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

double total(const at::Tensor& x) { return x.sum().item<double>(); }

/// One number per channel, fp64 [1, C, 1...].
at::Tensor per_channel(const std::vector<double>& channels, const at::Tensor& image) {
  const int64_t C = image.size(1);
  const std::vector<double> all =
      channels.empty() ? std::vector<double>(static_cast<size_t>(C), 0.5) : channels;
  VT_CHECK(static_cast<int64_t>(all.size()) == C,
           "[metrics] mean and std must hold one number for each of {} channels but hold {}", C,
           all.size());
  std::vector<int64_t> shape(static_cast<size_t>(image.dim()), 1);
  shape[1] = C;
  return at::tensor(all, at::kDouble).to(image.device()).view(shape);
}

data::Batch one_of(const data::Batch& batch, int64_t sample) {
  data::Batch one;
  one.image = batch.image.narrow(0, sample, 1);
  one.leaf_tokens = batch.leaf_tokens.narrow(0, sample, 1);
  one.leaf_boxes = batch.leaf_boxes.narrow(0, sample, 1);
  return one;
}

}  // namespace

LeafReconstructionTally::LeafReconstructionTally(const config::Model& options,
                                                 const PixelScale& scale)
    : Tally(kSums), options_(options), scale_(scale) {
  VT_CHECK(scale.data_range > 0, "[metrics] data_range must be above 0 but got {}",
           scale.data_range);
}

void LeafReconstructionTally::add(const data::Batch& batch, const Output& output) {
  const at::NoGradGuard no_grad;
  if (batch.size() == 0) return;
  VT_CHECK(batch.image.defined() && batch.leaf_tokens.defined() && batch.leaf_boxes.defined(),
           "[metrics] a batch must hold image, leaf_tokens and leaf_boxes");
  const at::Tensor std = per_channel(scale_.std, batch.image);
  const at::Tensor mean = per_channel(scale_.mean, batch.image);
  for (int64_t i = 0; i < batch.size(); ++i) {
    const data::Batch one = one_of(batch, i);
    const at::Tensor guess_1LS = output.output.narrow(0, i, 1);
    at::Tensor mask_1L = output.mask.narrow(0, i, 1);
    sums_[kSamples] += 1;
    sums_[kLoss] += leaf_reconstruction_loss(one, guess_1LS, mask_1L, options_).item<double>();
    if (!mask_1L.gt(0).any().item<bool>()) mask_1L = at::ones_like(mask_1L);
    const LeafPictures found = paste_prediction(one, guess_1LS, mask_1L, options_);
    const at::Tensor original = one.image.to(at::kDouble) * std + mean;
    const at::Tensor pasted =
        at::where(found.hidden, found.predicted.to(at::kDouble) * std + mean, original);
    const at::Tensor truth = original * found.hidden;
    sums_[kValues] += total(found.hidden.to(at::kDouble));
    sums_[kError] += total((pasted - original).square());
    sums_[kTruth] += total(truth);
    sums_[kTruth2] += total(truth.square());
    const at::IntArrayRef sides = original.sizes().slice(2);
    if (*std::min_element(sides.begin(), sides.end()) < ops::kSimilarityWindow) continue;
    sums_[kSimilarity] += total(ops::structural_similarity(original, pasted, scale_.data_range));
    sums_[kSimilarities] += 1;
  }
}

MetricList LeafReconstructionTally::metrics() const {
  const double values = sums_[kValues] > 0 ? sums_[kValues] : kNone;
  const double rmse = std::sqrt(sums_[kError] / values);
  const double spread = sums_[kTruth2] - sums_[kTruth] * sums_[kTruth] / values;
  MetricList list{{"loss", sums_[kLoss] / (samples() > 0 ? sums_[kSamples] : kNone)},
                  {"rmse", rmse},
                  {"psnr", 20 * std::log10(scale_.data_range / rmse)},
                  {"r2", 1 - sums_[kError] / spread}};
  if (sums_[kSimilarities] > 0)
    list.emplace_back("ssim", sums_[kSimilarity] / sums_[kSimilarities]);
  return list;
}

}  // namespace vitrail::models
