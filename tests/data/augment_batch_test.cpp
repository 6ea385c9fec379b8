// Steps that are carried out after a plan: what they do to images, masks, boxes, values and labels.

#include "vitrail/data/augment_batch.h"

#include <cmath>
#include <cstring>
#include <limits>

#include <ATen/Parallel.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/isnan.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "augment_samples.h"
#include "test_data.h"
#include "vitrail/core/clock.h"
#include "vitrail/core/error.h"

namespace vitrail::data {
namespace {

using kernels::AugmentMix;
using kernels::AugmentOp;
using test::Augmented;
using test::header_of;
using test::model_of;
using test::noise;
using test::segmenter;
using test::slots_of;
using test::with_steps;

// intensity:0:0 multiplies by 1 and adds 0, so that what follows it runs after the plan.
constexpr const char* kNothing = "intensity:0:0";

// Same draws (the layer is the place in the list, so the list on the host gets a step in front that
// draws nothing that matters), same index maps, same normalisation: bit for bit.
TEST(AugmentBatch, ExactStepsEqualTheLoadersBitForBit) {
  const std::vector<std::vector<std::string>> lists = {
      {"flip"}, {"flips", "rot90"}, {"crop:2", "flip"}, {"shift:3", "rot90", "flips", "crop:1"}};
  for (const auto& sides : {std::vector<int64_t>{9, 9}, std::vector<int64_t>{4, 6, 6}})
    for (const auto& steps : lists) {
      std::vector<std::string> on_host = steps, on_device = steps;
      on_host.insert(on_host.begin(), "shift:0");
      on_device.insert(on_device.begin(), kNothing);
      const config::Model model = segmenter(sides, 3, 5);
      const Augmented host(with_steps(on_host), model, 12),
          device(with_steps(on_device), model, 12);
      EXPECT_TRUE(at::equal(host.batch.image, device.batch.image)) << steps[0] << sides.size();
      EXPECT_TRUE(at::equal(host.batch.label, device.batch.label)) << steps[0] << sides.size();
      const Augmented still(with_steps({}), model, 12);
      EXPECT_FALSE(at::equal(still.batch.image, device.batch.image))
          << "the steps must do something";
    }
}

TEST(AugmentBatch, RotationsOfCubesAreAllTwentyFour) {
  const config::Model model = segmenter({3, 3, 3}, 1, 27);
  const Augmented host(with_steps({"shift:0", "rot90_3d"}), model, 400, /*same_image=*/true);
  const Augmented device(with_steps({kNothing, "rot90_3d"}), model, 400, true);
  EXPECT_TRUE(at::equal(host.batch.image, device.batch.image));
  EXPECT_TRUE(at::equal(host.batch.label, device.batch.label));
  std::map<std::string, int> seen;
  for (int64_t b = 0; b < 400; ++b) {
    const at::Tensor row = device.batch.image[b].contiguous();
    ++seen[std::string(static_cast<const char*>(row.const_data_ptr()), 27 * 4)];
  }
  EXPECT_EQ(seen.size(), 24u);
  // Binomial(400, 1/24): mean 16.7, standard deviation 4; 4 of them.
  for (const auto& [image, times] : seen) EXPECT_NEAR(times, 16.7, 16.0);
}

TEST(AugmentBatch, ResizedCropEqualsTheLoadersBitForBit) {
  for (const auto& sides : {std::vector<int64_t>{11, 14}, std::vector<int64_t>{6, 8, 7}}) {
    const config::Model model = segmenter(sides, 3, 5);
    int64_t differing = 0;
    for (int64_t index = 0; index < 20; ++index) {
      const AugmentStep step = config::parse_augment_step("resized_crop:0.2:1").step;
      const AugmentPlace place{5, 1, index};
      const CropBox box = draw_resized_crop(step, 1, place, sides);
      const Augmented device(with_steps({kNothing, "resized_crop:0.2:1"}), model, 1, false, place);
      Window window = whole_window(0, sides);
      window.origin = box.origin;
      window.sides = window.extent = box.sides;
      const Transform plain(with_steps({}), model, true, false);
      at::Tensor image = at::empty_like(device.batch.image),
                 mask = at::empty_like(device.batch.label);
      plain.apply(device.files[0], window, place, image.mutable_data_ptr<float>(),
                  mask.mutable_data_ptr<int64_t>());
      // The host normalises the resized bytes, the device resizes normalised values: 1e-5 of values
      // up to 2.6.
      EXPECT_LE(image.sub(device.batch.image).abs().max().item<float>(), 1e-5f) << index;
      EXPECT_TRUE(at::equal(mask, device.batch.label)) << index;
      differing += box.sides != sides;
    }
    EXPECT_GT(differing, 15);
  }
}

TEST(AugmentBatch, AFirstResizedCropIsAWindowOfTheFile) {
  const config::Model model = segmenter({8, 8}, 3, 5);
  const Transform transform(with_steps({"resized_crop", "flip"}), model, true, false);
  const Window whole = whole_window(0, {500, 500});
  double area = 0;
  for (int64_t index = 0; index < 4000; ++index) {
    const Window window = transform.narrow(whole, {3, 1, index});
    for (size_t axis = 0; axis < 2; ++axis) {
      EXPECT_GE(window.origin[axis], 0);
      EXPECT_GE(window.sides[axis], 1);
      EXPECT_LE(window.origin[axis] + window.sides[axis], whole.sides[axis]);
    }
    area += static_cast<double>(window.sides[0] * window.sides[1]) / 250'000 / 4000;
  }
  // A share uniform in [0.08, 1] given that both sides fit, |log ratio| <= -log share, has mean 0.4778
  // and standard deviation 0.24; standard error 0.0038, 4 of them.
  EXPECT_NEAR(area, 0.4778, 0.0152);
  EXPECT_FALSE(transform.wants_plan());
  EXPECT_EQ(transform.staging_sides(), model.image_size);
}

// An affine step that turns by nothing, moves by nothing and scales by one keeps every pixel.
TEST(AugmentBatch, AnAffineStepOfNothingKeepsEverything) {
  for (const auto& sides : {std::vector<int64_t>{9, 12}, std::vector<int64_t>{4, 6, 5}}) {
    const config::Model model = segmenter(sides, 3, 5);
    const Augmented still(with_steps({}), model, 4),
        moved(with_steps({"affine:0:0:1:1"}), model, 4);
    EXPECT_TRUE(at::equal(still.batch.image, moved.batch.image));
    EXPECT_TRUE(at::equal(still.batch.label, moved.batch.label));
  }
}

TEST(AugmentBatch, MasksMoveWithTheImage) {
  // The image holds its own class / 100, so that wherever the image is a whole pixel's value, the
  // mask must be that class.
  config::Source source = with_steps({"affine:90:0.2:0.7:1.4:10", "flips", "crop:2"});
  source.mean = {0};
  source.std = {1};
  for (const auto& sides : {std::vector<int64_t>{40, 48}, std::vector<int64_t>{16, 20, 18}}) {
    config::Model model = segmenter(sides, 1, 200);
    Augmented made(source, model, 20, false, {1, 0, 0}, /*image_is_class=*/true);
    const at::Tensor byte = made.batch.image.squeeze(1).mul(255);
    const at::Tensor mask = made.batch.label;
    EXPECT_GT(mask.eq(-1).sum().item<int64_t>(), 0);
    // Blocks of 8 pixels are of one class: where all neighbours agree the two must.
    const at::Tensor is_class = byte.sub(byte.round()).abs().lt(1e-3).logical_and(byte.gt(0.5));
    const at::Tensor agree = byte.round().eq(mask).logical_and(is_class);
    const auto whole = is_class.sum().item<double>();
    EXPECT_GT(whole, 0.1 * static_cast<double>(mask.numel()));
    // A blend of two classes may happen to be a third's number.
    EXPECT_GT(agree.sum().item<double>(), 0.9 * whole);
  }
}

TEST(AugmentBatch, MixupBlendsPairsByTheEvenSamplesShare) {
  const config::Model model = model_of({5, 6}, 3, 10);
  const Augmented made(with_steps({"mixup:0.4"}), model, 7);
  const at::Tensor share = made.batch.label_share, other = made.batch.label_other;
  const Augmented still(with_steps({}), model, 7);
  for (int64_t b = 0; b < 6; ++b) {
    const float lambda = share[b].item<float>();
    EXPECT_EQ(lambda, header_of(made, b & ~int64_t{1}).share);
    EXPECT_EQ(other[b].item<int64_t>(), made.staged.label[b ^ 1].item<int64_t>());
    const at::Tensor expected =
        still.batch.image[b].mul(lambda).add(still.batch.image[b ^ 1].mul(1.0f - lambda));
    EXPECT_TRUE(at::equal(made.batch.image[b], expected)) << b;
  }
  // The last one of an odd batch has no partner.
  EXPECT_EQ(share[6].item<float>(), 1.0f);
  EXPECT_EQ(other[6].item<int64_t>(), made.staged.label[6].item<int64_t>());
  EXPECT_TRUE(at::equal(made.batch.image[6], still.batch.image[6]));
}

TEST(AugmentBatch, CutmixSharesAreThoseOfThePixels) {
  for (const auto& sides : {std::vector<int64_t>{8, 10}, std::vector<int64_t>{5, 6, 4}}) {
    const Augmented made(with_steps({"cutmix:1"}), model_of(sides, 1, 10), 40);
    const Augmented still(with_steps({}), model_of(sides, 1, 10), 40);
    int64_t cut = 0;
    for (int64_t b = 0; b < 40; ++b) {
      const at::Tensor own = made.batch.image[b].eq(still.batch.image[b]);
      const at::Tensor partner = made.batch.image[b].eq(still.batch.image[b ^ 1]);
      EXPECT_TRUE(own.logical_or(partner).all().item<bool>());
      const auto changed = own.logical_not().sum().item<double>();
      const double expected = (1 - made.batch.label_share[b].item<float>()) * count(sides);
      // Pixels of the partner that happen to be equal: one of 256 each.
      EXPECT_LE(changed, expected + 1e-3);
      EXPECT_GE(changed, expected - 3);
      cut += changed > 0;
    }
    EXPECT_GT(cut, 20);
  }
}

TEST(AugmentBatch, CutmixCutsMasksAndValuesToo) {
  const Augmented made(with_steps({"cutmix:1"}), segmenter({8, 8}, 1, 5), 20);
  const Augmented still(with_steps({}), segmenter({8, 8}, 1, 5), 20);
  EXPECT_FALSE(made.batch.label_other.defined());
  const at::Tensor swapped = made.batch.image.ne(still.batch.image).squeeze(1);
  const at::Tensor partner = still.batch.label.view({10, 2, 8, 8}).flip({1}).view({20, 8, 8});
  EXPECT_TRUE(made.batch.label.eq(partner).logical_or(swapped.logical_not()).all().item<bool>());
  EXPECT_GT(swapped.sum().item<int64_t>(), 100);
}

TEST(AugmentBatch, OneOfMixupAndCutmixIsChosenByAPair) {
  const Augmented made(with_steps({"mixup:1", "cutmix:1"}), model_of({4, 4}, 1, 10), 1000);
  int64_t mixup = 0;
  for (int64_t b = 0; b < 1000; ++b) mixup += header_of(made, b).mix == AugmentMix::mixup;
  // Binomial(1000, 1/2): standard deviation 16; 4 of them.
  EXPECT_NEAR(static_cast<double>(mixup), 500.0, 64.0);
}

TEST(AugmentBatch, PairsDoNotDependOnHowABatchIsSplit) {
  const config::Source source = with_steps({"flip", "color_jitter:0.4:0.4:0.4:0.1", "mixup:1"});
  const config::Model model = model_of({6, 6}, 3, 10);
  const Augmented whole(source, model, 8);
  for (int64_t part = 0; part < 4; ++part) {
    const Augmented half(source, model, 2, false, {1, 0, 2 * part});
    EXPECT_TRUE(at::equal(half.batch.image, whole.batch.image.narrow(0, 2 * part, 2)));
    EXPECT_TRUE(at::equal(half.batch.label_share, whole.batch.label_share.narrow(0, 2 * part, 2)));
  }
}

TEST(AugmentBatch, ErasingHidesABoxOfZerosOrNoise) {
  for (const char* step : {"erasing:1", "erasing:1:noise"}) {
    const Augmented made(with_steps({step}), model_of({16, 16}, 3, 10), 200);
    const Augmented still(with_steps({}), model_of({16, 16}, 3, 10), 200);
    const at::Tensor erased = made.batch.image.ne(still.batch.image);
    const double share = erased.to(at::kDouble).mean().item<double>();
    // Uniform in [0.02, 0.33], less what does not fit.
    EXPECT_GT(share, 0.12);
    EXPECT_LT(share, 0.2);
    const at::Tensor values = made.batch.image.masked_select(erased);
    if (std::string(step) == "erasing:1") {
      EXPECT_EQ(values.abs().max().item<float>(), 0.0f);
    } else {
      // About 24000 normals: standard errors 0.0065 and 0.0046; 4 of them.
      EXPECT_NEAR(values.mean().item<double>(), 0.0, 0.026);
      EXPECT_NEAR(values.std().item<double>(), 1.0, 0.02);
    }
  }
}

TEST(AugmentBatch, NoiseIsNormalAndItsOwnForEverySampleAndEpoch) {
  config::Source source = with_steps({"noise:0.2"});
  source.mean = {0};
  source.std = {1};
  const config::Model model = model_of({20, 20}, 3, 10);
  const Augmented made(source, model, 20), still(with_steps({}), model, 20);
  const Augmented next(source, model, 20, false, {1, 1, 0});
  config::Source plain = source;
  plain.augment.clear();
  const at::Tensor noise = made.batch.image.sub(Augmented(plain, model, 20).batch.image);
  // 24000 normals: standard errors 0.0013 and 0.0009; 4 of them.
  EXPECT_NEAR(noise.mean().item<double>(), 0.0, 0.0052);
  EXPECT_NEAR(noise.std().item<double>(), 0.2, 0.0037);
  EXPECT_FALSE(at::equal(noise[0], noise[1]));
  EXPECT_FALSE(at::equal(made.batch.image, next.batch.image));
}

TEST(AugmentBatch, ValuesFollowTheImageAndAreNanOutside) {
  config::Source source = with_steps({"flip", "affine:30:0.3:0.8:1.2", "flips"});
  source.mean = {0};
  source.std = {1};
  source.normalize.value = "none";
  config::Model model = model_of({10, 12}, 1, 1);
  model.kind.value = "unetr";
  model.loss.value = "mse";
  Augmented made(source, model, 10, false, {1, 0, 0}, false, /*image_is_value=*/true);
  const at::Tensor outside = made.batch.label.isnan();
  EXPECT_GT(outside.sum().item<int64_t>(), 0);
  EXPECT_LT(outside.sum().item<int64_t>(), made.batch.label.numel());
  // Where every neighbour lies inside, both are the same interpolation of the same numbers.
  const at::Tensor same = made.batch.label.eq(made.batch.image).logical_or(outside);
  EXPECT_TRUE(same.all().item<bool>());
}

TEST(AugmentBatch, BoxesFollowTheImage) {
  // A bright rectangle on black, and its box: after every step the box must be the hull of what is
  // bright.
  const std::vector<std::vector<std::string>> lists = {{"flip"},
                                                       {kNothing, "flip"},
                                                       {"flips", "rot90", "shift:3"},
                                                       {"crop:3"},
                                                       {kNothing, "flips", "rot90", "crop:2"},
                                                       {"affine:0:0.2:1:1"},
                                                       {"affine:180:0.1:0.6:1.5:20", "flip"},
                                                       {kNothing, "resized_crop:0.3:1"},
                                                       {"resized_crop:0.3:1", "flip"}};
  const config::Model model = model_of({24, 24}, 1, 3);
  int64_t kept = 0, lost = 0;
  for (const auto& steps : lists)
    for (int64_t index = 0; index < 30; ++index) {
      config::Source source = with_steps(steps);
      source.mean = {0};
      source.std = {1};
      const LabelledBox box{static_cast<float>(2 + index % 5), static_cast<float>(3 + index % 7),
                            static_cast<float>(9 + index % 11), static_cast<float>(13 + index % 3),
                            2};
      const Augmented made(source, model, box, {4, 0, index});
      const bool is_kept = made.batch.box_classes[0][0].item<int64_t>() == 2;
      (is_kept ? kept : lost) += 1;
      const at::Tensor bright = made.batch.image[0][0].gt(1e-6);
      if (!is_kept) {
        EXPECT_LE(bright.any(0).sum().item<int64_t>() == 0
                      ? 0
                      : std::min(bright.any(0).sum().item<int64_t>(),
                                 bright.any(1).sum().item<int64_t>()),
                  2)
            << steps[0];
        continue;
      }
      const at::Tensor columns = bright.any(0).nonzero(), rows = bright.any(1).nonzero();
      ASSERT_GT(columns.size(0), 0) << steps[0] << index;
      const float found[4] = {static_cast<float>(columns.min().item<int64_t>()),
                              static_cast<float>(rows.min().item<int64_t>()),
                              static_cast<float>(columns.max().item<int64_t>() + 1),
                              static_cast<float>(rows.max().item<int64_t>() + 1)};
      // Interpolation spreads a pixel into its neighbours, by the scale of the enlargement (up to
      // 1.9 here); the hull of a turned box may be that much larger than the pixels.
      const bool is_exact = steps[0] != lists[6][0] && steps.back() != "resized_crop:0.3:1" &&
                            steps[0] != "resized_crop:0.3:1";
      for (int side = 0; side < 4; ++side)
        EXPECT_NEAR(made.batch.boxes[0][0][side].item<float>(), found[side], is_exact ? 1e-3 : 2.6)
            << steps[0] << " " << index << " side " << side;
    }
  EXPECT_GT(kept, 200);
}

TEST(AugmentBatch, ListsOfDifferentSourcesShareABatch) {
  const config::Model model = model_of({8, 8}, 3, 10);
  config::Source small = with_steps({"flip"}), large = with_steps({"affine:0:0:1:1", "crop:0"});
  large.resize = {12, 10};
  Transform first(small, model, true, false), second(large, model, true, false);
  const int64_t slots = std::max(first.plan_slots(), second.plan_slots());
  first.use_plan(slots);
  second.use_plan(slots);
  ASSERT_EQ(first.plan_bytes(), second.plan_bytes());
  EXPECT_EQ(first.staging_sides(), (std::vector<int64_t>{8, 8}));
  EXPECT_EQ(second.staging_sides(), large.resize);
  Batch batch;
  batch.image = at::full({2, 3, 12, 10}, 0.0f);
  batch.augment_plan = at::empty({2, first.plan_bytes()}, at::kByte);
  const Pixels a = noise({8, 8}, 3, 1), b = noise({12, 10}, 3, 2);
  float* rows = batch.image.mutable_data_ptr<float>();
  uint8_t* plan = batch.augment_plan.mutable_data_ptr<uint8_t>();
  Placed out;
  out.image = rows;
  out.plan = plan;
  first.apply(first.prepare(a, {}, "a"), {}, whole_window(0, a.sides), {1, 0, 5}, out);
  out.image = rows + 360;
  out.plan = plan + first.plan_bytes();
  second.apply(second.prepare(b, {}, "b"), {}, whole_window(0, b.sides), {1, 0, 6}, out);
  const at::Tensor made = augmented(batch, model.image_size).image;
  at::Tensor expected = at::empty({3, 8, 8}, at::kFloat);
  Transform(small, model, true, false).apply(a, {1, 0, 5}, "a", expected.mutable_data_ptr<float>());
  EXPECT_TRUE(at::equal(made[0], expected));
  // crop:0 is the second step of its list, there as here.
  large.augment = {"shift:0", "crop:0"};
  Transform(large, model, true, false).apply(b, {1, 0, 6}, "b", expected.mutable_data_ptr<float>());
  EXPECT_TRUE(at::equal(made[1], expected));
}

TEST(AugmentBatch, KeepsOneChannelOfAPlannedBatch) {
  config::Source source = with_steps({"affine:30:0.1:1:1"});
  const config::Model model = model_of({8, 8}, 3, 10);
  Augmented made(source, model, 4);
  Batch one = made.staged;
  one.image = one.image.clone();
  keep_channel(one, 1, false);
  EXPECT_TRUE(at::equal(augmented(one, model.image_size).image, made.batch.image.narrow(1, 1, 1)));
}

TEST(AugmentBatch, APlaceWithoutASampleIsZero) {
  Augmented made(with_steps({"affine:30:0.1:1:1"}), model_of({8, 8}, 3, 10), 2);
  Batch batch = made.staged;
  batch.augment_plan = batch.augment_plan.clone();
  batch.augment_plan[1].zero_();
  batch.image = at::full({2, 3, 8, 8}, 7.0f);
  const at::Tensor image = augmented(batch, {8, 8}).image;
  EXPECT_EQ(image[1].abs().max().item<float>(), 0.0f);
  EXPECT_GT(image[0].abs().max().item<float>(), 0.0f);
}

TEST(AugmentPlan, IsAFunctionOfSeedEpochSampleAndList) {
  const StepList list =
      parse_augment({"flip", "randaugment:3:9", "affine:30:0.1:0.8:1.2", "cutmix:1"}, "s");
  const std::vector<float> mean{0.5f}, std{0.25f};
  const auto row = [&](uint64_t seed, int64_t epoch, int64_t index) {
    std::vector<uint8_t> bytes(static_cast<size_t>(plan_bytes(5, 1)), 255);
    plan_row(list, {seed, epoch, index}, {{8, 8}, {8, 8}, mean, std}, 5, bytes.data());
    return bytes;
  };
  EXPECT_EQ(row(1, 2, 3), row(1, 2, 3));
  EXPECT_NE(row(1, 2, 3), row(2, 2, 3));
  EXPECT_NE(row(1, 2, 3), row(1, 3, 3));
  EXPECT_NE(row(1, 2, 3), row(1, 2, 4));
}

TEST(AugmentPlan, RandAugmentDrawsEveryOperationEquallyOften) {
  const Augmented made(with_steps({"randaugment:1:9"}), model_of({8, 8}, 3, 10), 14'000, true);
  std::map<std::tuple<int, int, int>, int64_t> seen;
  for (int64_t b = 0; b < 14'000; ++b) {
    const auto& header = header_of(made, b);
    if (header.steps == 0) {
      ++seen[{0, 0, 0}];
      continue;
    }
    const kernels::AugmentSlot& slot = slots_of(made, b)[0];
    // Affine operations differ by their matrix: turned, sheared along x, along y, moved.
    int which = 0;
    if (slot.op == AugmentOp::affine)
      which = slot.matrix[5] != 1.0f   ? 1
              : slot.matrix[6] != 0.0f ? 2
              : slot.matrix[9] != 0.0f ? 3
              : slot.matrix[7] != 0.0f ? 4
                                       : 5;
    ++seen[{static_cast<int>(slot.op), which, 0}];
  }
  EXPECT_EQ(seen.size(), 14u);
  for (const auto& [op, times] : seen)
    // Binomial(14000, 1/14): mean 1000, standard deviation 30.5; 4 of them.
    EXPECT_NEAR(static_cast<double>(times), 1000.0, 122.0) << std::get<0>(op) << std::get<1>(op);
}

TEST(AugmentPlan, AutoAugmentUsesAllPoliciesByTheirProbabilities) {
  const Augmented made(with_steps({"autoaugment:cifar10"}), model_of({8, 8}, 3, 10), 20'000, true);
  std::map<AugmentOp, int64_t> seen;
  for (int64_t b = 0; b < 20'000; ++b)
    for (int32_t s = 0; s < header_of(made, b).steps; ++s) ++seen[slots_of(made, b)[s].op];
  // Probabilities of equalize, solarize and invert in torchvision's table for CIFAR-10, summed and
  // divided by 25 policies; standard deviation of 20000 draws below 75, 4 of them.
  EXPECT_NEAR(static_cast<double>(seen[AugmentOp::equalize]),
              20000 * (0.9 + 0.6 + 0.5 + 0.3 + 0.2 + 0.2 + 0.6 + 0.6 + 0.8) / 25, 300);
  EXPECT_NEAR(static_cast<double>(seen[AugmentOp::solarize]), 20000 * (0.5 + 0.2 + 0.4 + 0.8) / 25,
              300);
  EXPECT_NEAR(static_cast<double>(seen[AugmentOp::invert]), 20000 * (0.1 + 0.0 + 0.1) / 25, 160);
}

TEST(AugmentPlan, BetaDrawsHaveTheirMomentsForSmallAndLargeAlpha) {
  for (const double alpha : {0.05, 0.2, 1.0, 4.0}) {
    double mean = 0, square = 0;
    constexpr int kDraws = 20'000;
    for (int64_t i = 0; i < kDraws; ++i) {
      PlanDraws draws(core::Stream::augment, 0, {1, 0, i});
      const double share = draws.beta(alpha);
      ASSERT_TRUE(share >= 0 && share <= 1);
      mean += share / kDraws;
      square += (share - 0.5) * (share - 0.5) / kDraws;
    }
    // Beta(a, a): mean 1/2, variance 1 / (4 (2 a + 1)); standard errors below 0.0036 and 0.001.
    EXPECT_NEAR(mean, 0.5, 0.0144) << alpha;
    EXPECT_NEAR(square, 1 / (4 * (2 * alpha + 1)), 0.004) << alpha;
  }
}

TEST(AugmentPlan, CarriesOutExactlyWhatIsLeft) {
  const Transform host(with_steps({"flip", "crop:2"}), model_of({8, 8}, 3, 10), true, false);
  EXPECT_FALSE(host.wants_plan());
  const Transform device(with_steps({"flip", "gray:0.5", "flip"}), model_of({8, 8}, 3, 10), true,
                         false);
  EXPECT_TRUE(device.wants_plan());
  EXPECT_EQ(device.plan_slots(), 2);
  const Transform mixes(with_steps({"flip", "mixup:1"}), model_of({8, 8}, 3, 10), true, false);
  EXPECT_TRUE(mixes.wants_plan());
  EXPECT_EQ(mixes.plan_slots(), 0);
  const Transform evaluation(with_steps({"mixup:1"}), model_of({8, 8}, 3, 10), false, false);
  EXPECT_FALSE(evaluation.wants_plan());
}

TEST(AugmentTime, OfCifarImagesOnOneThread) {
  for (const std::vector<std::string>& steps : {std::vector<std::string>{"mixup:1"},
                                                {"randaugment:2:9"},
                                                {"affine:15:0.1:0.9:1.1"},
                                                {"autoaugment:cifar10", "cutmix:1"}}) {
    const Augmented made(with_steps(steps), model_of({32, 32}, 3, 10), 512);
    const int threads = at::get_num_threads();
    at::set_num_threads(1);
    const core::Stopwatch watch;
    augmented(made.staged, {32, 32});
    std::cout << steps[0] << ": " << 512e3 / watch.ms() << " images/s of 32 x 32 on one thread\n";
    at::set_num_threads(threads);
  }
}

}  // namespace
}  // namespace vitrail::data
