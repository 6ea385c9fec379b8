#include "vitrail/train/bench_step.h"

#include <functional>
#include <optional>

#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>

#include "vitrail/core/error.h"
#include "vitrail/models/init.h"
#include "vitrail/nn/engine.h"
#include "vitrail/parallel/device.h"
#include "vitrail/parallel/engine.h"
#include "vitrail/train/assembly.h"
#include "vitrail/train/bench_ceiling.h"
#include "vitrail/train/bench_optimizer.h"
#include "vitrail/train/bench_timer.h"
#include "vitrail/train/handshake.h"
#include "vitrail/train/loop_parts.h"
#include "vitrail/train/step.h"
#include "vitrail/train/trace.h"
#include "vitrail/train/tuning.h"
#include <nlohmann/json.hpp>

namespace vitrail::train {
namespace {

constexpr double kGib = 1073741824.0;

/// Ranks that share samples draw the same ones: torch's generators start alike.
data::Batch random_batch(const config::Recipe& recipe, models::Task task, const comm::Mesh& mesh,
                         at::Device device) {
  const int64_t count = recipe.data.batch_size / mesh.data_size();
  const std::vector<int64_t>& sides = recipe.model.image_size;
  std::vector<int64_t> image{count, recipe.model.in_channels}, label{count};
  image.insert(image.end(), sides.begin(), sides.end());
  if (task == models::Task::segmentation) label.insert(label.end(), sides.begin(), sides.end());
  const auto whole = at::TensorOptions().device(device).dtype(at::kLong);
  data::Batch batch;
  batch.image = at::randn(image, whole.dtype(at::kFloat));
  batch.label = at::randint(std::max<int64_t>(recipe.model.num_classes, 1), label, whole);
  batch.sample_ids = at::arange(mesh.data_rank() * count, (mesh.data_rank() + 1) * count, whole);
  return batch;
}

void fill_rates(StepBench& result, const std::vector<double>& times, double flops_per_sample) {
  result.ms_median = quantile(times, 0.5);
  result.ms_p10 = quantile(times, 0.1);
  result.ms_p90 = quantile(times, 0.9);
  result.images_per_second = 1e3 * static_cast<double>(result.batch_size) / result.ms_median;
  result.tokens_per_second = result.images_per_second * static_cast<double>(result.tokens);
  result.model_tflops = result.images_per_second * flops_per_sample * 1e-12;
  result.peak_tflops = peak_bf16_tflops(result.device);
  if (result.peak_tflops)
    result.mfu = result.model_tflops / (*result.peak_tflops * static_cast<double>(result.ranks));
}

/// Share of `steps` steps in which this rank exchanges data and computes nothing.
double exposed_share(models::Model& model, at::Device device, comm::Communicator& world,
                     int64_t steps, double step_ms, const std::function<void()>& step) {
  const Trace trace(model, device, world);
  for (int64_t i = 0; i < steps; ++i) step();
  const double exposed = exposed_ms(trace.ranges()) / static_cast<double>(steps);
  return comm::max(world, exposed) / step_ms;
}

}  // namespace

std::optional<double> peak_bf16_tflops(const std::string& device_name) {
  for (const char* name : {"H100", "H200", "GH200"})
    if (device_name.find(name) != std::string::npos) return 989.0;
  return std::nullopt;
}

StepBench bench_step(const config::ResolvedRecipe& resolved, comm::Communicator& world,
                     const std::string& name, const StepBenchOptions& options) {
  const config::Recipe& recipe = resolved.recipe;
  VT_REQUIRE(ConfigError, !options.ceiling || world.size() == 1,
             "[bench] the ceiling is that of one rank but got {}; leave out --ceiling",
             world.size());
  const at::Device device = choose_device(recipe.run, options.launch);
  set_threads(recipe.run, options.launch);
  VT_REQUIRE(ConfigError, options.profile.empty() || device.is_cuda(),
             "[bench] --profile needs a GPU but the device is the CPU; see run.device");
  handshake(world, resolved, options.version, device);
  comm::Mesh mesh = make_mesh(world, recipe.parallel, options.launch);
  check_layout(recipe, mesh);
  const auto seed = static_cast<uint64_t>(recipe.run.seed);
  const std::shared_ptr<models::Model> model = models::make_model_deferred(recipe.model);
  models::configure(*model, recipe.train);
  const ModelFacts facts = facts_of(*model);
  std::optional<ShapeRecorder> recorder;
  if (options.ceiling)
    recorder.emplace(
        *model, [&] { return nn::block_engine(recipe.train, nn::engine_options(recipe.train)); });

  const at::ScalarType dtype = compute_dtype(recipe.train);
  parallel::Engine engine(*model, recipe, mesh, device, dtype,
                          models::initial_values(recipe.model, seed));
  engine.broadcast_weights();
  Optimizer optimizer(engine, recipe.train.optimizer, recipe.train.ema_decay);
  const Schedule schedule(recipe.train.schedule, recipe.train.optimizer.lr,
                          options.warmup + options.steps);
  Step step(*model, engine, optimizer, schedule, recipe.train, seed, may_record(recipe.parallel));

  StepBench result{
      .recipe = name,
      .preset = recipe.model.preset,
      .device = parallel::device_name(device),
      .precision = recipe.train.precision.value,
      .mesh = mesh.describe(),
      .layout = engine.describe(),
      .ranks = world.size(),
      .batch_size = recipe.data.batch_size,
      .tokens = facts.tokens};
  const data::Batch batch = random_batch(recipe, model->task(), mesh, device);
  const auto run = [&] { step.run(batch); };
  parallel::reset_peak_memory(device);
  Tuning tuning(*model, recipe.train, device, "");
  for (int64_t i = 0; i < options.warmup; ++i) {
    run();
    tuning.after_step(world.rank() == 0);
  }
  parallel::synchronize(device);
  world.barrier();
  std::vector<double> times = time_each(device, options.steps, run);
  // A step is over when its slowest rank is.
  world
      .all_reduce({times.data(), static_cast<int64_t>(times.size()), core::DType::f64},
                  comm::Reduce::max)
      .wait();
  fill_rates(result, times, facts.flops_per_sample);
  step.settle();
  if (!model->stacks().empty()) result.engine = model->stacks().front()->engine().name();
  result.peak_memory_gib =
      comm::max(world, static_cast<double>(parallel::peak_memory_bytes(device)) / kGib);
  if (world.size() > 1)
    result.exposed_share =
        exposed_share(*model, device, world, options.traced, result.ms_median, run);
  if (!options.profile.empty() && world.rank() == 0)
    result.kernels = profile_kernels(device, options.traced, run, options.profile);
  else if (!options.profile.empty())
    for (int64_t i = 0; i < options.traced; ++i) run();
  step.settle();
  if (options.ceiling && recorder) {
    const auto bytes = static_cast<double>(engine.units().count()) *
                       static_cast<double>(
                           adamw_bytes(dtype == at::kBFloat16, recipe.train.ema_decay.has_value()));
    result.kernel_ceiling_ms = kernel_ceiling_ms(recorder->shapes(), recipe.train.micro_batches,
                                                 device, dtype, bytes, options.ceiling_seconds);
    result.ceiling_ratio = *result.kernel_ceiling_ms / result.ms_median;
  }
  return result;
}

std::string describe(const StepBench& r) {
  std::string line = fmt::format(
      "step  {}  batch {}  {} tokens  {}  {}  {:.2f} ms (p10 {:.2f}, p90 {:.2f})  {:.1f} images/s  "
      "{:.1f} TFLOP/s",
      r.recipe, r.batch_size, r.tokens, r.precision, r.engine, r.ms_median, r.ms_p10, r.ms_p90,
      r.images_per_second, r.model_tflops);
  if (r.mfu) line += fmt::format("  MFU {:.1f} % of {:.0f}", 100.0 * *r.mfu, *r.peak_tflops);
  line += fmt::format("  peak {:.2f} GiB", r.peak_memory_gib);
  if (r.exposed_share)
    line += fmt::format("  exposed communication {:.1f} %", 100.0 * *r.exposed_share);
  if (r.ceiling_ratio)
    line +=
        fmt::format("  ceiling {:.2f} ms, ratio {:.3f}", *r.kernel_ceiling_ms, *r.ceiling_ratio);
  line += "  " + r.device;
  if (r.ranks > 1) line += fmt::format("\n      {} ranks: {}; {}", r.ranks, r.mesh, r.layout);
  if (r.kernels) line += '\n' + describe(*r.kernels);
  return line;
}

std::string to_json(const StepBench& r) {
  const auto or_null = [](const std::optional<double>& value) {
    return value ? nlohmann::ordered_json(*value) : nlohmann::ordered_json(nullptr);
  };
  return nlohmann::ordered_json{
      {"recipe", r.recipe},
      {"preset", r.preset},
      {"device", r.device},
      {"batch_size", r.batch_size},
      {"tokens", r.tokens},
      {"precision", r.precision},
      {"engine", r.engine},
      {"ms", {{"median", r.ms_median}, {"p10", r.ms_p10}, {"p90", r.ms_p90}}},
      {"images_per_second", r.images_per_second},
      {"tokens_per_second", r.tokens_per_second},
      {"model_tflops", r.model_tflops},
      {"mfu", or_null(r.mfu)},
      {"peak_tflops", or_null(r.peak_tflops)},
      {"peak_memory_gib", r.peak_memory_gib},
      {"ranks", r.ranks},
      {"mesh", r.mesh},
      {"layout", r.layout},
      {"exposed_share", or_null(r.exposed_share)},
      {"kernel_ceiling_ms", or_null(r.kernel_ceiling_ms)},
      {"ceiling_ratio", or_null(r.ceiling_ratio)}}
      .dump(2);
}

}  // namespace vitrail::train
