#include "vitrail/parallel/data_parallel.h"

#include <cstdio>
#include <mutex>

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "tests/parallel/tiny.h"

namespace vitrail::parallel {
namespace {

using testing::samples;

constexpr int64_t kGlobalBatch = 24;
constexpr double kTinyBucketMib = 0.02;  // several buckets even for the smallest models

struct Result {
  at::Tensor gradient;
  int64_t buckets = 0, early = 0;
};

/// One backward of this rank's share of the global batch, in micro-batches.
Result gradients_of(comm::Communicator& group, const config::Model& options, int64_t micro_batches,
                    at::ScalarType dtype = at::kFloat) {
  testing::use_one_thread();
  const auto model = models::make_model(options, 1);
  UnitSet units(*model, at::kCPU, dtype);
  GradientReducer reducer(*model, units, group, kTinyBucketMib);
  const int64_t local = kGlobalBatch / group.size(), piece = local / micro_batches;
  for (int64_t micro = 0; micro < micro_batches; ++micro) {
    const data::Batch batch = samples(group.rank() * local + micro * piece, piece);
    const auto loss = model->forward(batch, {3, 5, batch.sample_ids, true}).loss /
                      static_cast<double>(micro_batches);
    reducer.begin_backward(micro + 1 == micro_batches);
    loss.backward();
    reducer.end_backward();
  }
  return {units.gradient().clone(), reducer.bucket_count(), reducer.early_starts()};
}

class Reducer : public ::testing::TestWithParam<const char*> {
 protected:
  config::Model options() const {
    return std::string(GetParam()) == "mae" ? testing::tiny_mae() : testing::tiny_vit();
  }
};

TEST_P(Reducer, ManyRanksAndMicroBatchesGiveTheGradientOfOneRank) {
  const Result one = gradients_of(*comm::self_communicator(), options(), 1);
  EXPECT_EQ(one.early, 0);
  double worst = 0;
  for (const int ranks : {1, 2, 3, 4})
    for (const int64_t micro_batches : {1, 2}) {
      std::mutex mutex;
      comm::run_thread_group(ranks, [&](comm::Communicator& group) {
        const Result run = gradients_of(group, options(), micro_batches);
        const std::lock_guard lock(mutex);
        worst = std::max(worst, testing::relative_difference(run.gradient, one.gradient));
        if (ranks == 1) return;
        EXPECT_GT(run.buckets, 2);
        // All but the last bucket, which holds the embedding, start while backward runs.
        EXPECT_GE(run.early, run.buckets - 1);
      });
    }
  // Sums of 24 samples in another order: worst seen 2.7e-7 of the largest gradient.
  std::printf("worst relative difference %.2g (allowed 1e-6)\n", worst);
  EXPECT_LE(worst, 1e-6);
}

TEST_P(Reducer, EveryRankHoldsTheSameBits) {
  std::vector<at::Tensor> gradients(3);
  comm::run_thread_group(3, [&](comm::Communicator& group) {
    gradients[group.rank()] = gradients_of(group, options(), 4).gradient;
  });
  EXPECT_TRUE(gradients[1].equal(gradients[0]));
  EXPECT_TRUE(gradients[2].equal(gradients[0]));
}

TEST_P(Reducer, Bf16GradientsAreReducedInFp32) {
  const Result one = gradients_of(*comm::self_communicator(), options(), 1);
  comm::run_thread_group(2, [&](comm::Communicator& group) {
    const Result run = gradients_of(group, options(), 2, at::kBFloat16);
    EXPECT_EQ(run.gradient.scalar_type(), at::kFloat);
    // bf16 keeps 8 bits: 4e-3 a rounding, several roundings deep; worst seen 8e-3.
    const double difference = testing::relative_difference(run.gradient, one.gradient);
    std::printf("relative difference %.2g (allowed 3e-2)\n", difference);
    EXPECT_LE(difference, 3e-2);
  });
}

INSTANTIATE_TEST_SUITE_P(Models, Reducer, ::testing::Values("vit", "mae"),
                         [](const auto& test) { return std::string(test.param); });

TEST(GradientReducer, ABucketHoldsAtLeastItsSize) {
  const auto model = models::make_model(testing::tiny_vit(), 1);
  UnitSet units(*model, at::kCPU, at::kFloat);
  const auto alone = comm::self_communicator();
  EXPECT_EQ(GradientReducer(*model, units, *alone, 1000.0).bucket_count(), 1);
  EXPECT_EQ(GradientReducer(*model, units, *alone, 0.0).bucket_count(),
            static_cast<int64_t>(units.units().size()));
}

TEST(BroadcastWeights, GivesEveryRankTheWeightsOfRankZero) {
  std::vector<at::Tensor> weights(3);
  comm::run_thread_group(3, [&](comm::Communicator& group) {
    const auto model = models::make_model(testing::tiny_vit(), 100 + group.rank());
    UnitSet units(*model, at::kCPU, at::kBFloat16);
    broadcast_weights(units, group);
    weights[group.rank()] = units.weights().clone();
  });
  EXPECT_TRUE(weights[1].equal(weights[0]));
  EXPECT_TRUE(weights[2].equal(weights[0]));
  const auto model = models::make_model(testing::tiny_vit(), 100);
  EXPECT_TRUE(UnitSet(*model, at::kCPU, at::kBFloat16).weights().equal(weights[0]));
}

}  // namespace
}  // namespace vitrail::parallel
