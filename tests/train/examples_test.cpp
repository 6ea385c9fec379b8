#include "vitrail/train/examples.h"

#include <map>

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

namespace vitrail::train {
namespace {

data::Batch images(int64_t first, int64_t count) {
  data::Batch batch;
  batch.image = at::rand({count, 1, 4, 4});
  batch.sample_ids = at::arange(first, first + count, at::kLong);
  return batch;
}

/// A hundred samples in batches of seven, of which this rank sees every second batch.
std::vector<Example> collect(models::Task task, const models::Output& every,
                             const at::Tensor& label) {
  ExampleCollector collector(task, 100);
  for (int64_t first = 0; first + 7 <= 100; first += 14) {
    data::Batch batch = images(first, 7);
    batch.label = label;
    collector.add(batch, every);
  }
  return collector.take();
}

TEST(Examples, SegmentationKeepsSamplesSpreadOverTheListWithBothMasks) {
  models::Output output;
  output.output = at::zeros({7, 3, 4, 4});
  output.output.select(1, 2).fill_(1);  // class 2 everywhere
  const auto kept = collect(models::Task::segmentation, output, at::ones({7, 4, 4}, at::kLong));
  ASSERT_GE(kept.size(), 5u);
  EXPECT_LE(kept.size(), 8u);
  int64_t before = -1;
  for (const Example& example : kept) {
    EXPECT_GE(example.sample, before + 1);
    before = example.sample;
    EXPECT_TRUE(example.truth.eq(1).all().item<bool>());
    EXPECT_TRUE(example.predicted_mask.eq(2).all().item<bool>());
    EXPECT_EQ(example.predicted_mask.sizes(), at::IntArrayRef({4, 4}));
    EXPECT_FALSE(example.mask.defined());
  }
  EXPECT_GT(kept.back().sample, 70);  // not the first eight alone
}

TEST(Examples, SegmentationPrefersSamplesInWhichThereIsSomethingToSee) {
  ExampleCollector collector(models::Task::segmentation, 16);  // two samples a stretch
  models::Output output;
  output.output = at::zeros({1, 3, 4, 4});
  for (int64_t sample = 0; sample < 16; ++sample) {
    data::Batch batch = images(sample, 1);
    batch.label = at::full({1, 4, 4}, sample % 2, at::kLong);  // every second is empty
    collector.add(batch, output);
  }
  const auto kept = collector.take();
  ASSERT_EQ(kept.size(), 8u);
  for (const Example& example : kept) EXPECT_EQ(example.sample % 2, 1);
}

TEST(Examples, ReconstructionKeepsPredictionAndMask) {
  models::Output output;
  output.output = at::rand({7, 4, 4});
  output.mask = at::ones({7, 4});
  const auto kept = collect(models::Task::reconstruction, output, at::full({7}, -1, at::kLong));
  ASSERT_FALSE(kept.empty());
  EXPECT_TRUE(kept[0].output.equal(output.output[0]));
  EXPECT_TRUE(kept[0].mask.equal(output.mask[0]));
  EXPECT_FALSE(kept[0].truth.defined());
}

TEST(Examples, DenoisingKeepsNone) {
  models::Output output;
  output.output = at::rand({7, 1, 4, 4});
  EXPECT_TRUE(collect(models::Task::denoising, output, at::full({7}, -1, at::kLong)).empty());
}

TEST(Examples, VerdictsAreShortOfNoClass) {
  ExampleCollector collector(models::Task::classification, 400);
  for (int64_t k = 0; k < 4; ++k) {  // a list sorted by class
    data::Batch batch = images(100 * k, 100);
    batch.label = at::full({100}, k, at::kLong);
    models::Output output;
    output.output = at::zeros({100, 4});
    output.output.select(1, 0).fill_(1);  // always class 0
    collector.add(batch, output);
  }
  std::map<int64_t, int> of_class;
  for (const Example& example : collector.take()) {
    ++of_class[example.label];
    EXPECT_EQ(example.predicted, 0);
  }
  for (int64_t k = 0; k < 4; ++k) EXPECT_EQ(of_class[k], 6) << k;  // 24 / 4
}

}  // namespace
}  // namespace vitrail::train
