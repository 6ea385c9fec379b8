#include "vitrail/models/metrics_reconstruction.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/where.h>
#include <fmt/ranges.h>

#include "vitrail/core/error.h"
#include "vitrail/models/losses.h"
#include "vitrail/models/losses_leaves.h"
#include "vitrail/models/tokenizer.h"
#include "vitrail/ops/image_quality.h"
#include "vitrail/ops/patch.h"

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
  kReconstructionSums
};
enum NoiseSum : size_t { kNoiseLoss = 1, kNoiseValues, kNoiseError, kNoise, kNoise2, kNoiseSums };
enum ValueSum : size_t {
  kValueCount = 1,
  kValueError,     // of squares
  kValueDistance,  // of absolute values
  kValue,
  kValue2,
  kValueSums
};

using Pictures = ReconstructionTally::Pictures;

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

double total(const at::Tensor& x) { return x.sum().item<double>(); }

/// 1 - unexplained / total, from sums of values and of their squares.
double explained(double error, double count, double values, double squares) {
  return 1 - error / (squares - values * values / count);
}

/// One sample in fp64, in the values that the model sees.
struct Tokens {
  at::Tensor truth_1LS, guess_1LS;
  at::Tensor mask_1L;
  at::Tensor real_1L;  // bool, 0 = a padding leaf; undefined = all are real
  int64_t channels = 0;
  data::Batch leaves;  // of this sample, where tokens are leaves
};

Tokens tokens_of(const data::Batch& batch, int64_t sample, const config::Model& options) {
  Tokens tokens;
  if (options.num_leaves() == 0) {
    VT_CHECK(batch.image.defined(), "[metrics] a batch must hold images");
    const at::Tensor image = batch.image.narrow(0, sample, 1).to(at::kDouble);
    tokens.truth_1LS = ops::patchify(image, options.patch_size, ops::PatchOrder::channel_last);
    tokens.channels = image.size(1);
    return tokens;
  }
  VT_CHECK(batch.leaf_tokens.defined() && batch.leaf_boxes.defined(),
           "[metrics] a batch must hold leaf_tokens and leaf_boxes");
  data::Batch& one = tokens.leaves;
  one.leaf_tokens = batch.leaf_tokens.narrow(0, sample, 1).to(at::kDouble);
  one.leaf_boxes = batch.leaf_boxes.narrow(0, sample, 1);
  if (batch.image.defined()) one.image = batch.image.narrow(0, sample, 1);
  tokens.truth_1LS = leaf_values(one);
  tokens.real_1L = real_leaves(one.leaf_boxes);
  tokens.channels = trees_per_channel(options)
                        ? one.leaf_boxes.size(1) / options.adaptive.fixed_length
                        : one.leaf_tokens.size(1);
  return tokens;
}

/// One number per channel for every value of a token, channel fastest, [1, 1, S]; where each token is of one channel,
/// [1, L, 1].
at::Tensor per_value(const std::vector<double>& channels, const Tokens& tokens,
                     const config::Model& options) {
  const int64_t C = tokens.channels;
  const std::vector<double> all =
      channels.empty() ? std::vector<double>(static_cast<size_t>(C), 0.5) : channels;
  VT_CHECK(static_cast<int64_t>(all.size()) == C,
           "[metrics] mean and std must hold one number for each of {} channels but hold {}", C,
           all.size());
  const at::Tensor numbers = at::tensor(all, at::kDouble).to(tokens.truth_1LS.device());
  if (trees_per_channel(options))
    return numbers.repeat_interleave(options.adaptive.fixed_length).view({1, -1, 1});
  return numbers.repeat({tokens.truth_1LS.size(2) / C}).view({1, 1, -1});
}

double loss_of(const Tokens& tokens, const config::Model& options) {
  if (tokens.leaves.leaf_tokens.defined())
    return leaf_reconstruction_loss(tokens.leaves, tokens.guess_1LS, tokens.mask_1L, options)
        .item<double>();
  at::Tensor wanted_1LS = tokens.truth_1LS;
  if (options.norm_pix_loss) {
    const PatchScale patch = patch_scale(wanted_1LS);
    wanted_1LS = (wanted_1LS - patch.mean_BL1) / patch.deviation_BL1;
  }
  return reconstruction_loss(tokens.guess_1LS, wanted_1LS, tokens.mask_1L, options).item<double>();
}

/// Tokens that the model had to guess, bool [1, L].
at::Tensor guessed(const Tokens& tokens) {
  at::Tensor hidden_1L = tokens.mask_1L > 0;
  if (!hidden_1L.any().item<bool>()) hidden_1L = hidden_1L.logical_not();
  return tokens.real_1L.defined() ? hidden_1L.logical_and(tokens.real_1L) : hidden_1L;
}

Pictures pictures_of(const Tokens& tokens, const config::Model& options, const PixelScale& scale) {
  const at::Tensor std = per_value(scale.std, tokens, options);
  const at::Tensor mean = per_value(scale.mean, tokens, options);
  at::Tensor guess_1LS = tokens.guess_1LS;
  if (options.norm_pix_loss) {
    const PatchScale patch = patch_scale(tokens.truth_1LS);
    guess_1LS = guess_1LS * patch.deviation_BL1 + patch.mean_BL1;
  }
  Pictures pictures;
  pictures.scored_1L1 = guessed(tokens).unsqueeze(2);
  pictures.original_1LS = tokens.truth_1LS * std + mean;
  pictures.pasted_1LS =
      at::where(pictures.scored_1L1, guess_1LS * std + mean, pictures.original_1LS);
  return pictures;
}

}  // namespace

ReconstructionTally::ReconstructionTally(const config::Model& options, const PixelScale& scale)
    : Tally(kReconstructionSums), options_(options), scale_(scale) {
  VT_CHECK(scale.data_range > 0, "[metrics] data_range must be above 0 but got {}",
           scale.data_range);
}

void ReconstructionTally::add(const data::Batch& batch, const Output& output) {
  const at::NoGradGuard no_grad;
  for (int64_t i = 0; i < batch.size(); ++i) {
    Tokens tokens = tokens_of(batch, i, options_);
    tokens.guess_1LS = output.output.narrow(0, i, 1).to(at::kDouble);
    VT_CHECK(tokens.guess_1LS.sizes().equals(tokens.truth_1LS.sizes()),
             "[metrics] a prediction must be [{}] like its target but got [{}]",
             fmt::join(tokens.truth_1LS.sizes(), ", "), fmt::join(tokens.guess_1LS.sizes(), ", "));
    tokens.mask_1L = output.mask.defined() ? output.mask.narrow(0, i, 1).to(at::kDouble)
                                           : at::ones(tokens.truth_1LS.sizes().slice(0, 2),
                                                      tokens.truth_1LS.options());
    sums_[kSamples] += 1;
    sums_[kLoss] += loss_of(tokens, options_);
    const Pictures pictures = pictures_of(tokens, options_, scale_);
    add_errors(pictures);
    if (options_.num_leaves() == 0) add_similarity(pictures, batch.image.sizes().slice(2));
  }
}

void ReconstructionTally::add_errors(const Pictures& pictures) {
  const at::Tensor scored_1LS = pictures.original_1LS * pictures.scored_1L1;
  sums_[kValues] +=
      total(pictures.scored_1L1.to(at::kDouble)) * static_cast<double>(scored_1LS.size(2));
  sums_[kError] += total((pictures.pasted_1LS - pictures.original_1LS).square());
  sums_[kTruth] += total(scored_1LS);
  sums_[kTruth2] += total(scored_1LS.square());
}

void ReconstructionTally::add_similarity(const Pictures& pictures, at::IntArrayRef sides) {
  if (*std::min_element(sides.begin(), sides.end()) < ops::kSimilarityWindow) return;
  const auto grid = ops::patch_grid(sides, options_.patch_size);
  const auto image = [&](const at::Tensor& tokens) {
    return ops::unpatchify(tokens, grid, options_.patch_size, ops::PatchOrder::channel_last);
  };
  sums_[kSimilarity] += total(ops::structural_similarity(
      image(pictures.original_1LS), image(pictures.pasted_1LS), scale_.data_range));
  sums_[kSimilarities] += 1;
}

MetricList ReconstructionTally::metrics() const {
  const double values = sums_[kValues] > 0 ? sums_[kValues] : kNone;
  const double rmse = std::sqrt(sums_[kError] / values);
  MetricList list{{"loss", sums_[kLoss] / (samples() > 0 ? sums_[kSamples] : kNone)},
                  {"rmse", rmse},
                  {"psnr", 20 * std::log10(scale_.data_range / rmse)},
                  {"r2", explained(sums_[kError], values, sums_[kTruth], sums_[kTruth2])}};
  if (sums_[kSimilarities] > 0)
    list.emplace_back("ssim", sums_[kSimilarity] / sums_[kSimilarities]);
  return list;
}

DenoisingTally::DenoisingTally() : Tally(kNoiseSums) {}

void DenoisingTally::add(const data::Batch& batch, const Output& output) {
  const at::NoGradGuard no_grad;
  if (batch.size() == 0) return;
  const auto drawn = output.taps.find("noise");
  const at::Tensor noise = batch.noise.defined()        ? batch.noise
                           : drawn != output.taps.end() ? drawn->second
                                                        : at::Tensor();
  sums_[kSamples] += static_cast<double>(batch.size());
  if (!noise.defined()) {
    sums_[kNoiseLoss] += output.loss.item<double>() * static_cast<double>(batch.size());
    return;
  }
  VT_CHECK(noise.sizes().equals(output.output.sizes()),
           "[metrics] a prediction must be [{}] like the noise but got [{}]",
           fmt::join(noise.sizes(), ", "), fmt::join(output.output.sizes(), ", "));
  for (int64_t i = 0; i < batch.size(); ++i) {
    const at::Tensor truth = noise[i].to(at::kDouble);
    const at::Tensor guess = output.output[i].to(at::kDouble);
    const double error = total((guess - truth).square()),
                 values = static_cast<double>(truth.numel());
    sums_[kNoiseLoss] += error / values;
    sums_[kNoiseValues] += values;
    sums_[kNoiseError] += error;
    sums_[kNoise] += total(truth);
    sums_[kNoise2] += total(truth.square());
  }
}

MetricList DenoisingTally::metrics() const {
  const double loss = sums_[kNoiseLoss] / (samples() > 0 ? sums_[kSamples] : kNone);
  MetricList list{{"loss", loss}, {"rmse", std::sqrt(loss)}};
  if (const double values = sums_[kNoiseValues]; values > 0)
    list.emplace_back("r2", explained(sums_[kNoiseError], values, sums_[kNoise], sums_[kNoise2]));
  return list;
}

RegressionTally::RegressionTally() : Tally(kValueSums) {}

void RegressionTally::add(const data::Batch& batch, const Output& output) {
  const at::NoGradGuard no_grad;
  if (!batch.label.defined() || batch.size() == 0) return;
  VT_CHECK(batch.label.sizes().equals(output.output.sizes()),
           "[metrics] a prediction must be [{}] like the label but got [{}]",
           fmt::join(batch.label.sizes(), ", "), fmt::join(output.output.sizes(), ", "));
  sums_[kSamples] += static_cast<double>(batch.size());
  for (int64_t i = 0; i < batch.size(); ++i) {
    const at::Tensor counts = batch.label[i].isnan().logical_not();
    const at::Tensor truth = batch.label[i].masked_select(counts).to(at::kDouble);
    const at::Tensor error = output.output[i].masked_select(counts).to(at::kDouble) - truth;
    sums_[kValueCount] += static_cast<double>(truth.numel());
    sums_[kValueError] += total(error.square());
    sums_[kValueDistance] += total(error.abs());
    sums_[kValue] += total(truth);
    sums_[kValue2] += total(truth.square());
  }
}

MetricList RegressionTally::metrics() const {
  const double values = sums_[kValueCount] > 0 ? sums_[kValueCount] : kNone;
  const double loss = sums_[kValueError] / values;
  return {{"loss", loss},
          {"rmse", std::sqrt(loss)},
          {"mae", sums_[kValueDistance] / values},
          {"r2", explained(sums_[kValueError], values, sums_[kValue], sums_[kValue2])}};
}

}  // namespace vitrail::models
