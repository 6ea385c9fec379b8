#include "vitrail/models/losses.h"

#include <algorithm>
#include <limits>

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/where.h>
#include <fmt/ranges.h>

#include "vitrail/core/error.h"

namespace vitrail::models {
namespace {

constexpr double kSmallestMiss = 1e-30;
/// Keeps the Dice of an empty class finite.
constexpr double kDiceSmoothing = 1e-6;
/// He et al.'s, inside the root.
constexpr double kPatchVariance = 1e-6;

at::Tensor at_least_float(const at::Tensor& x) {
  return x.scalar_type() == at::kDouble ? x : x.to(at::kFloat);
}

/// Logits [B, C, N] with one label for each of N pixels, checked.
struct Pixels {
  at::Tensor logits_BCN, label_BN;
  at::Tensor counts_BN;  // bool
  at::Tensor weight_BN;  // how much each counts, 0 where it does not; undefined = 1
  /// Bool, one byte a logit: the class of each pixel, none for -1. Selecting by it is a plain sum
  /// forward and backward, where gather and torch's nll_loss2d add atomically on GPUs.
  at::Tensor truth_BCN;
};

void check_shapes(const at::Tensor& logits, const at::Tensor& label) {
  const bool fits = logits.dim() >= 2 && label.dim() == logits.dim() - 1 && logits.size(1) >= 1 &&
                    label.size(0) == logits.size(0) &&
                    label.sizes().slice(1).equals(logits.sizes().slice(2));
  VT_CHECK(fits,
           "[loss] labels must have the shape of the logits without their classes but got [{}] and "
           "[{}]",
           fmt::join(label.sizes(), ", "), fmt::join(logits.sizes(), ", "));
  // On a GPU the question would stop the queue; such a label then belongs to no class.
  if (!label.is_cpu() || label.numel() == 0) return;
  const int64_t largest = label.max().item<int64_t>();
  VT_REQUIRE(DataError, largest < logits.size(1),
             "[loss] a label must be below model.num_classes = {} but got {}", logits.size(1),
             largest);
}

Pixels pixels_of(const at::Tensor& logits, const at::Tensor& label) {
  check_shapes(logits, label);
  const int64_t B = logits.size(0), C = logits.size(1), N = label.numel() / std::max<int64_t>(B, 1);
  Pixels pixels;
  pixels.logits_BCN = at_least_float(logits).reshape({B, C, N});
  pixels.label_BN = label.to(at::kLong).reshape({B, N});
  const at::Tensor class_C1 = at::arange(C, pixels.label_BN.options()).unsqueeze(1);
  pixels.counts_BN = pixels.label_BN.ge(0).logical_and(pixels.label_BN.lt(C));
  pixels.truth_BCN = pixels.label_BN.unsqueeze(1).eq(class_C1);
  return pixels;
}

/// The same with pixels that count by `weight`, of a shape that broadcasts to the label's.
Pixels pixels_of(const at::Tensor& logits, const at::Tensor& label, const at::Tensor& weight) {
  Pixels pixels = pixels_of(logits, label);
  if (!weight.defined()) return pixels;
  pixels.weight_BN =
      weight.to(pixels.logits_BCN.scalar_type()).expand_as(label).reshape_as(pixels.label_BN) *
      pixels.counts_BN;
  return pixels;
}

/// x_BN or x_BCN, each pixel by its weight.
at::Tensor weighed(const at::Tensor& x, const Pixels& pixels) {
  if (!pixels.weight_BN.defined()) return x;
  return x * (x.dim() == 3 ? pixels.weight_BN.unsqueeze(1) : pixels.weight_BN);
}

/// [C], or undefined when every class weighs 1.
at::Tensor class_weights(const Pixels& pixels, const config::Model& options) {
  if (options.class_weights.empty()) return {};
  const at::Tensor& logits = pixels.logits_BCN;
  VT_REQUIRE(ConfigError, static_cast<int64_t>(options.class_weights.size()) == logits.size(1),
             "[config] model.class_weights must hold one weight for each of {} classes but has {}",
             logits.size(1), options.class_weights.size());
  return at::tensor(options.class_weights, at::kDouble).to(logits.device(), logits.scalar_type());
}

/// [B, N]: the weight of each pixel and of its class, 0 where it counts nowhere.
at::Tensor pixel_weights(const Pixels& pixels, const at::Tensor& weight_C) {
  const at::Tensor counts_BN =
      weighed(pixels.counts_BN.to(pixels.logits_BCN.scalar_type()), pixels);
  if (!weight_C.defined()) return counts_BN;
  const at::Tensor index_BN = pixels.label_BN.clamp(0, weight_C.size(0) - 1);
  return weight_C.index_select(0, index_BN.flatten()).view_as(index_BN) * counts_BN;
}

/// [B, N]: log probability of each pixel's class, 0 where it counts nowhere.
at::Tensor log_p_of_truth(const Pixels& pixels, const at::Tensor& log_p_BCN) {
  return at::where(pixels.truth_BCN, log_p_BCN, 0.0).sum(1);
}

/// A mean as its two sums.
struct Ratio {
  at::Tensor sum, total;

  at::Tensor value() const { return sum / at::where(total > 0, total, 1.0); }
  Ratio over(const SumOverParts& parts) const {
    if (!parts) return *this;
    const at::Tensor both = parts(at::stack({sum, total}));
    return {both[0], both[1]};
  }
};

/// share_B (undefined = 1) weighs the samples of every sum.
at::Tensor shared(const at::Tensor& x_BN, const at::Tensor& share_B) {
  return share_B.defined() ? x_BN * share_B.unsqueeze(1) : x_BN;
}

Ratio cross_entropy_sums(const Pixels& pixels, const config::Model& options,
                         const at::Tensor& log_p_BCN, const at::Tensor& share_B = {}) {
  const at::Tensor weight_C = class_weights(pixels, options);
  const at::Tensor weight_BN = shared(pixel_weights(pixels, weight_C), share_B);
  at::Tensor sum = -(log_p_of_truth(pixels, log_p_BCN) * weight_BN).sum();
  if (const double smoothing = options.label_smoothing; smoothing > 0) {
    const at::Tensor of_classes_BCN =
        weight_C.defined() ? log_p_BCN * weight_C.unsqueeze(1) : log_p_BCN;
    const at::Tensor counts_BN = weighed(pixels.counts_BN, pixels);
    const at::Tensor smooth = -(of_classes_BCN.sum(1) * shared(counts_BN, share_B)).sum();
    sum = (1.0 - smoothing) * sum + smoothing / log_p_BCN.size(1) * smooth;
  }
  return {sum, weight_BN.sum()};
}

at::Tensor cross_entropy(const Pixels& pixels, const config::Model& options,
                         const SumOverParts& parts = {}) {
  return cross_entropy_sums(pixels, options, at::log_softmax(pixels.logits_BCN, 1))
      .over(parts)
      .value();
}

Ratio focal_sums(const Pixels& pixels, const config::Model& options,
                 const at::Tensor& share_B = {}) {
  const at::Tensor log_p_BN = log_p_of_truth(pixels, at::log_softmax(pixels.logits_BCN, 1));
  // 1 - p without cancellation. At p = 1 a root of it has no derivative, hence the floor.
  const at::Tensor miss_BN = (-log_p_BN.expm1()).clamp_min(kSmallestMiss);
  const at::Tensor loss_BN = -miss_BN.pow(options.focal_gamma) * log_p_BN;
  const at::Tensor weight_BN =
      shared(pixel_weights(pixels, class_weights(pixels, options)), share_B);
  const at::Tensor counts_BN = weighed(pixels.counts_BN.to(loss_BN.scalar_type()), pixels);
  return {(loss_BN * weight_BN).sum(), shared(counts_BN, share_B).sum()};
}

at::Tensor focal(const Pixels& pixels, const config::Model& options,
                 const SumOverParts& parts = {}) {
  return focal_sums(pixels, options).over(parts).value();
}

/// What all Dice losses are made of, sums over the pixels that count.
struct Overlap {
  at::Tensor both_BC;   // sum of p g
  at::Tensor truth_BC;  // sum of g = sum of g^2
  at::Tensor guess_BC;  // sum of p or of p^2
  at::Tensor counts_B;  // 1 where a sample has a pixel that counts

  Overlap over(const SumOverParts& parts) const {
    if (!parts) return *this;
    const int64_t C = both_BC.size(1);
    const at::Tensor all = parts(at::cat({both_BC, truth_BC, guess_BC, counts_B.unsqueeze(1)}, 1));
    const std::vector<at::Tensor> sums = all.split_with_sizes({C, C, C, 1}, 1);
    return {sums[0], sums[1], sums[2], sums[3].squeeze(1).clamp_max(1)};
  }
};

Overlap overlap(const Pixels& pixels, bool squared, const SumOverParts& parts) {
  const at::Tensor p_BCN = at::softmax(pixels.logits_BCN, 1);
  const auto type = p_BCN.scalar_type();
  Overlap sums;
  sums.both_BC = weighed(at::where(pixels.truth_BCN, p_BCN, 0.0), pixels).sum(2);
  sums.truth_BC = weighed(pixels.truth_BCN, pixels).sum(2).to(type);
  const at::Tensor guess_BCN = (squared ? p_BCN * p_BCN : p_BCN) * pixels.counts_BN.unsqueeze(1);
  sums.guess_BC = weighed(guess_BCN, pixels).sum(2);
  sums.counts_B = pixels.counts_BN.any(1).to(type);
  return sums.over(parts);
}

/// Mean over the samples that count.
at::Tensor sample_mean(const at::Tensor& loss_B, const at::Tensor& counts_B) {
  return (loss_B * counts_B).sum() / counts_B.sum().clamp_min(1);
}

at::Tensor dice(const Pixels& pixels, const SumOverParts& parts) {
  const Overlap sums = overlap(pixels, /*squared=*/true, parts);
  const at::Tensor loss_BC =
      1.0 - 2.0 * sums.both_BC / (sums.guess_BC + sums.truth_BC + kDiceSmoothing);
  return sample_mean(loss_BC.mean(1), sums.counts_B);
}

at::Tensor generalized_dice(const Pixels& pixels, const SumOverParts& parts) {
  const Overlap sums = overlap(pixels, /*squared=*/false, parts);
  // Relative to the largest weight, which cancels: squares of voxel counts would leave fp32.
  const at::Tensor present_BC = sums.truth_BC > 0;
  const at::Tensor smallest_B1 =
      at::where(present_BC, sums.truth_BC, std::numeric_limits<float>::max()).amin(1, true);
  const at::Tensor weight_BC =
      (smallest_B1 / at::where(present_BC, sums.truth_BC, smallest_B1)).square();
  const at::Tensor both_B = (weight_BC * sums.both_BC).sum(1);
  const at::Tensor all_B = (weight_BC * (sums.guess_BC + sums.truth_BC)).sum(1);
  return sample_mean(1.0 - 2.0 * both_B / at::where(sums.counts_B > 0, all_B, 1.0), sums.counts_B);
}

/// The logit of class 1 against class 0, of two classes.
at::Tensor binary_logits(const Pixels& pixels, const config::Model& options) {
  VT_REQUIRE(
      ConfigError, pixels.logits_BCN.size(1) == 2,
      "[config] model.loss {} is of one class against the background, so model.num_classes must "
      "be 2 but there are {} logits",
      options.loss.value, pixels.logits_BCN.size(1));
  return pixels.logits_BCN.select(1, 1) - pixels.logits_BCN.select(1, 0);
}

/// Mean over samples of 1 - (2 sum(p g) + s) / (sum(p) + sum(g) + s) of class 1.
at::Tensor binary_dice(const Pixels& pixels, const at::Tensor& logits_BN,
                       const SumOverParts& parts) {
  const at::Tensor counts_BN = weighed(pixels.counts_BN.to(logits_BN.scalar_type()), pixels);
  const at::Tensor p_BN = logits_BN.sigmoid() * counts_BN;
  const at::Tensor g_BN = pixels.truth_BCN.select(1, 1).to(logits_BN.scalar_type());
  at::Tensor sums_4B = at::stack({(p_BN * g_BN).sum(1), p_BN.sum(1), (g_BN * counts_BN).sum(1),
                                  pixels.counts_BN.any(1).to(logits_BN.scalar_type())});
  if (parts) sums_4B = parts(sums_4B);
  const at::Tensor loss_B =
      1.0 - (2.0 * sums_4B[0] + kDiceSmoothing) / (sums_4B[1] + sums_4B[2] + kDiceSmoothing);
  return sample_mean(loss_B, sums_4B[3].clamp_max(1));
}

[[noreturn]] void unknown(const config::Model& options, const char* allowed) {
  core::fail<core::ConfigError>("[config] model.loss must be {} for model.kind={} but got {}",
                                allowed, options.kind.value, options.loss.value);
}

}  // namespace

at::Tensor classification_loss(const at::Tensor& logits_BC, const at::Tensor& label_B,
                               const config::Model& options) {
  const Pixels rows = pixels_of(logits_BC, label_B);
  if (options.loss == "cross_entropy") return cross_entropy(rows, options);
  if (options.loss == "focal") return focal(rows, options);
  unknown(options, "cross_entropy or focal");
}

at::Tensor classification_loss(const at::Tensor& logits_BC, const MixedLabel& label,
                               const config::Model& options) {
  if (!label.other_B.defined()) return classification_loss(logits_BC, label.label_B, options);
  const Pixels own = pixels_of(logits_BC, label.label_B),
               other = pixels_of(logits_BC, label.other_B);
  const at::Tensor share_B = label.share_B.to(own.logits_BCN.scalar_type());
  Ratio first, second;
  if (options.loss == "cross_entropy") {
    const at::Tensor log_p_BCN = at::log_softmax(own.logits_BCN, 1);
    first = cross_entropy_sums(own, options, log_p_BCN, share_B);
    second = cross_entropy_sums(other, options, log_p_BCN, 1.0 - share_B);
  } else if (options.loss == "focal") {
    first = focal_sums(own, options, share_B);
    second = focal_sums(other, options, 1.0 - share_B);
  } else {
    unknown(options, "cross_entropy or focal");
  }
  return Ratio{first.sum + second.sum, first.total + second.total}.value();
}

at::Tensor segmentation_loss(const at::Tensor& logits, const at::Tensor& label,
                             const config::Model& options, const at::Tensor& weight,
                             const SumOverParts& sum) {
  const Pixels pixels = pixels_of(logits, label, weight);
  if (options.loss == "cross_entropy") return cross_entropy(pixels, options, sum);
  if (options.loss == "focal") return focal(pixels, options, sum);
  if (options.loss == "dice") return dice(pixels, sum);
  if (options.loss == "dice_ce") return dice(pixels, sum) + cross_entropy(pixels, options, sum);
  if (options.loss == "dice_focal") return dice(pixels, sum) + focal(pixels, options, sum);
  if (options.loss == "generalized_dice") return generalized_dice(pixels, sum);
  if (options.loss == "bce" || options.loss == "bce_dice") {
    const at::Tensor logits_BN = binary_logits(pixels, options);
    // The softmax of two logits is the sigmoid of their difference.
    const at::Tensor bce = cross_entropy(pixels, options, sum);
    if (options.loss == "bce") return bce;
    return 0.5 * bce + 0.5 * binary_dice(pixels, logits_BN, sum);
  }
  unknown(options,
          "cross_entropy, focal, dice, dice_ce, dice_focal, generalized_dice, bce or bce_dice");
}

at::Tensor values_loss(const at::Tensor& prediction, const at::Tensor& target,
                       const at::Tensor& weight, const SumOverParts& sum) {
  VT_CHECK(prediction.sizes().equals(target.sizes()),
           "[loss] prediction and target must be alike but got [{}] and [{}]",
           fmt::join(prediction.sizes(), ", "), fmt::join(target.sizes(), ", "));
  const at::Tensor counts = target.isnan().logical_not();
  // A difference with NaN would send NaN back, whatever is made of it afterwards.
  const at::Tensor wide = at_least_float(prediction);
  const at::Tensor known = at::where(counts, target.to(wide.scalar_type()), wide.detach());
  if (!weight.defined() && !sum) return (wide - known).square().sum() / counts.sum().clamp_min(1);
  const at::Tensor weights =
      weight.defined() ? weight.to(wide.scalar_type()) * counts : counts.to(wide.scalar_type());
  return Ratio{((wide - known).square() * weights).sum(), weights.sum()}.over(sum).value();
}

at::Tensor reconstruction_loss(const at::Tensor& prediction_BLS, const at::Tensor& target_BLS,
                               const at::Tensor& mask_BL, const config::Model& options,
                               const at::Tensor& counts_BL) {
  VT_CHECK(prediction_BLS.dim() == 3 && prediction_BLS.sizes().equals(target_BLS.sizes()),
           "[loss] prediction and target must be [B, L, S] alike but got [{}] and [{}]",
           fmt::join(prediction_BLS.sizes(), ", "), fmt::join(target_BLS.sizes(), ", "));
  const at::Tensor error_BL =
      (at_least_float(prediction_BLS) - at_least_float(target_BLS)).square().mean(-1);
  const bool hidden_only = options.loss == "masked_mse";
  if (!hidden_only && !(options.loss == "mse")) unknown(options, "masked_mse or mse");
  if (!hidden_only && !counts_BL.defined()) return error_BL.mean();
  at::Tensor scored_BL = hidden_only ? mask_BL : counts_BL;
  if (hidden_only && counts_BL.defined()) scored_BL = mask_BL * counts_BL;
  VT_CHECK(scored_BL.sizes().equals(error_BL.sizes()), "[loss] mask must be [{}] but got [{}]",
           fmt::join(error_BL.sizes(), ", "), fmt::join(scored_BL.sizes(), ", "));
  scored_BL = scored_BL.to(error_BL.scalar_type());
  const at::Tensor total = scored_BL.sum();
  return (error_BL * scored_BL).sum() / at::where(total > 0, total, 1.0);
}

PatchScale patch_scale(const at::Tensor& target_BLS) {
  const at::Tensor variance = target_BLS.var(at::OptionalIntArrayRef(-1), /*correction=*/1,
                                             /*keepdim=*/true);
  return {target_BLS.mean(-1, /*keepdim=*/true), (variance + kPatchVariance).sqrt()};
}

}  // namespace vitrail::models
