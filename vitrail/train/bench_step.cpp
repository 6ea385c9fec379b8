#include "vitrail/train/bench_step.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>

#include "vitrail/core/error.h"
#include "vitrail/nn/engine.h"
#include "vitrail/ops/attention.h"
#include "vitrail/parallel/data_parallel.h"
#include "vitrail/parallel/device.h"
#include "vitrail/train/bench_ceiling.h"
#include "vitrail/train/bench_optimizer.h"
#include "vitrail/train/bench_timer.h"
#include "vitrail/train/step.h"
#include <nlohmann/json.hpp>

namespace vitrail::train {
namespace {

at::Device device_of(const config::Recipe& recipe) {
  const bool gpu = parallel::gpu_count() > 0;
  VT_REQUIRE(ConfigError, gpu || !(recipe.run.device == "cuda"),
             "[bench] run.device is cuda but no GPU is visible");
  return gpu && !(recipe.run.device == "cpu") ? at::Device(at::kCUDA, 0) : at::Device(at::kCPU);
}

data::Batch random_batch(const config::Recipe& recipe, at::Device device) {
  std::vector<int64_t> shape{recipe.data.batch_size, recipe.model.in_channels};
  shape.insert(shape.end(), recipe.model.image_size.begin(), recipe.model.image_size.end());
  const auto whole = at::TensorOptions().device(device).dtype(at::kLong);
  data::Batch batch;
  batch.image = at::randn(shape, whole.dtype(at::kFloat));
  batch.label =
      at::randint(std::max<int64_t>(recipe.model.num_classes, 1), {recipe.data.batch_size}, whole);
  batch.sample_ids = at::arange(recipe.data.batch_size, whole);
  return batch;
}

void use_plain_attention(models::Model& model) {
  for (nn::Stack* stack : model.stacks())
    for (int i = 0; i < stack->depth(); ++i)
      stack->block(i).attention().set_attend(
          [](const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
             const at::Tensor& key_mask_BL) { return ops::plain_attention(q, k, v, key_mask_BL); });
}

void fill_rates(StepBench& result, const std::vector<double>& times, double flops_per_sample) {
  result.ms_median = quantile(times, 0.5);
  result.ms_p10 = quantile(times, 0.1);
  result.ms_p90 = quantile(times, 0.9);
  result.images_per_second = 1e3 * static_cast<double>(result.batch_size) / result.ms_median;
  result.tokens_per_second = result.images_per_second * static_cast<double>(result.tokens);
  result.model_tflops = result.images_per_second * flops_per_sample * 1e-12;
  result.peak_tflops = peak_bf16_tflops(result.device);
  if (result.peak_tflops) result.mfu = result.model_tflops / *result.peak_tflops;
}

}  // namespace

std::optional<double> peak_bf16_tflops(const std::string& device_name) {
  for (const char* name : {"H100", "H200", "GH200"})
    if (device_name.find(name) != std::string::npos) return 989.0;
  return std::nullopt;
}

StepBench bench_step(const config::Recipe& recipe, const std::string& name,
                     const StepBenchOptions& options) {
  const at::Device device = device_of(recipe);
  parallel::set_device(device);
  const auto seed = static_cast<uint64_t>(recipe.run.seed);
  const std::shared_ptr<models::Model> model = models::make_model(recipe.model, seed);
  const ShapeRecorder recorder(*model, [&] {
    return nn::autograd_engine(
        {recipe.train.recompute == "block" ? nn::Recompute::block : nn::Recompute::none});
  });
  if (recipe.train.attention == "plain") use_plain_attention(*model);

  const bool bf16 = recipe.train.precision == "bf16";
  const at::ScalarType dtype = bf16 ? at::kBFloat16 : at::kFloat;
  const std::unique_ptr<comm::Communicator> alone = comm::self_communicator();
  parallel::UnitSet units(*model, device, dtype);
  parallel::GradientReducer reducer(*model, units, *alone, recipe.parallel.bucket_mib);
  Optimizer optimizer(units, recipe.train.optimizer, recipe.train.ema_decay);
  const Schedule schedule(recipe.train.schedule, recipe.train.optimizer.lr,
                          options.warmup + options.steps);
  Step step(*model, units, reducer, optimizer, schedule, recipe.train, seed, device, *alone);

  StepBench result{
      .recipe = name,
      .preset = recipe.model.preset,
      .device = parallel::device_name(device),
      .precision = recipe.train.precision.value,
      .engine = model->stacks().empty() ? "" : model->stacks().front()->engine().name(),
      .batch_size = recipe.data.batch_size,
      .tokens = model->tokens_per_sample()};
  const data::Batch batch = random_batch(recipe, device);
  parallel::reset_peak_memory(device);
  for (int64_t i = 0; i < options.warmup; ++i) step.run(batch);
  parallel::synchronize(device);
  fill_rates(result, time_each(device, options.steps, [&] { step.run(batch); }),
             model->train_flops_per_sample());
  step.settle();
  result.peak_memory_gib =
      static_cast<double>(parallel::peak_memory_bytes(device)) / (1024.0 * 1024.0 * 1024.0);
  if (options.ceiling) {
    const auto bytes = static_cast<double>(units.count()) *
                       static_cast<double>(adamw_bytes(bf16, recipe.train.ema_decay.has_value()));
    result.kernel_ceiling_ms = kernel_ceiling_ms(recorder.shapes(), recipe.train.micro_batches,
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
  if (r.ceiling_ratio)
    line +=
        fmt::format("  ceiling {:.2f} ms, ratio {:.3f}", *r.kernel_ceiling_ms, *r.ceiling_ratio);
  return line + "  " + r.device;
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
      {"kernel_ceiling_ms", or_null(r.kernel_ceiling_ms)},
      {"ceiling_ratio", or_null(r.ceiling_ratio)}}
      .dump(2);
}

}  // namespace vitrail::train
