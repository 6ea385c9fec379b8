// The optimizer on the host against the plain update of the same arenas: the same operations, so equal means every bit.

#include "vitrail/parallel/host_optimizer.h"

#include <limits>

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/core/temp_folder.h"
#include "vitrail/core/error.h"
#include "vitrail/core/philox.h"
#include "vitrail/kernels/optimizer.h"
#include "vitrail/parallel/host_weights.h"

namespace vitrail::parallel {
namespace {

constexpr int64_t kCount = 5 * 2048;
/// Units of different lengths in an order that is not that of their places.
const std::vector<HostRange> kUnits{{4096, 2048}, {0, 4096}, {6144, 128}, {6272, 3968}};
const std::vector<HostSegment> kSegments{{0, 4992, 2e-3}, {4992, kCount - 4992, 1e-3}};

at::Tensor numbers(uint16_t layer, double scale = 1.0) {
  at::Tensor x = at::zeros({kCount});
  for (int64_t i = 0; i < kCount; ++i)
    x.data_ptr<float>()[i] = static_cast<float>(
        scale * (core::uniform({.seed = 5, .layer = layer}, 0, static_cast<uint32_t>(i)) - 0.5));
  return x;
}

struct Arenas {
  explicit Arenas(at::ScalarType published_type)
      : master(numbers(1)),
        mask(numbers(2).narrow(0, 0, kCount / kernels::kFlagGroup).gt(0.0).to(at::kByte)),
        gradient(at::zeros({kCount})),
        published(published_type == at::kFloat ? at::zeros({kCount}) : master.to(published_type)) {}
  at::Tensor master, mask, gradient, published;
};

/// The parts of an arena that are the units'.
std::vector<at::Tensor> cut(const at::Tensor& arena) {
  std::vector<at::Tensor> parts;
  for (const HostRange& unit : kUnits) parts.push_back(arena.narrow(0, unit.offset, unit.count));
  return parts;
}

config::Optimizer update_of(const char* kind) {
  config::Optimizer update;
  update.kind.value = kind;
  update.weight_decay = 0.1;
  return update;
}

/// Three steps as the optimizer on the device takes them, one whole segment after another.
struct PlainRun {
  PlainRun(const char* kind, at::ScalarType type, bool averages)
      : arenas(type), first(at::zeros({kCount})), second(at::zeros({kCount})) {
    const config::Optimizer update = update_of(kind);
    ema = arenas.master.clone();
    for (int64_t step = 1; step <= 3; ++step) {
      arenas.gradient.copy_(numbers(static_cast<uint16_t>(10 + step)));
      const float scale = 0.5f;
      for (const HostSegment& segment : kSegments) {
        kernels::Arena run;
        const int64_t at = segment.offset;
        run.master = arenas.master.data_ptr<float>() + at;
        run.gradient = arenas.gradient.data_ptr<float>() + at;
        run.decay = arenas.mask.data_ptr<uint8_t>() + at / kernels::kFlagGroup;
        run.first = first.data_ptr<float>() + at;
        run.second = second.data_ptr<float>() + at;
        if (averages) run.ema = ema.data_ptr<float>() + at;
        if (type == at::kBFloat16)
          run.weights_bf16 = static_cast<uint16_t*>(arenas.published.data_ptr()) + at;
        run.count = segment.count;
        if (update.kind == "adamw")
          kernels::adamw_range(run,
                               {segment.learning_rate, update.betas[0], update.betas[1], update.eps,
                                update.weight_decay, 0.9, step},
                               &scale, 0, run.count);
        else
          kernels::sgd_range(run,
                             {segment.learning_rate, update.momentum, update.weight_decay, 0.9},
                             &scale, 0, run.count);
      }
    }
    if (type == at::kFloat) arenas.published = arenas.master;
  }
  Arenas arenas;
  at::Tensor first, second, ema;
};

HostOptimizerOptions options_of(const char* kind, bool averages, const std::string& folder = "") {
  HostOptimizerOptions options;
  options.update = update_of(kind);
  if (averages) options.ema_decay = 0.9;
  options.folder = folder;
  return options;
}

struct Case {
  const char* kind;
  at::ScalarType type;
  bool averages, announced, copies, in_files;
};

class HostOptimizerBits : public ::testing::TestWithParam<Case> {};
std::vector<Case> cases() {
  std::vector<Case> all;
  for (const char* kind : {"adamw", "sgd"})
    for (const at::ScalarType type : {at::kFloat, at::kBFloat16})
      for (const bool averages : {false, true})
        for (const bool in_files : {false, true})
          for (const int way : {0, 1, 2})
            all.push_back({kind, type, averages, way == 1, way != 2, in_files});
  return all;
}
INSTANTIATE_TEST_SUITE_P(Cases, HostOptimizerBits, ::testing::ValuesIn(cases()));

TEST_P(HostOptimizerBits, IsThePlainUpdate) {
  const Case& c = GetParam();
  at::set_num_threads(1);
  const PlainRun plain(c.kind, c.type, c.averages);
  const testing::TempFolder folder;
  const Arenas mine(c.type);
  HostOptimizerOptions options = options_of(c.kind, c.averages, c.in_files ? folder.path() : "");
  options.copies = c.copies;
  HostOptimizer optimizer({mine.master, mine.mask, mine.gradient, cut(mine.published)}, kUnits,
                          options, at::kCPU);
  for (int64_t step = 1; step <= 3; ++step) {
    mine.gradient.copy_(numbers(static_cast<uint16_t>(10 + step)));
    if (c.announced) {
      for (const int unit : {0, 1, 2}) optimizer.gradient_ready(unit, nullptr);
      // What was announced is on its way: nobody reads it any more.
      mine.gradient.narrow(0, 0, 6272).fill_(1e9);
    }
    optimizer.step(kSegments, step, at::full({}, 0.5f));
  }
  EXPECT_TRUE(at::equal(mine.master, plain.arenas.master));
  EXPECT_TRUE(at::equal(mine.published, plain.arenas.published));
  const std::vector<HostOptimizer::State> states = optimizer.states();
  EXPECT_TRUE(at::equal(states[0].arena, plain.first));
  if (states[1 % states.size()].name == "exp_avg_sq") {
    EXPECT_TRUE(at::equal(states[1].arena, plain.second));
  }
  if (c.averages) {
    EXPECT_EQ(states.back().name, "ema");
    EXPECT_TRUE(at::equal(states.back().arena, plain.ema));
  }
}

TEST(HostOptimizer, AFactorOfZeroLeavesEverythingAsItIs) {
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    const Arenas mine(type);
    HostOptimizer optimizer({mine.master, mine.mask, mine.gradient, cut(mine.published)}, kUnits,
                            options_of("adamw", true), at::kCPU);
    mine.gradient.copy_(numbers(11));
    optimizer.step(kSegments, 1, at::full({}, 1.0f));
    const at::Tensor master = mine.master.clone(), published = mine.published.clone(),
                     first = optimizer.states()[0].arena.clone();
    mine.gradient.fill_(std::numeric_limits<double>::quiet_NaN());
    optimizer.step(kSegments, 2, at::full({}, 0.0f));
    EXPECT_TRUE(at::equal(mine.master, master));
    EXPECT_TRUE(at::equal(mine.published, published));
    EXPECT_TRUE(at::equal(optimizer.states()[0].arena, first));
  }
}

TEST(HostOptimizer, StatesCanBeReadAndPutBack) {
  for (const bool in_files : {false, true}) {
    const testing::TempFolder folder;
    const Arenas mine(at::kFloat);
    HostOptimizer optimizer({mine.master, mine.mask, mine.gradient, cut(mine.master)}, kUnits,
                            options_of("adamw", true, in_files ? folder.path() : ""), at::kCPU);
    EXPECT_TRUE(at::equal(optimizer.states()[2].arena, mine.master)) << "the first average";
    optimizer.write_state({"exp_avg_sq", numbers(7)});
    EXPECT_TRUE(at::equal(optimizer.states()[1].arena, numbers(7)));
    EXPECT_TRUE(at::equal(optimizer.states()[0].arena, at::zeros({kCount})));
    EXPECT_THROW(optimizer.write_state({"second", numbers(7)}), core::Error);
  }
}

TEST(HostOptimizer, PublishesMasterWeightsThatWereLoaded) {
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    const Arenas mine(type);
    HostOptimizer optimizer({mine.master, mine.mask, mine.gradient, cut(mine.published)}, kUnits,
                            options_of("adamw", false), at::kCPU);
    mine.master.copy_(numbers(8));
    optimizer.publish();
    EXPECT_TRUE(at::equal(mine.published, numbers(8).to(type)));
  }
}

TEST(HostOptimizer, EveryElementNeedsALearningRate) {
  const Arenas mine(at::kFloat);
  HostOptimizer optimizer({mine.master, mine.mask, mine.gradient, cut(mine.master)}, kUnits,
                          options_of("adamw", false), at::kCPU);
  const std::vector<HostSegment> too_few{{0, kCount - 1, 1e-3}};
  EXPECT_THROW(optimizer.step(too_few, 1, at::full({}, 1.0f)), core::Error);
}

TEST(HostOptimizer, WaitsForReadersOfWeightsInHostMemory) {
  const Arenas mine(at::kFloat);
  HostWeights weights(kCount, kUnits, at::kBFloat16, at::kCPU);
  std::vector<int> waited;
  HostOptimizerOptions options = options_of("adamw", false);
  options.published_on_host = true;
  options.before_publish = [&](int unit) {
    waited.push_back(unit);
    weights.wait(unit);
  };
  HostOptimizer optimizer({mine.master, mine.mask, mine.gradient, cut(weights.published())}, kUnits,
                          options, at::kCPU);
  optimizer.publish();
  optimizer.step(kSegments, 1, at::full({}, 1.0f));
  EXPECT_THAT(waited, ::testing::ElementsAre(0, 1, 2, 3, 0, 1, 2, 3));
  const at::Tensor slot = at::zeros({kUnits[3].count}, at::kBFloat16);
  weights.fetch(3, slot.data_ptr(), nullptr);
  EXPECT_TRUE(
      at::equal(slot, mine.master.narrow(0, kUnits[3].offset, kUnits[3].count).to(at::kBFloat16)));
}

TEST(HostOptimizer, CountsItsHostMemory) {
  EXPECT_EQ(HostOptimizer::host_bytes(1000, 100, true, false, false, false), 16 * 1000);
  EXPECT_EQ(HostOptimizer::host_bytes(1000, 100, true, true, true, false), 20 * 1000 + 600);
  EXPECT_EQ(HostOptimizer::host_bytes(1000, 100, false, false, true, false), 12 * 1000 + 600);
  EXPECT_EQ(HostOptimizer::host_bytes(1000, 100, true, false, false, true), 8 * 1000 + 2400);
}

}  // namespace
}  // namespace vitrail::parallel
