// Whole steps on the GPU against the CPU.

#include "vitrail/train/step.h"

#include <cmath>
#include <cstdio>
#include <limits>

#include <ATen/core/grad_mode.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAFunctions.h>
#include <gtest/gtest.h>

#include "tests/parallel/tiny.h"
#include "vitrail/core/error.h"
#include "vitrail/parallel/device.h"
#include "vitrail/train/assembly.h"
#include "vitrail/train/bench_optimizer.h"

namespace vitrail::train {
namespace {

using testing::samples;

struct Trainer {
  std::unique_ptr<comm::Communicator> alone = comm::self_communicator();
  config::Recipe recipe;
  comm::Mesh mesh;
  std::shared_ptr<models::Model> model;
  parallel::Engine engine;
  Optimizer optimizer;
  Step step;

  Trainer(const config::Model& options, const config::Train& train, at::Device device,
          at::ScalarType dtype)
      : recipe(recipe_of(options, train)),
        mesh(*alone, {}),
        model(configured(options, train)),
        engine(*model, recipe, mesh, device, dtype),
        optimizer(engine, train.optimizer, train.ema_decay),
        step(*model, engine, optimizer, Schedule(train.schedule, train.optimizer.lr, 100), train,
             7) {}

  static std::shared_ptr<models::Model> configured(const config::Model& options,
                                                   const config::Train& train) {
    const std::shared_ptr<models::Model> model = models::make_model(options, 1);
    models::configure(*model, train);
    return model;
  }

  static config::Recipe recipe_of(const config::Model& model, const config::Train& train) {
    config::Recipe recipe;
    recipe.model = model;
    recipe.train = train;
    return recipe;
  }
};

config::Train training() {
  config::Train train;
  train.clip_grad_norm = 1.0;
  train.ema_decay = 0.99;
  return train;
}

std::vector<double> losses(const config::Model& options, at::Device device, at::ScalarType dtype,
                           int64_t micro = 1) {
  config::Train train = training();
  train.micro_batches = micro;
  Trainer trainer(options, train, device, dtype);
  std::vector<double> found;
  for (int64_t s = 0; s < 10; ++s) found.push_back(trainer.step.run(samples(s * 8, 8)).loss());
  trainer.step.settle();
  return found;
}

double worst(const std::vector<double>& a, const std::vector<double>& b) {
  double most = 0;
  for (size_t i = 0; i < a.size(); ++i)
    most = std::max(most, std::abs(a[i] - b[i]) / std::abs(b[i]));
  return most;
}

const at::Device kGpu(at::kCUDA, 0);

TEST(GpuStep, Fp32LossesAreThoseOfTheCpu) {
  for (const config::Model& options : {testing::tiny_vit(), testing::tiny_mae()}) {
    const std::vector<double> cpu = losses(options, at::kCPU, at::kFloat);
    const std::vector<double> gpu = losses(options, kGpu, at::kFloat);
    const double first = std::abs(gpu[0] - cpu[0]) / cpu[0], all = worst(gpu, cpu);
    // Order of additions in fp32; grows over ten updates.
    std::printf("relative difference: first %.2g (allowed 1e-5), ten steps %.2g (allowed 1e-3)\n",
                first, all);
    EXPECT_LE(first, 1e-5);
    EXPECT_LE(all, 1e-3);
  }
}

TEST(GpuStep, Bf16LossesAreCloseAndMicroBatchesAgree) {
  const std::vector<double> fp32 = losses(testing::tiny_vit(), kGpu, at::kFloat);
  for (const int64_t micro : {1, 2}) {
    const double difference = worst(losses(testing::tiny_vit(), kGpu, at::kBFloat16, micro), fp32);
    // bf16 keeps 8 bits (4e-3 a rounding) through five layers and ten updates.
    std::printf("%d micro-batches: relative difference %.2g (allowed 5e-2)\n",
                static_cast<int>(micro), difference);
    EXPECT_LE(difference, 5e-2);
  }
}

/// What a run of twelve steps gave.
struct Course {
  std::vector<double> losses, norms;
  at::Tensor master;
  bool is_recorded = false;
  int64_t updates = 0;
};

/// Twelve steps, the eighth of which has fewer samples and the tenth (with `poison`) a gradient that is not finite.
Course course_of(const config::Model& options, config::Train train, const char* cuda_graph,
                 at::ScalarType dtype, bool poison = false) {
  train.cuda_graph.value = cuda_graph;
  Trainer trainer(options, train, kGpu, dtype);
  Course found;
  for (int64_t s = 0; s < 12; ++s) {
    data::Batch batch = samples(s * 8, s == 7 ? 4 : 8);
    const bool bad = poison && s == 9;
    if (bad) batch.image.data_ptr<float>()[7] = std::numeric_limits<float>::infinity();
    const StepReport report = trainer.step.run(batch);
    EXPECT_EQ(report.applied(), !bad);
    if (bad) continue;
    found.losses.push_back(report.loss());
    found.norms.push_back(report.grad_norm());
  }
  trainer.step.settle();
  found.master = trainer.engine.units().master().cpu().clone();
  found.is_recorded = trainer.step.is_recorded();
  found.updates = trainer.step.update_count();
  return found;
}

/// A recorded step against plain ones: losses of twelve steps, and weights after them.
void expect_recorded_as_plain(const char* what, const config::Model& options,
                              const config::Train& train, at::ScalarType dtype,
                              bool poison = false) {
  const Course recorded = course_of(options, train, "auto", dtype, poison),
               plain = course_of(options, train, "off", dtype, poison);
  EXPECT_TRUE(recorded.is_recorded) << what;
  EXPECT_FALSE(plain.is_recorded);
  EXPECT_EQ(recorded.updates, plain.updates);
  const double difference =
      std::max(worst(recorded.losses, plain.losses), worst(recorded.norms, plain.norms));
  const double weights = testing::relative_difference(recorded.master, plain.master);
  // The same kernels; attention's backward may add in another order, which twelve updates carry on.
  const double allowed = dtype == at::kFloat ? 1e-5 : 1e-2;
  std::printf("%-32s %-8s: losses and norms apart %.2g (allowed %.0e), weights %.2g%s\n", what,
              toString(dtype), difference, allowed, weights,
              recorded.master.equal(plain.master) ? ", all bits equal" : "");
  EXPECT_LE(difference, allowed) << what;
}

config::Model without_drops(config::Model options) {
  options.drop_path_rate = 0.0;
  return options;
}

config::Model with_drops() {
  config::Model options = testing::tiny_vit();
  options.proj_drop_rate = options.pos_drop_rate = options.drop_rate = 0.2;
  options.patch_drop_rate = 0.25;
  return options;
}

config::Model diffusion() {
  config::Model options = testing::tiny_mae();
  options.kind.value = "diffusion";
  options.time_drop_rate = 0.1;
  return options;
}

TEST(GpuStep, ARecordedStepTrainsAsAPlainOne) {
  config::Model attention_drops = testing::tiny_vit();
  attention_drops.attn_drop_rate = 0.2;
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    expect_recorded_as_plain("vit", without_drops(testing::tiny_vit()), training(), dtype);
    expect_recorded_as_plain("vit that drops", with_drops(), training(), dtype);
    expect_recorded_as_plain("vit that drops probabilities", attention_drops, training(), dtype);
    expect_recorded_as_plain("mae", testing::tiny_mae(), training(), dtype);
    expect_recorded_as_plain("diffusion", diffusion(), training(), dtype);
  }
}

TEST(GpuStep, EveryWayToTrainCanBeRecorded) {
  config::Train train = training();
  train.micro_batches = 2;
  expect_recorded_as_plain("two micro-batches", with_drops(), train, at::kBFloat16);
  for (const char* recompute : {"block", "every_k", "selective"}) {
    train = training();
    train.recompute.value = recompute;
    expect_recorded_as_plain(recompute, with_drops(), train, at::kBFloat16);
  }
  train = training();
  train.optimizer.layer_decay = 0.7;
  train.schedule.warmup_steps = 5;
  expect_recorded_as_plain("layer decay, warm-up", with_drops(), train, at::kFloat);
  train.optimizer.kind.value = "sgd";
  expect_recorded_as_plain("sgd", with_drops(), train, at::kFloat);
  for (const char* state : {"bf16", "fp8"}) {
    train = training();
    train.optimizer.state.value = state;
    // Moments are rounded at random: what attention adds in another order may round to the other neighbour.
    expect_recorded_as_plain(state, with_drops(), train, at::kBFloat16);
  }
  train = training();
  train.engine.value = "fused";
  expect_recorded_as_plain("fused engine", with_drops(), train, at::kBFloat16);
  train.recompute.value = "selective";
  expect_recorded_as_plain("fused engine, selective", with_drops(), train, at::kBFloat16);
}

TEST(GpuStep, ARecordedStepThatIsNotFiniteIsLeftOutAndNotCounted) {
  config::Train train = training();
  train.on_non_finite.value = "skip";
  expect_recorded_as_plain("one step left out", with_drops(), train, at::kFloat, true);
  EXPECT_EQ(course_of(with_drops(), train, "auto", at::kFloat, true).updates, 11);
}

TEST(GpuStep, ARecordedStepDrawsAndCountsAnew) {
  // The same batch at rate 0: losses differ by what is dropped alone, as in plain steps.
  config::Train train = training();
  train.optimizer.lr = 1e-30;
  std::vector<double> found[2];
  for (const char* graph : {"auto", "off"}) {
    train.cuda_graph.value = graph;
    Trainer trainer(with_drops(), train, kGpu, at::kFloat);
    for (int64_t s = 0; s < 8; ++s)
      found[graph[0] == 'o'].push_back(trainer.step.run(samples(0, 8)).loss());
    EXPECT_EQ(trainer.step.is_recorded(), graph[0] == 'a');
  }
  double least = 1;
  for (size_t s = 5; s < 8; ++s)
    least = std::min(least, std::abs(found[0][s] - found[0][s - 1]) / found[0][s]);
  std::printf(
      "draws of two steps change the loss by at least %.2g; recorded and plain apart %.2g\n", least,
      worst(found[0], found[1]));
  EXPECT_GT(least, 1e-4) << "a replay draws what was drawn when it was recorded";
  EXPECT_LE(worst(found[0], found[1]), 1e-5);  // order of additions in attention's backward
}

TEST(GpuStep, ARecordedRunGoesOnFromAStep) {
  Trainer whole(with_drops(), training(), kGpu, at::kFloat),
      first(with_drops(), training(), kGpu, at::kFloat),
      second(with_drops(), training(), kGpu, at::kFloat);
  std::vector<double> expected, found;
  for (int64_t s = 0; s < 12; ++s) expected.push_back(whole.step.run(samples(s * 8, 8)).loss());
  for (int64_t s = 0; s < 6; ++s) found.push_back(first.step.run(samples(s * 8, 8)).loss());
  first.step.settle();
  second.engine.units().master().copy_(first.engine.units().master());
  const auto from = first.optimizer.states(), to = second.optimizer.states();
  for (size_t i = 0; i < from.size(); ++i) to[i].arena.copy_(from[i].arena);
  second.optimizer.restored();
  second.engine.publish(second.engine.units().master());
  second.step.set_step(6);
  for (int64_t s = 6; s < 12; ++s) found.push_back(second.step.run(samples(s * 8, 8)).loss());
  std::printf("resumed run apart %.2g (allowed 1e-5)\n", worst(found, expected));
  EXPECT_LE(worst(found, expected), 1e-5);  // as above
}

/// Blocks that the allocator got from the driver so far.
int64_t segments_allocated() {
  return c10::cuda::CUDACachingAllocator::getDeviceStats(0).segment[0].allocated;
}

TEST(GpuStep, ASteadyStepNeitherAllocatesNorWaitsInsideTheLibrary) {
  for (const char* graph : {"auto", "off"}) {
    config::Train train = training();
    train.cuda_graph.value = graph;
    Trainer trainer(with_drops(), train, kGpu, at::kBFloat16);
    std::vector<data::Batch> batches;
    for (int64_t s = 0; s < 4; ++s) batches.push_back(on_device(samples(s * 8, 8), kGpu));
    for (int64_t s = 0; s < 8; ++s) trainer.step.run(batches[static_cast<size_t>(s % 4)]);
    const int64_t before = segments_allocated();
    // Any operation of ATen that waits for the device throws.
    c10::cuda::warning_state().set_sync_debug_mode(c10::cuda::SyncDebugMode::L_ERROR);
    for (int64_t s = 0; s < 8; ++s)
      EXPECT_NO_THROW(trainer.step.run(batches[static_cast<size_t>(s % 4)])) << graph;
    c10::cuda::warning_state().set_sync_debug_mode(c10::cuda::SyncDebugMode::L_DISABLED);
    trainer.step.settle();
    std::printf("%s: %lld blocks of memory in eight steady steps (allowed 0)\n", graph,
                static_cast<long long>(segments_allocated() - before));
    EXPECT_EQ(segments_allocated(), before);
  }
}

/// Milliseconds of the host and of both for a step of a small model, where launches are what takes time.
TEST(GpuStep, PrintsTheTimeOfRecordedAndPlainSteps) {
  config::Model options = testing::tiny_vit();
  options.image_size = {32, 32};
  options.embed_dim = 192;
  options.depth = 12;
  options.num_heads = 3;
  for (const char* graph : {"off", "auto"}) {
    config::Train train = training();
    train.cuda_graph.value = graph;
    Trainer trainer(options, train, kGpu, at::kBFloat16);
    const data::Batch batch = on_device(samples(0, 32, 5, 32), kGpu);
    for (int64_t s = 0; s < 20; ++s) trainer.step.run(batch);
    parallel::synchronize(kGpu);
    parallel::Event start(kGpu, true), stop(kGpu, true);
    start.record(parallel::current_stream(kGpu));
    double host = 0;
    for (int64_t s = 0; s < 100; ++s) host += trainer.step.run(batch).step_ms;
    stop.record(parallel::current_stream(kGpu));
    std::printf("cuda_graph %-4s: %.3f ms a step, host %.3f\n", graph, stop.ms_since(start) / 100,
                host / 100);
  }
}

/// Updates of the device and of the host from the same gradients: the same bits, rates and counts included.
TEST(GpuOptimizer, UpdatesAreThoseOfTheCpu) {
  struct Case {
    const char *kind, *state;
    at::ScalarType dtype;
  };
  for (const Case& one : {Case{"adamw", "fp32", at::kFloat}, Case{"adamw", "bf16", at::kBFloat16},
                          Case{"adamw", "fp8", at::kBFloat16}, Case{"sgd", "fp32", at::kFloat}}) {
    config::Train train = training();
    train.optimizer.kind.value = one.kind;
    train.optimizer.state.value = one.state;
    train.optimizer.layer_decay = 0.7;
    Trainer gpu(testing::tiny_vit(), train, kGpu, one.dtype),
        cpu(testing::tiny_vit(), train, at::kCPU, one.dtype);
    const at::NoGradGuard no_grad;
    for (uint32_t s = 0; s < 6; ++s) {
      at::Tensor& gradient = cpu.engine.units().gradient();
      for (int64_t i = 0; i < gradient.numel(); ++i)
        gradient.data_ptr<float>()[i] =
            core::normal({.seed = 3, .step = s}, 0, static_cast<uint32_t>(i));
      if (s == 3) gradient.data_ptr<float>()[9] = INFINITY;
      gpu.engine.units().gradient().copy_(gradient);
      for (Trainer* trainer : {&gpu, &cpu}) {
        trainer->optimizer.begin_step({1e-2 / (s + 1), s, 0});
        trainer->optimizer.update(trainer->optimizer.gradient_norm(0.0));
      }
    }
    EXPECT_TRUE(gpu.engine.units().master().cpu().equal(cpu.engine.units().master()))
        << one.kind << " " << one.state;
    EXPECT_TRUE(gpu.engine.units().weights().cpu().equal(cpu.engine.units().weights()));
    const auto a = gpu.optimizer.states(), b = cpu.optimizer.states();
    for (size_t i = 0; i < a.size(); ++i)
      EXPECT_TRUE(a[i].arena.cpu().equal(b[i].arena)) << one.kind << " " << one.state << " " << i;
  }
}

TEST(GpuStep, StopsAtTheLatestOneStepAfterANonFiniteOne) {
  Trainer trainer(testing::tiny_vit(), training(), kGpu, at::kFloat);
  trainer.step.run(samples(0, 8));
  data::Batch bad = samples(8, 8);
  bad.image.data_ptr<float>()[7] = std::numeric_limits<float>::infinity();
  const at::Tensor before = trainer.engine.units().master().clone();
  trainer.step.run(bad);
  EXPECT_TRUE(trainer.engine.units().master().equal(before));
  EXPECT_THROW(trainer.step.run(samples(16, 8)), core::NonFiniteError);
}

TEST(GpuDevice, CountsMemoryAndTime) {
  parallel::reset_peak_memory(kGpu);
  const int64_t before = parallel::peak_memory_bytes(kGpu);
  const at::Tensor block = at::empty({64 << 20}, at::TensorOptions().device(kGpu).dtype(at::kByte));
  EXPECT_GE(parallel::peak_memory_bytes(kGpu), before + (64 << 20));
  EXPECT_GT(parallel::total_memory_bytes(kGpu), int64_t{1} << 30);
  parallel::Event start(kGpu, true), stop(kGpu, true);
  start.record(parallel::current_stream(kGpu));
  stop.record(parallel::current_stream(kGpu));
  EXPECT_GE(stop.ms_since(start), 0.0);
}

TEST(GpuAdamw, RunsNearTheSpeedOfACopy) {
  const OptimizerBench result = bench_optimizer(100'000'000, kGpu, true);
  std::printf("%s\n", describe(result).c_str());
  EXPECT_LE(result.worst_ulp, 2);
  EXPECT_EQ(result.moments_differ, 0);
  EXPECT_GT(result.copy_ratio,
            0.7);  // measured on the bench's own copy; far below means a lost vector access
}

}  // namespace
}  // namespace vitrail::train
