#include "vitrail/models/metrics.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <vector>

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <ATen/ops/one_hot.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "vitrail/core/error.h"
#include "vitrail/models/losses.h"
#include "vitrail/models/metrics_reconstruction.h"
#include "vitrail/models/metrics_segmentation.h"
#include "vitrail/ops/image_quality.h"
#include "vitrail/ops/patch.h"
#include "vitrail/ops/random.h"

namespace vitrail::models {
namespace {

#include "golden_metrics.inc"

at::Tensor random(at::IntArrayRef shape, uint16_t layer = 0) {
  int64_t count = 1;
  for (const int64_t side : shape) count *= side;
  const core::DrawKey key{9, core::Stream::test, 0, layer};
  return (ops::uniform(key, at::zeros({1}, at::kLong), count).view(shape) - 0.5) * 2.0;
}

config::Model options_for(const char* kind, const char* loss) {
  config::Model options;
  options.kind.value = kind;
  options.loss.value = loss;
  options.patch_size = 4, options.num_classes = 3;
  return options;
}

struct Case {
  Task task;
  config::Model options;
  data::Batch batch;
  Output output;
};

/// Seven samples of every task; some labels count nowhere.
std::vector<Case> cases() {
  std::vector<Case> all;
  {
    Case one{Task::classification, options_for("vit", "cross_entropy"), {}, {}};
    one.options.num_classes = 8;
    one.batch.image = random({7, 1, 4, 4});
    one.batch.label = at::arange(7, at::kLong);
    one.batch.label[3].fill_(-1);
    one.output.output = random({7, 8}, 1);
    all.push_back(one);
  }
  for (const char* loss : {"dice_ce", "generalized_dice", "focal"}) {
    Case one{Task::segmentation, options_for("unetr", loss), {}, {}};
    one.options.class_weights = {1, 2, 3};
    one.batch.image = random({7, 1, 3, 4, 5});
    one.batch.label = ((random({7, 3, 4, 5}, 2) + 1) * 1.9).floor().to(at::kLong) - 1;
    one.batch.label[2].fill_(-1);
    one.output.output = random({7, 3, 3, 4, 5}, 3);
    all.push_back(one);
  }
  for (const bool norm_pix : {false, true}) {
    Case one{Task::reconstruction, options_for("mae", "masked_mse"), {}, {}};
    one.options.norm_pix_loss = norm_pix;
    one.batch.image = random({7, 2, 12, 16});
    one.output.output = random({7, 12, 32}, 4);
    one.output.mask = (random({7, 12}, 5) > -0.3).to(at::kFloat);
    all.push_back(one);
  }
  {
    Case one{Task::denoising, options_for("diffusion", "mse"), {}, {}};
    one.batch.image = random({7, 1, 4, 4});
    one.batch.noise = random({7, 1, 4, 4}, 6);
    one.output.output = one.batch.noise * 0.8 + random({7, 1, 4, 4}, 7) * 0.2;
    all.push_back(one);
  }
  return all;
}

std::pair<data::Batch, Output> rows_of(const Case& one, const std::vector<int64_t>& rows) {
  const at::Tensor index = at::tensor(rows, at::kLong);
  data::Batch batch = one.batch;
  for (at::Tensor* tensor : batch.rows()) *tensor = tensor->index_select(0, index);
  Output output;
  output.output = one.output.output.index_select(0, index);
  if (one.output.mask.defined()) output.mask = one.output.mask.index_select(0, index);
  return {batch, output};
}

TEST(Metrics, DoNotDependOnBatchesOrderAndRanks) {
  // fp64 sums of at most 1e4 terms in another order: 1e-12.
  double worst = 0;
  for (const Case& one : cases()) {
    const auto whole = make_tally(one.task, one.options);
    whole->add(one.batch, one.output);
    const std::vector<std::vector<std::vector<int64_t>>> cuts{{{0, 1, 2, 3, 4, 5, 6}},
                                                              {{6}, {5, 4, 3}, {2, 1, 0}},
                                                              {{0}, {1}, {2}, {3}, {4}, {5}, {6}},
                                                              {{3, 1}, {0, 6, 2, 5}, {4}}};
    for (const auto& cut : cuts) {
      const auto sum = make_tally(one.task, one.options);
      for (const auto& rows : cut) {  // every piece on a rank of its own
        const auto rank = make_tally(one.task, one.options);
        const auto [batch, output] = rows_of(one, rows);
        rank->add(batch, output);
        for (size_t i = 0; i < sum->sums().size(); ++i) sum->sums()[i] += rank->sums()[i];
      }
      EXPECT_EQ(sum->samples(), whole->samples());
      EXPECT_EQ(sum->confusion(), whole->confusion());
      const MetricList mine = sum->metrics(), peer = whole->metrics();
      ASSERT_EQ(mine.size(), peer.size());
      for (size_t i = 0; i < mine.size(); ++i) {
        EXPECT_EQ(mine[i].first, peer[i].first);
        ASSERT_TRUE(std::isfinite(mine[i].second)) << mine[i].first;
        const double error = std::abs(mine[i].second - peer[i].second);
        EXPECT_LE(error, 1e-12 * std::max(1.0, std::abs(peer[i].second))) << mine[i].first;
        worst = std::max(worst, error);
      }
    }
  }
  std::printf("worst difference %.1e (allowed 1e-12)\n", worst);
}

TEST(Metrics, OfNothingAreNotNumbers) {
  for (const Case& one : cases()) {
    const auto tally = make_tally(one.task, one.options);
    EXPECT_EQ(tally->samples(), 0);
    for (const auto& [name, value] : tally->metrics()) EXPECT_TRUE(std::isnan(value)) << name;
  }
}

/// Everything SegmentationTally says, one pixel after another.
MetricList plain_segmentation(const at::Tensor& logits, const at::Tensor& label, int64_t classes) {
  const at::Tensor rows = logits.flatten(2).transpose(1, 2).contiguous();  // [B, N, C]
  const at::Tensor labels = label.flatten(1).contiguous();
  std::vector<double> hits(classes), truths(classes), guesses(classes);
  double right = 0, count = 0;
  for (int64_t i = 0; i < labels.numel(); ++i) {
    const int64_t truth = labels.const_data_ptr<int64_t>()[i];
    const float* row = rows.const_data_ptr<float>() + i * classes;
    const int64_t guess = std::max_element(row, row + classes) - row;
    if (truth < 0) continue;
    count += 1, right += truth == guess;
    truths[truth] += 1, guesses[guess] += 1, hits[truth] += truth == guess;
  }
  double foreground = 0, all = 0, iou = 0, sensitivity = 0, specificity = 0;
  for (int64_t c = 0; c < classes; ++c) {
    const double dice = 2 * hits[c] / (truths[c] + guesses[c]);
    all += dice / classes;
    if (c > 0) foreground += dice / (classes - 1);
    iou += hits[c] / (truths[c] + guesses[c] - hits[c]) / classes;
    if (c == 0) continue;
    sensitivity += hits[c] / truths[c] / (classes - 1);
    const double others = count - truths[c], wrong = guesses[c] - hits[c];
    specificity += (others - wrong) / others / (classes - 1);
  }
  return {{"dice", foreground},
          {"mean_dice", all},
          {"mean_iou", iou},
          {"sensitivity", sensitivity},
          {"specificity", specificity},
          {"pixel_accuracy", right / count}};
}

TEST(Metrics, OfSegmentationAreThePlainLoops) {
  for (const Case& one : cases()) {
    if (one.task != Task::segmentation) continue;
    const auto tally = make_tally(one.task, one.options);
    tally->add(one.batch, one.output);
    const MetricList mine = tally->metrics();
    for (const auto& [name, value] : plain_segmentation(one.output.output, one.batch.label, 3))
      EXPECT_NEAR(metric(mine, name), value, 1e-14) << name;
    EXPECT_EQ(tally->samples(), 6);  // one has no label at all
    double loss = 0;
    for (int64_t i = 0; i < 7; ++i)
      if (i != 2)
        loss += segmentation_loss(one.output.output.narrow(0, i, 1).to(at::kDouble),
                                  one.batch.label.narrow(0, i, 1), one.options)
                    .item<double>() /
                6;
    EXPECT_NEAR(metric(mine, "loss"), loss, 1e-14);
  }
}

/// A prediction of these classes, as logits.
Output saying(const at::Tensor& classes, int64_t num_classes) {
  Output output;
  output.output = at::one_hot(classes, num_classes).movedim(-1, 1).to(at::kFloat) * 9.0;
  return output;
}

TEST(Metrics, AClassThatIsNowhereHasNoValueAndOneThatIsOnlyGuessedHasZero) {
  config::Model options = options_for("unetr", "dice_ce");
  options.num_classes = 4;
  SegmentationTally tally(options);
  data::Batch batch;
  batch.label = at::tensor({0, 0, 1, 1, 1, -1}, at::kLong).view({1, 2, 3});
  tally.add(batch, saying(at::tensor({0, 0, 1, 1, 2, 3}, at::kLong).view({1, 2, 3}), 4));
  const MetricList metrics = tally.metrics();
  EXPECT_EQ(metric(metrics, "dice_class_0"), 1);
  EXPECT_EQ(metric(metrics, "dice_class_1"), 0.8);
  EXPECT_EQ(metric(metrics, "dice_class_2"), 0);
  EXPECT_TRUE(std::isnan(metric(metrics, "dice_class_3")));  // guessed where nothing counts
  EXPECT_DOUBLE_EQ(metric(metrics, "dice"), 0.4);
  EXPECT_DOUBLE_EQ(metric(metrics, "mean_dice"), 0.6);
  EXPECT_DOUBLE_EQ(metric(metrics, "mean_iou"), (1 + 2.0 / 3 + 0) / 3);
  EXPECT_DOUBLE_EQ(metric(metrics, "sample_dice"), 0.8);  // class 2 is not in the truth
  EXPECT_DOUBLE_EQ(metric(metrics, "sensitivity"), 2.0 / 3);
  EXPECT_DOUBLE_EQ(metric(metrics, "specificity"), 1);  // of class 1: nobody takes the others for it
  EXPECT_EQ(tally.confusion()[1], (std::vector<int64_t>{0, 2, 1, 0}));
}

TEST(Metrics, OnePixelAndPerfectSegmentations) {
  SegmentationTally tally(options_for("unetr", "cross_entropy"));
  data::Batch batch;
  batch.label = at::ones({1, 1, 1, 1}, at::kLong);
  tally.add(batch, saying(batch.label, 3));
  for (const char* name : {"dice", "mean_dice", "mean_iou", "pixel_accuracy", "sample_dice", "sensitivity"})
    EXPECT_EQ(metric(tally.metrics(), name), 1) << name;
  EXPECT_TRUE(std::isnan(metric(tally.metrics(), "iou_class_0")));
}

TEST(Metrics, SampleDiceIsMonaisDiceMetric) {
  // The formulas of tools/golden/losses.py.
  const at::Tensor i = at::arange(72, at::kDouble);
  Output output;
  output.output = (2.0 * (1.3 * i + 0.2).sin()).view({2, 3, 3, 4});
  data::Batch batch;
  const at::Tensor j = at::arange(24, at::kLong);
  batch.label = (7 * j + j.div(3, "floor")).remainder(3).view({2, 3, 4});
  batch.label[1].masked_fill_(batch.label[1].eq(2), 0);  // a class that one sample lacks
  SegmentationTally tally(options_for("unetr", "dice"));
  tally.add(batch, output);
  EXPECT_NEAR(metric(tally.metrics(), "sample_dice"), golden_sample_dice, 1e-7);  // there in fp32
}

TEST(Metrics, RefuseLabelsAndShapesThatDoNotFit) {
  EXPECT_THROW(make_tally(Task::segmentation,
                          [] {
                            config::Model options = options_for("unetr", "dice");
                            options.num_classes = 1;
                            return options;
                          }()),
               core::ConfigError);
  SegmentationTally tally(options_for("unetr", "dice"));
  data::Batch batch;
  batch.label = at::full({1, 2, 2}, 3, at::kLong);
  Output output;
  output.output = at::zeros({1, 3, 2, 2});
  EXPECT_THROW(tally.add(batch, output), core::DataError);
  batch.label = at::zeros({1, 2, 3}, at::kLong);
  EXPECT_THROW(tally.add(batch, output), core::Error);
  ReconstructionTally reconstruction(options_for("mae", "mse"), {});
  batch.image = at::zeros({1, 1, 8, 8});
  output.output = at::zeros({1, 4, 15});
  EXPECT_THROW(reconstruction.add(batch, output), core::Error);
  EXPECT_THROW(ReconstructionTally(options_for("mae", "mse"), PixelScale{{}, {}, 0.0}),
               core::Error);
}

// The formulas of tools/golden/losses.py.
std::pair<at::Tensor, at::Tensor> pictures(at::IntArrayRef shape) {
  int64_t count = 1;
  for (const int64_t side : shape) count *= side;
  const at::Tensor i = at::arange(count, at::kDouble);
  const at::Tensor a = 0.5 + 0.5 * (0.37 * i + 0.1).sin();
  return {a.view(shape), (0.8 * a + 0.1 * (1.7 * i).cos()).view(shape)};
}

TEST(Metrics, SimilarityIsThatOfWangInTwoAndThreeDimensions) {
  // Against SciPy's Gaussian filter in fp64, 33 and 363 products per place; differences of squares
  // lose some digits: 1e-12. (The script holds MONAI's fp32 result against the same values.)
  const auto worst = [](const at::Tensor& mine, const std::vector<double>& peer) {
    return (mine - at::tensor(peer, at::kDouble)).abs().max().item<double>();
  };
  const auto [a2, b2] = pictures({2, 2, 14, 17});
  const auto [a3, b3] = pictures({1, 1, 12, 13, 11});
  const double flat = worst(ops::structural_similarity(a2, b2, 1.0), golden_ssim_2d);
  const double deep = worst(ops::structural_similarity(a3, b3, 1.0), golden_ssim_3d);
  std::printf("worst difference %.1e in 2-D, %.1e in 3-D (allowed 1e-12)\n", flat, deep);
  EXPECT_LE(std::max(flat, deep), 1e-12);
  EXPECT_EQ(ops::structural_similarity(a3, a3, 1.0).item<double>(), 1);
  EXPECT_NEAR(ops::structural_similarity(a3 * 5, b3 * 5, 5.0).item<double>(),
              ops::structural_similarity(a3, b3, 1.0).item<double>(), 1e-12);
  EXPECT_THROW(ops::structural_similarity(a3.narrow(4, 0, 10), b3.narrow(4, 0, 10), 1.0),
               core::Error);
  EXPECT_THROW(ops::structural_similarity(a3, b3, 0.0), core::Error);
}

/// Errors of hidden pixels found in the images, not in tokens.
struct PlainErrors {
  double count = 0, error = 0, sum = 0, squares = 0;
  void add(const at::Tensor& truth, const at::Tensor& guess, const at::Tensor& hidden) {
    const at::Tensor t = truth.contiguous(), g = guess.contiguous(), h = hidden.contiguous();
    for (int64_t i = 0; i < t.numel(); ++i) {
      if (h.const_data_ptr<double>()[i] == 0) continue;
      const double value = t.const_data_ptr<double>()[i];
      const double difference = g.const_data_ptr<double>()[i] - value;
      count += 1, error += difference * difference, sum += value, squares += value * value;
    }
  }
};

TEST(Metrics, OfReconstructionAreThePlainLoopsInUnitsOfThePixels) {
  const std::vector<double> mean{0.3, 0.6}, std{0.2, 0.4};
  for (const Case& one : cases()) {
    if (one.task != Task::reconstruction) continue;
    const auto tally = make_tally(one.task, one.options, {mean, std, 1.0});
    tally->add(one.batch, one.output);
    const auto image = [](const at::Tensor& tokens) {
      return ops::unpatchify(tokens, {3, 4}, 4, ops::PatchOrder::channel_last);
    };
    const at::Tensor unit = at::tensor(std, at::kDouble).view({1, 2, 1, 1});
    const at::Tensor zero = at::tensor(mean, at::kDouble).view({1, 2, 1, 1});
    at::Tensor guess = one.output.output.to(at::kDouble);
    const at::Tensor target =
        ops::patchify(one.batch.image.to(at::kDouble), 4, ops::PatchOrder::channel_last);
    at::Tensor wanted = target;
    if (one.options.norm_pix_loss) {
      const at::Tensor middle = target.mean(-1, true);
      const at::Tensor spread = ((target - middle).square().sum(-1, true) / 31 + 1e-6).sqrt();
      wanted = (target - middle) / spread;
      guess = guess * spread + middle;
    }
    const at::Tensor hidden =
        image(one.output.mask.to(at::kDouble).unsqueeze(2).expand({7, 12, 32}));
    const at::Tensor truth_image = one.batch.image.to(at::kDouble) * unit + zero;
    const at::Tensor guess_image = image(guess) * unit + zero;
    PlainErrors plain;
    plain.add(truth_image, guess_image, hidden);
    const double rmse = std::sqrt(plain.error / plain.count);
    const MetricList mine = tally->metrics();
    EXPECT_NEAR(metric(mine, "rmse"), rmse, 1e-13);
    EXPECT_NEAR(metric(mine, "psnr"), -20 * std::log10(rmse), 1e-11);
    EXPECT_NEAR(metric(mine, "r2"),
                1 - plain.error / (plain.squares - plain.sum * plain.sum / plain.count), 1e-12);
    const at::Tensor pasted = truth_image * (1.0 - hidden) + guess_image * hidden;
    EXPECT_NEAR(metric(mine, "ssim"),
                ops::structural_similarity(truth_image, pasted, 1.0).mean().item<double>(), 1e-12);
    const at::Tensor mask = one.output.mask.to(at::kDouble);
    const at::Tensor error = (one.output.output.to(at::kDouble) - wanted).square().mean(-1);
    EXPECT_NEAR(metric(mine, "loss"), ((error * mask).sum(1) / mask.sum(1)).mean().item<double>(),
                1e-13);
  }
}

TEST(Metrics, APerfectReconstructionHasNoErrorAndPaddingLeavesCountNowhere) {
  config::Model options = options_for("mae", "mse");
  options.patch_size = 2;
  options.adaptive.fixed_length = 5;
  ReconstructionTally tally(options, {});
  data::Batch batch;
  batch.image = random({2, 3, 8, 8});
  batch.leaf_tokens = random({2, 3, 5, 4});
  batch.leaf_boxes = at::tensor({0.0, 0.0, 2.0, 2.0}, at::kFloat).repeat({2, 5, 1}).contiguous();
  batch.leaf_boxes.select(1, 4).fill_(0);  // padding
  Output output;
  output.output = batch.leaf_tokens.permute({0, 2, 3, 1}).flatten(2).contiguous();
  output.output.select(1, 4).fill_(1e6);
  output.mask = at::ones({2, 5});
  tally.add(batch, output);
  const MetricList metrics = tally.metrics();
  EXPECT_EQ(metric(metrics, "loss"), 0);
  EXPECT_EQ(metric(metrics, "rmse"), 0);
  EXPECT_EQ(metric(metrics, "r2"), 1);
  EXPECT_EQ(metric(metrics, "psnr"), std::numeric_limits<double>::infinity());
  EXPECT_THROW(metric(metrics, "ssim"), core::Error);  // leaves are no image
}

TEST(Metrics, OfDenoisingAreThePlainLoops) {
  for (const Case& one : cases()) {
    if (one.task != Task::denoising) continue;
    const auto given = make_tally(one.task, one.options);
    given->add(one.batch, one.output);
    PlainErrors plain;
    plain.add(one.batch.noise.to(at::kDouble), one.output.output.to(at::kDouble),
              at::ones(one.batch.noise.sizes(), at::kDouble));
    const MetricList mine = given->metrics();
    EXPECT_NEAR(metric(mine, "loss"), plain.error / plain.count, 1e-14);
    EXPECT_NEAR(metric(mine, "rmse"), std::sqrt(plain.error / plain.count), 1e-14);
    EXPECT_NEAR(metric(mine, "r2"),
                1 - plain.error / (plain.squares - plain.sum * plain.sum / plain.count), 1e-12);

    Case drawn = one;
    drawn.output.taps["noise"] = one.batch.noise;
    drawn.batch.noise.reset();
    const auto from_tap = make_tally(one.task, one.options);
    from_tap->add(drawn.batch, drawn.output);
    EXPECT_EQ(from_tap->sums(), given->sums());

    drawn.output.taps.clear();
    drawn.output.loss = (one.output.output - one.batch.noise).square().mean();
    const auto from_loss = make_tally(one.task, one.options);
    from_loss->add(drawn.batch, drawn.output);
    EXPECT_NEAR(metric(from_loss->metrics(), "rmse"), metric(mine, "rmse"), 1e-7);  // fp32 mean
    EXPECT_THROW(metric(from_loss->metrics(), "r2"), core::Error);
  }
}

}  // namespace
}  // namespace vitrail::models
