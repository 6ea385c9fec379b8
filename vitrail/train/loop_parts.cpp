#include "vitrail/train/loop_parts.h"

#include <algorithm>
#include <atomic>
#include <csignal>
#include <memory>
#include <mutex>

#include <fmt/format.h>

#include "vitrail/comm/transport.h"
#include "vitrail/core/atomic_file.h"
#include "vitrail/core/clock.h"
#include "vitrail/core/text.h"
#include "vitrail/io/safetensors.h"
#include "vitrail/ops/dtype.h"
#include "vitrail/parallel/collect.h"
#include "vitrail/parallel/device.h"
#include "vitrail/train/bench_step.h"

namespace vitrail::train {

namespace {

std::atomic<int> received_signal{0};

/// What the process did on these signals before; ranks that are threads of one process share it.
struct Handlers {
  std::mutex mutex;
  int users = 0;
  struct sigaction term, user;
} handlers;

/// Launchers send SIGTERM too when another rank has died: the host's collectives then say whom they wait for.
void remember_signal(int signal) {
  received_signal.store(signal);
  if (signal == SIGTERM) comm::note_termination(/*ends_process=*/false);
}

}  // namespace

Rows Division::rows() const {
  Rows rows{
      {"world", world},
      {"mesh", mesh},
      {"device", fmt::format("{}, {} thread{} a rank", device, threads, threads == 1 ? "" : "s")},
      {"model", model},
      {"parameters", fmt::format("{}; {} tokens and {:.3g} GFLOP a sample, forward and backward",
                                 core::format_count(parameters), tokens, gflops_per_sample)}};
  if (parameters_here != parameters)
    rows.emplace_back("of this rank", core::format_count(parameters_here) + " parameters");
  if (!weights.empty()) rows.emplace_back("weights from", weights);
  const int64_t local = global_batch / ranks;
  rows.emplace_back(
      "batch", fmt::format("{} = ranks {} x micro-batches {} x samples {}", global_batch, ranks,
                           micro_batches, local / micro_batches));
  rows.emplace_back("precision", precision);
  rows.emplace_back("strategy", layout.empty() ? strategy : layout);
  if (!pipeline.empty()) rows.emplace_back("pipeline", pipeline);
  rows.emplace_back("data", fmt::format("{} training and {} held-out samples",
                                        core::format_count(samples), core::format_count(held_out)));
  if (ema_decay)
    rows.emplace_back("evaluation",
                      fmt::format("moving average of the weights, decay {}", *ema_decay));
  rows.emplace_back("steps",
                    fmt::format("{} = {:.4g} epochs of {}", core::format_count(total_steps),
                                static_cast<double>(total_steps) /
                                    static_cast<double>(std::max<int64_t>(1, steps_per_epoch)),
                                core::format_count(steps_per_epoch)));
  return rows;
}

std::string describe_model(const config::Model& options) {
  std::string size;
  for (int64_t side : options.image_size) size += (size.empty() ? "" : "x") + std::to_string(side);
  std::string text =
      fmt::format("{} {}, patch {}, width {}, depth {}, {} heads", options.kind.value, size,
                  options.patch_size, options.embed_dim, options.depth, options.num_heads);
  if (!options.variables.empty()) text += fmt::format(", {} variables", options.variables.size());
  const std::string& kind = options.kind.value;
  if (kind == "mae")
    return text + fmt::format(", {:.0f} % hidden, {} decoder", 100 * options.mask_ratio,
                              options.decoder.value);
  if (kind == "rat")
    text += fmt::format(", {} scales, {} head", options.rat.scales.size(), options.rat.head.value);
  if (kind == "diffusion")
    text +=
        fmt::format(", {} noise levels, {} decoder", options.num_timesteps, options.decoder.value);
  if (kind == "unetr")
    text += fmt::format(", {} decoder {} skips", options.decoder.value,
                        options.skips ? "with" : "without");
  return options.num_classes > 0 ? text + fmt::format(", {} classes", options.num_classes) : text;
}

// GPipe and 1F1B wait for stages - 1 of the micro-batches + stages - 1 turns; interleaving makes turns shorter.
std::string describe_pipeline(const config::Parallel& options, int64_t micro_batches) {
  const double waits = static_cast<double>(options.pipeline - 1);
  const double turns = static_cast<double>(micro_batches * options.pipeline_parts);
  return fmt::format("{} stages, {}, {} micro-batches, {:.0f} % of the time idle", options.pipeline,
                     options.pipeline_schedule.value, micro_batches,
                     100.0 * waits / (turns + waits));
}

Rows environment_rows(const std::string& libraries, at::Device device) {
  Rows rows{{"device", parallel::device_name(device)},
            {"processor", parallel::device_name(at::kCPU)},
            {"device memory",
             fmt::format("{:.1f} GiB", parallel::total_memory_bytes(device) / 1073741824.0)}};
  size_t begin = 0;
  while (begin < libraries.size()) {
    const size_t end = std::min(libraries.find('\n', begin), libraries.size());
    const std::string line = libraries.substr(begin, end - begin);
    begin = end + 1;
    const size_t gap = line.find(' ');
    if (gap == std::string::npos) continue;
    const size_t value = line.find_first_not_of(' ', gap);
    if (value != std::string::npos) rows.emplace_back(line.substr(0, gap), line.substr(value));
  }
  return rows;
}

ModelFacts facts_of(const models::Model& model) {
  ModelFacts facts{0, model.tokens_per_sample(), model.train_flops_per_sample()};
  for (const nn::NamedTensor& parameter : model.named_parameters())
    facts.parameters += parameter.tensor.numel();
  return facts;
}

StepMeter::StepMeter(at::Device device, int64_t ranks, int64_t steps_per_epoch,
                     int64_t global_batch, const ModelFacts& facts)
    : device_(device),
      steps_per_epoch_(steps_per_epoch),
      global_batch_(global_batch),
      tokens_(facts.tokens),
      flops_(facts.flops_per_sample) {
  const std::optional<double> peak =
      device.is_cuda() ? peak_bf16_tflops(parallel::device_name(device)) : std::nullopt;
  if (peak) peak_flops_ = *peak * 1e12 * static_cast<double>(ranks);
}

void StepMeter::add(const StepReport& report) {
  ++steps_;
  samples_ += report.samples;
  step_ms_ += report.step_ms;
  wait_ms_ += report.data_wait_ms;
}

StepRecord StepMeter::record(const StepReport& report) {
  StepRecord record;
  // Steps return when their work is queued; the wait for the last one's loss is time of these steps.
  const core::Stopwatch watch;
  record.loss = report.loss();
  record.grad_norm = report.grad_norm();
  record.loss_scale = report.loss_scale();
  step_ms_ += watch.ms();
  const double steps = static_cast<double>(std::max<int64_t>(1, steps_));
  const double seconds = std::max(step_ms_ / 1000, 1e-9);
  record.step = report.step + 1;
  record.epoch = static_cast<double>(record.step) / static_cast<double>(steps_per_epoch_);
  record.samples = record.step * global_batch_;
  record.lr = report.lr;
  record.step_ms = step_ms_ / steps;
  record.data_wait_ms = wait_ms_ / steps;
  record.images_per_second = static_cast<double>(samples_) / seconds;
  record.tokens_per_second = record.images_per_second * static_cast<double>(tokens_);
  record.model_tflops = record.images_per_second * flops_ / 1e12;
  if (peak_flops_) record.mfu = record.images_per_second * flops_ / *peak_flops_;
  record.peak_memory_gib = static_cast<double>(parallel::peak_memory_bytes(device_)) / 1073741824.0;
  steps_ = samples_ = 0;
  step_ms_ = wait_ms_ = 0;
  return record;
}

StopSignal::StopSignal() {
  const std::lock_guard lock(handlers.mutex);
  if (handlers.users++ > 0) return;
  received_signal.store(0);
  struct sigaction action {};
  action.sa_handler = remember_signal;
  // Reads and waits go on after the handler: the step is to be finished.
  action.sa_flags = SA_RESTART;
  ::sigaction(SIGTERM, &action, &handlers.term);
  ::sigaction(SIGUSR1, &action, &handlers.user);
}

StopSignal::~StopSignal() {
  const std::lock_guard lock(handlers.mutex);
  if (--handlers.users > 0) return;
  ::sigaction(SIGTERM, &handlers.term, nullptr);
  ::sigaction(SIGUSR1, &handlers.user, nullptr);
}

int StopSignal::received() const { return received_signal.load(); }

int agreed_signal(const StopSignal& stop, comm::Communicator& world) {
  return static_cast<int>(comm::max(world, stop.received()));
}

std::string signal_name(int signal) {
  return signal == SIGTERM   ? "SIGTERM"
         : signal == SIGUSR1 ? "SIGUSR1"
                             : fmt::format("signal {}", signal);
}

namespace {

io::TensorToWrite entry(const std::string& name, at::ScalarType type, std::vector<int64_t> shape) {
  return {name, ops::dtype_of(type), std::move(shape), nullptr};
}

/// Writes tensors as they come, so that no more than one of them is in host memory at once.
class WeightsFile {
 public:
  WeightsFile(std::string path, std::vector<nn::NamedTensor> fixed, at::ScalarType type)
      : path_(std::move(path)), fixed_(std::move(fixed)), type_(type) {}

  void begin(const std::vector<parallel::WholeParameter>& parameters) {
    std::vector<io::TensorToWrite> entries;
    for (const parallel::WholeParameter& parameter : parameters)
      entries.push_back(entry(parameter.name, type_, parameter.shape));
    for (const nn::NamedTensor& tensor : fixed_)
      entries.push_back(
          entry(tensor.name, tensor.tensor.scalar_type(), tensor.tensor.sizes().vec()));
    writer_ = std::make_unique<io::SafetensorsWriter>(
        path_, io::SafetensorsLayout::plan(entries, {{"format", "pt"}}, path_));
  }
  void add(const std::string& name, const at::Tensor& values) {
    const at::Tensor host = values.to(at::kCPU).contiguous();
    writer_->append(name, host.const_data_ptr(), static_cast<int64_t>(host.nbytes()));
  }
  void finish() {
    for (const nn::NamedTensor& tensor : fixed_) add(tensor.name, tensor.tensor.detach());
    writer_->finish();
  }

 private:
  std::string path_;
  std::vector<nn::NamedTensor> fixed_;
  at::ScalarType type_;
  std::unique_ptr<io::SafetensorsWriter> writer_;
};

}  // namespace

void write_weights(const std::string& path, const models::Model& model, parallel::Engine& engine,
                   const at::Tensor& arena) {
  comm::Mesh& mesh = engine.groups().mesh();
  const auto write = [&](const std::string& temporary) {
    WeightsFile file(temporary, model.fixed_tensors(), arena.scalar_type());
    const bool writes = mesh.world().rank() == 0;
    parallel::CollectVisitor visitor;
    visitor.begin = [&](const auto& parameters) { file.begin(parameters); };
    visitor.tensor = [&](const std::string& name, const at::Tensor& whole) {
      file.add(name, whole);
    };
    parallel::collect(engine.units().layout(), arena, mesh, visitor);
    if (writes) file.finish();
    return 0;
  };
  if (mesh.world().rank() == 0)
    core::replace_file(path, write);
  else
    write("");
}

}  // namespace vitrail::train
