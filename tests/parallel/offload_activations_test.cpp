// Offloaded activations on the CPU, where the copies are made at once: what comes back, when, and what stays.

#include "vitrail/parallel/offload_activations.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/parallel/tiny.h"
#include "vitrail/nn/engine.h"

namespace vitrail::parallel {
namespace {

using testing::samples;

at::Tensor filled(double value, int64_t count = 1000) { return at::full({count}, value); }

TEST(HostActivations, GivesBackWhatItTookInReverseOrder) {
  HostActivations store(at::kCPU);
  for (int step = 0; step < 3; ++step) {
    std::vector<std::unique_ptr<nn::StoredTensors>> kept;
    for (int i = 0; i < 6; ++i) kept.push_back(store.keep({filled(i), filled(10 + i, 7)}));
    for (int i = 5; i >= 0; --i) {
      const std::vector<at::Tensor> back = kept[static_cast<size_t>(i)]->restore();
      ASSERT_EQ(back.size(), 2u);
      EXPECT_TRUE(at::equal(back[0], filled(i)));
      EXPECT_TRUE(at::equal(back[1], filled(10 + i, 7)));
    }
  }
}

TEST(HostActivations, AllButTheLastTwoTravelAndAreAskedForAhead) {
  HostActivations store(at::kCPU);
  std::vector<std::unique_ptr<nn::StoredTensors>> kept;
  for (int i = 0; i < 6; ++i) kept.push_back(store.keep({filled(i)}));
  while (!kept.empty()) {
    kept.back()->restore();
    kept.pop_back();
  }
  EXPECT_EQ(store.counts().kept, 6);
  EXPECT_EQ(store.counts().travelled, 4);
  EXPECT_EQ(store.counts().ahead, 4);
}

TEST(HostActivations, LetsGoOfTheDevicesMemory) {
  HostActivations store(at::kCPU);
  std::vector<std::unique_ptr<nn::StoredTensors>> kept;
  at::Tensor watched = filled(1);
  const size_t alone = watched.use_count();
  kept.push_back(store.keep({watched}));
  EXPECT_GT(watched.use_count(), alone) << "the copy reads it";
  for (int i = 0; i < 2; ++i) kept.push_back(store.keep({filled(i)}));
  EXPECT_EQ(watched.use_count(), alone);
}

TEST(HostActivations, UsesItsBuffersAgain) {
  HostActivations store(at::kCPU);
  std::vector<int64_t> bytes;
  for (int step = 0; step < 4; ++step) {
    std::vector<std::unique_ptr<nn::StoredTensors>> kept;
    for (int i = 0; i < 5; ++i) kept.push_back(store.keep({filled(i, 100000 - 10 * step)}));
    while (!kept.empty()) {
      kept.back()->restore();
      kept.pop_back();
    }
    bytes.push_back(store.host_bytes());
  }
  EXPECT_THAT(bytes, ::testing::Each(bytes[0]));
}

TEST(HostActivations, APassWithoutBackwardLeavesNothingBehind) {
  HostActivations store(at::kCPU);
  for (int step = 0; step < 3; ++step) {
    std::vector<std::unique_ptr<nn::StoredTensors>> kept;
    for (int i = 0; i < 5; ++i) kept.push_back(store.keep({filled(i)}));
    if (step == 1) kept.back()->restore();  // a backward that failed on its way
  }
  EXPECT_LE(store.host_bytes(), 5 * (int64_t{1} << 16));
  const auto kept = store.keep({filled(3)});
  EXPECT_TRUE(at::equal(kept->restore()[0], filled(3)));
  EXPECT_THROW(kept->restore(), std::runtime_error);
}

TEST(HostActivations, TwoPassesMayBeInFlightAndEndInTheOrderInWhichTheyBegan) {
  HostActivations store(at::kCPU);
  std::vector<std::unique_ptr<nn::StoredTensors>> first, second;
  for (int i = 0; i < 4; ++i) first.push_back(store.keep({filled(i)}));
  for (int i = 0; i < 4; ++i) second.push_back(store.keep({filled(10 + i)}));
  for (const auto* pass : {&first, &second})
    for (int i = 3; i >= 0; --i)
      EXPECT_TRUE(at::equal((*pass)[static_cast<size_t>(i)]->restore()[0],
                            filled(pass == &first ? i : 10 + i)));
}

TEST(HostActivations, KeepsTheLayoutOfTransposedTensors) {
  HostActivations store(at::kCPU);
  const at::Tensor heads = at::arange(2 * 3 * 4 * 5).view({2, 3, 4, 5}).transpose(1, 2);
  const at::Tensor part = at::arange(12).view({3, 4}).narrow(1, 1, 2);
  std::vector<std::unique_ptr<nn::StoredTensors>> kept;
  kept.push_back(store.keep({heads, part}));
  for (int i = 0; i < 2; ++i) kept.push_back(store.keep({filled(i)}));
  const std::vector<at::Tensor> back = kept[0]->restore();
  EXPECT_EQ(back[0].strides(), heads.strides());
  EXPECT_TRUE(at::equal(back[0], heads));
  EXPECT_TRUE(at::equal(back[1], part));
}

std::vector<at::Tensor> gradients(const config::Model& options, const config::Train& train,
                                  HostActivations* store) {
  testing::use_one_thread();
  const auto model = models::make_model(options, 1);
  models::configure(*model, train);
  nn::EngineOptions engine = nn::engine_options(train);
  engine.store = store;
  if (store)
    for (nn::Stack* stack : model->stacks()) stack->set_engine(nn::autograd_engine(engine));
  for (uint32_t step = 0; step < 2; ++step) {
    const data::Batch batch = samples(3 * step, 3);
    model->forward(batch, {1, step, batch.sample_ids, true}).loss.backward();
  }
  std::vector<at::Tensor> all;
  for (const nn::NamedTensor& parameter : model->named_parameters())
    all.push_back(parameter.tensor.grad());
  return all;
}

config::Model with_draws(config::Model model) {
  model.proj_drop_rate = 0.2;
  model.drop_path_rate = 0.3;
  return model;
}

config::Model tiny_diffusion() {
  config::Model model = testing::tiny_mae();
  model.kind.value = "diffusion";
  return model;
}

TEST(Recompute, ModelsHaveTheSameGradientsWithEveryKindAndWithOffload) {
  for (const config::Model& options :
       {testing::tiny_vit(), with_draws(testing::tiny_vit()), testing::tiny_mae(),
        with_draws(testing::tiny_mae()), tiny_diffusion()}) {
    const std::vector<at::Tensor> plain = gradients(options, {}, nullptr);
    for (const char* kind : {"block", "every_k", "selective"})
      for (const bool offload : {false, true}) {
        SCOPED_TRACE(::testing::Message() << options.kind.value << ", " << kind << ", " << offload);
        config::Train train;
        train.recompute.value = kind;
        HostActivations store(at::kCPU);
        const std::vector<at::Tensor> mine = gradients(options, train, offload ? &store : nullptr);
        ASSERT_EQ(plain.size(), mine.size());
        for (size_t p = 0; p < plain.size(); ++p) {
          ASSERT_EQ(plain[p].defined(), mine[p].defined()) << "parameter " << p;
          if (plain[p].defined()) {
            EXPECT_TRUE(at::equal(plain[p], mine[p])) << "parameter " << p;
          }
        }
        if (offload) {
          EXPECT_GT(store.counts().kept, 0);
          // Of two kept blocks of a pass neither is let go before it is needed again.
          if (train.recompute != "every_k") {
            EXPECT_GT(store.counts().travelled, 0);
          }
        }
      }
  }
}

TEST(ActivationOffload, IsNothingOnTheCpuItself) {
  const auto model = models::make_model(testing::tiny_vit(), 1);
  config::Train train;
  train.recompute.value = "block";
  train.offload_activations = true;
  models::configure(*model, train);
  const ActivationOffload offload(*model, train, at::kCPU);
  EXPECT_EQ(offload.store(), nullptr);
  EXPECT_EQ(model->stacks()[0]->engine().name(), "autograd, blocks recomputed");
}

}  // namespace
}  // namespace vitrail::parallel
