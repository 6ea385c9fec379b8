#include "vitrail/train/assembly.h"

#include <algorithm>
#include <filesystem>
#include <thread>

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <c10/core/GradMode.h>
#include <fmt/ranges.h>
#include <sched.h>

#include "vitrail/config/augment_steps.h"
#include "vitrail/core/error.h"
#include "vitrail/models/weights.h"
#include "vitrail/parallel/device.h"
#include "vitrail/train/checkpoint.h"

namespace vitrail::train {

namespace {

namespace fs = std::filesystem;

/// Cores this process may run on; a launcher that binds ranks to cores leaves it fewer.
int allowed_cores() {
  cpu_set_t cores;
  if (::sched_getaffinity(0, sizeof cores, &cores) == 0) return std::max(1, CPU_COUNT(&cores));
  return std::max(1u, std::thread::hardware_concurrency());
}

bool mixes_pairs(const std::vector<config::Source>& sources) {
  return std::any_of(sources.begin(), sources.end(), [](const config::Source& source) {
    return config::mixes_pairs(source.augment);
  });
}

/// Folder of a run: its newest valid checkpoint, else the weights written at the end.
std::string source_in_run(const std::string& folder) {
  if (!list_checkpoints(folder).empty()) return resolve_checkpoint(folder);
  for (const char* name : {"weights-ema.safetensors", "weights.safetensors"})
    if (fs::exists(fs::path(folder) / name)) return (fs::path(folder) / name).string();
  core::fail<core::CheckpointError>(
      "[weights] {} holds no checkpoint and no weights.safetensors; train first or give --weights",
      folder);
}

bool holds_average(const CheckpointReader& checkpoint) {
  const std::vector<std::string> names = checkpoint.names();
  return std::any_of(names.begin(), names.end(),
                     [](const std::string& name) { return name.rfind("ema/", 0) == 0; });
}

/// One line when all went in as it was, else a line for every tensor that did not.
std::string text_of(const models::LoadReport& report) {
  const bool plain = report.complete() && report.changed.empty() && report.unused.empty();
  return plain ? report.describe() : fmt::format("{}", fmt::join(report.lines(), "\n"));
}

std::string load_checkpoint(models::Model& model, const std::string& path) {
  const bool average = holds_average(CheckpointReader(path));
  const std::string source = path + (average ? ", averaged weights" : "");
  return models::load_tensors(model, read_parameters(path, average), true, source).describe();
}

}  // namespace

at::Device choose_device(const config::Run& options, const comm::Launch& launch) {
  const int gpus = options.device == "cpu" ? 0 : parallel::gpu_count();
  if (options.device == "cpu" || (options.device == "auto" && gpus == 0)) return at::kCPU;
  VT_REQUIRE(ConfigError, gpus > 0,
             "[device] run.device=cuda needs a GPU that this build can use but there is none; set "
             "run.device=cpu");
  VT_REQUIRE(ConfigError, launch.local_rank < gpus,
             "[device] every rank needs a GPU of its own but {} ranks share the {} GPUs of {}; "
             "start fewer ranks",
             launch.local_size, gpus, launch.host);
  const at::Device device(at::kCUDA, static_cast<at::DeviceIndex>(launch.local_rank));
  parallel::set_device(device);
  // Convolutions of fp32 tensors would otherwise run in TF32, with errors of 1e-3.
  at::globalContext().setAllowTF32CuDNN(false);
  return device;
}

void set_determinism(const config::Run& options) {
  at::globalContext().setDeterministicAlgorithms(options.deterministic, /*warn_only=*/false);
  at::globalContext().setDeterministicCuDNN(options.deterministic);
}

int set_threads(const config::Run& options, const comm::Launch& launch) {
  int threads = static_cast<int>(options.threads);
  if (threads <= 0) {
    const int all = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
    const int allowed = allowed_cores();
    threads = allowed < all ? allowed : std::max(1, all / std::max(1, launch.local_size));
  }
  at::set_num_threads(threads);
  return threads;
}

comm::MeshShape mesh_shape(const config::Parallel& options, int ranks, int local) {
  comm::MeshShape shape{options.replicate, options.shard.value_or(1), options.pipeline,
                        options.sequence, options.tensor};
  const bool divides = !(options.strategy == "none" || options.strategy == "ddp");
  if (!divides || options.shard) return shape;
  const int64_t inner = options.pipeline * options.sequence * options.tensor;
  const int64_t on_host = local / std::max<int64_t>(1, inner);
  if (options.replicate != -1) {
    shape.shard = -1;
  } else if (options.strategy == "hybrid" && local < ranks && on_host > 0) {
    shape.shard = on_host;
  } else {
    shape.replicate = 1;
    shape.shard = -1;
  }
  return shape;
}

comm::Mesh make_mesh(comm::Communicator& world, const config::Parallel& options,
                     const comm::Launch& launch) {
  // Ranks that are threads know nothing of a launcher and share a host.
  const int local = launch.size == world.size() ? launch.local_size : world.size();
  return {world, mesh_shape(options, world.size(), local)};
}

bool is_whole(const config::Parallel& options) {
  const std::string& strategy = options.strategy.value;
  return (strategy == "none" || strategy == "ddp" || strategy == "zero1") &&
         options.pipeline == 1 && options.sequence == 1 && options.tensor == 1;
}

bool may_record(const config::Parallel& options) {
  return options.offload == "none" && is_whole(options);
}

at::ScalarType compute_dtype(const config::Train& options) {
  if (options.precision == "fp16") return at::kHalf;
  // fp8 is a matter of the blocks' products alone.
  const bool is_bf16 = options.precision == "bf16" || options.precision == "fp8";
  return is_bf16 ? at::kBFloat16 : at::kFloat;
}

void check_layout(const config::Recipe& recipe, const comm::Mesh& mesh) {
  const int64_t data_ranks = mesh.data_size(), batch = recipe.data.batch_size;
  VT_REQUIRE(ConfigError, data_ranks == 1 || !(recipe.parallel.strategy == "none"),
             "[layout] parallel.strategy=none is for one data rank but got {} ({}); use "
             "parallel.strategy=ddp",
             data_ranks, mesh.describe());
  VT_REQUIRE(ConfigError, batch % data_ranks == 0,
             "[layout] data.batch_size must be a multiple of the data ranks (replicate x shard) "
             "but got {} and {} ({})",
             batch, data_ranks, mesh.describe());
  const int64_t local = batch / data_ranks;
  VT_REQUIRE(ConfigError, local % recipe.train.micro_batches == 0,
             "[layout] data.batch_size / data ranks must be a multiple of train.micro_batches but "
             "got {} / {} = {} and {}",
             batch, data_ranks, local, recipe.train.micro_batches);
  VT_REQUIRE(ConfigError, local % 2 == 0 || !mixes_pairs(recipe.data.sources),
             "[layout] mixup and cutmix mix pairs of a rank's samples, so data.batch_size / data "
             "ranks must be even but got {} / {} = {}",
             batch, data_ranks, local);
}

data::Batch on_device(data::Batch batch, at::Device device) {
  for (at::Tensor* tensor : batch.rows()) *tensor = tensor->to(device, /*non_blocking=*/true);
  return batch;
}

std::string run_folder(const config::Run& options) {
  return (fs::path(options.output) / options.name).string();
}

std::string load_weights(models::Model& model, const config::Recipe& recipe,
                         const std::string& path) {
  std::error_code error;
  std::string source = path.empty() ? run_folder(recipe.run) : path;
  VT_REQUIRE(CheckpointError, fs::exists(source, error),
             "[weights] {}: there is no such file or folder; train first or give --weights",
             source);
  if (fs::is_directory(source, error) && !fs::exists(fs::path(source) / "manifest.json"))
    source = source_in_run(source);
  if (fs::is_directory(source, error)) return load_checkpoint(model, source);
  return text_of(models::load_weights(model, source, models::load_options(recipe.model)));
}

std::string load_start_weights(models::Model& model, const config::Model& options) {
  const std::string& path = options.weights.path;
  std::error_code error;
  VT_REQUIRE(CheckpointError, fs::exists(path, error),
             "[weights] {}: there is no such file; check model.weights.path", path);
  if (fs::is_directory(path, error)) return load_checkpoint(model, resolve_checkpoint(path));
  return text_of(models::load_weights(model, path, models::load_options(options)));
}

}  // namespace vitrail::train
