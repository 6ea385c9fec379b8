#include "vitrail/train/loop.h"

#include <cmath>
#include <filesystem>
#include <utility>

#include <unistd.h>

#include "vitrail/core/atomic_file.h"
#include "vitrail/core/clock.h"
#include "vitrail/core/error.h"
#include "vitrail/core/log.h"
#include "vitrail/data/memory_watch.h"
#include "vitrail/data/reader.h"
#include "vitrail/models/encoder.h"
#include "vitrail/models/init.h"
#include "vitrail/parallel/collect.h"
#include "vitrail/parallel/device.h"
#include "vitrail/parallel/engine.h"
#include "vitrail/train/assembly.h"
#include "vitrail/train/checkpoint.h"
#include "vitrail/train/handshake.h"
#include "vitrail/train/loop_parts.h"
#include "vitrail/train/optimizer.h"
#include "vitrail/train/report.h"
#include "vitrail/train/report_samples.h"
#include "vitrail/train/run_folder.h"
#include "vitrail/train/sample.h"
#include "vitrail/train/schedule.h"
#include "vitrail/train/step.h"
#include "vitrail/train/trace.h"
#include "vitrail/train/tuning.h"

namespace vitrail::train {

namespace {

constexpr int64_t kDrawnSamples = 40;
constexpr int64_t kTracedFrom = 9, kTracedSteps = 3;  // by then buffers and clocks are warm

/// Everything a run is made of, in the order in which it is built (and destroyed in the opposite
/// one).
class Run {
 public:
  Run(const config::ResolvedRecipe& resolved, comm::Communicator& world,
      const TrainOptions& options);
  RunResult operator()();

 private:
  void start();
  void train();
  void trace(int64_t done);
  void finish();
  void log_step(const StepReport& report);
  bool evaluates_at(int64_t step) const;
  bool saves_at(int64_t step) const;
  std::vector<SplitResult> evaluate(bool keep_examples);
  void save();
  void export_weights();
  [[noreturn]] void preempt(int signal);
  Division division();
  PictureTable drawn_samples();
  ReportData report_data(const std::vector<SplitResult>& results);

  const config::ResolvedRecipe& resolved_;
  const config::Recipe& recipe_;
  const TrainOptions& options_;

  // --- device and layout
  comm::Communicator& world_;
  at::Device device_;
  int threads_;
  comm::Mesh mesh_;
  comm::Communicator& data_group_;  // host memory; ranks that see different samples
  bool main_rank_;
  RunLog log_;

  // --- where to begin
  RunFolder folder_;
  Newest resumed_;
  std::unique_ptr<CheckpointReader> checkpoint_;

  // --- data
  BatchShare share_;
  data::Loader loader_;
  Evaluator evaluator_;
  int64_t steps_per_epoch_, total_steps_, first_step_;

  // --- model, units, optimizer
  std::string weights_read_;
  ModelFacts facts_;
  std::shared_ptr<models::Model> model_;
  parallel::Engine engine_;
  Optimizer optimizer_;
  Step step_;
  Tuning tuning_;

  // --- while it runs
  std::unique_ptr<Trace> trace_;
  std::unique_ptr<CheckpointWriter> writer_;
  int64_t saved_step_ = -1;
  SinkList sinks_;
  StepMeter meter_;
  double wall_before_ = 0;
  core::Stopwatch wall_;
  RunResult result_;
  bool warned_of_memory_ = false;
};

constexpr double kGib = 1073741824.0;

std::unique_ptr<CheckpointReader> open_checkpoint(const std::string& path) {
  return path.empty() ? nullptr : std::make_unique<CheckpointReader>(path);
}

/// The layout is checked as soon as there is a mesh, before files are looked at.
comm::Communicator& checked_group(const config::Recipe& recipe, comm::Mesh& mesh) {
  check_layout(recipe, mesh);
  return mesh.along({comm::Axis::replicate, comm::Axis::shard});
}

data::LoaderOptions training_loader(const config::Recipe& recipe, const comm::Mesh& mesh,
                                    at::Device device, const BatchShare& share) {
  data::LoaderOptions options =
      data::loader_options(recipe, mesh.data_rank(), mesh.data_size(), device.is_cuda());
  options.reads = share.reads();
  return options;
}

/// Fresh weights, or those the recipe starts from; a resumed run gets its own later.
std::shared_ptr<models::Model> build_model(const config::Recipe& recipe, bool resumed,
                                           std::string& weights_read, ModelFacts& facts) {
  const bool starts_whole = !resumed && !recipe.model.weights.path.empty();
  auto model = starts_whole
                   ? models::make_model(recipe.model, static_cast<uint64_t>(recipe.run.seed))
                   : models::make_model_deferred(recipe.model);
  models::configure(*model, recipe.train);
  facts = facts_of(*model);
  if (starts_whole) weights_read = load_start_weights(*model, recipe.model);
  return model;
}

/// For models that come without values.
parallel::InitialValues first_values(const config::Recipe& recipe,
                                     const std::string& weights_read) {
  if (!weights_read.empty()) return {};
  return models::initial_values(recipe.model, static_cast<uint64_t>(recipe.run.seed));
}

Run::Run(const config::ResolvedRecipe& resolved, comm::Communicator& world,
         const TrainOptions& options)
    : resolved_(resolved),
      recipe_(resolved.recipe),
      options_(options),
      world_(world),
      device_(choose_device(recipe_.run, options.launch)),
      threads_(set_threads(recipe_.run, options.launch)),
      mesh_(make_mesh(world, recipe_.parallel, options.launch)),
      data_group_(checked_group(recipe_, mesh_)),
      main_rank_(world.rank() == 0),
      log_(!main_rank_, options.print),
      folder_(recipe_.run),
      resumed_(resolve_resume(options.resume, folder_.path(), world)),
      checkpoint_(open_checkpoint(resumed_.path)),
      share_(mesh_, device_, recipe_.data.share == "load_once"),
      loader_(recipe_.data.sources, recipe_.model, training_loader(recipe_, mesh_, device_, share_),
              checkpoint_ ? checkpoint_->info().loader : data::LoaderState{}),
      evaluator_(recipe_.eval.sources, recipe_, mesh_.data_rank(), mesh_.data_size(),
                 device_.is_cuda(), &share_),
      steps_per_epoch_(loader_.batches_per_epoch()),
      total_steps_(recipe_.train.steps ? *recipe_.train.steps
                                       : recipe_.train.epochs.value_or(1) * steps_per_epoch_),
      first_step_(checkpoint_ ? checkpoint_->info().step : 0),
      model_(build_model(recipe_, checkpoint_ != nullptr, weights_read_, facts_)),
      engine_(*model_, recipe_, mesh_, device_, compute_dtype(recipe_.train),
              first_values(recipe_, weights_read_)),
      optimizer_(engine_, recipe_.train.optimizer, recipe_.train.ema_decay),
      step_(*model_, engine_, optimizer_,
            Schedule(recipe_.train.schedule, recipe_.train.optimizer.lr, total_steps_),
            recipe_.train, static_cast<uint64_t>(recipe_.run.seed),
            may_record(recipe_.parallel) && options.trace.empty()),
      tuning_(*model_, recipe_.train, device_, folder_.path() + "/tuning.txt"),
      meter_(device_, mesh_.world().size(), steps_per_epoch_, recipe_.data.batch_size, facts_) {}

/// What is known before the first step, by name.
Division Run::division() {
  Division division;
  division.world = options_.launch.describe();
  division.mesh = mesh_.describe();
  division.device = fmt::format("{} ({})", parallel::device_name(device_), device_.str());
  division.threads = threads_;
  division.strategy = recipe_.parallel.strategy.value;
  division.layout = engine_.describe();
  if (mesh_.size(comm::Axis::pipeline) > 1)
    division.pipeline = describe_pipeline(recipe_.parallel, recipe_.train.micro_batches);
  division.precision = recipe_.train.precision.value;
  division.global_batch = recipe_.data.batch_size;
  division.ranks = mesh_.data_size();
  division.micro_batches = recipe_.train.micro_batches;
  division.samples = loader_.samples();
  division.held_out = evaluator_.samples();
  division.steps_per_epoch = steps_per_epoch_;
  division.total_steps = total_steps_;
  division.parameters = facts_.parameters;
  division.parameters_here = engine_.units().parameter_count();
  division.gflops_per_sample = facts_.flops_per_sample / 1e9;
  division.tokens = facts_.tokens;
  division.model = describe_model(recipe_.model);
  division.weights = weights_read_;
  division.ema_decay = recipe_.train.ema_decay;
  return division;
}

/// Lock, folder, log, sinks, checkpoint state: the first thing that is written is written here.
void Run::start() {
  if (main_rank_) core::make_directories(folder_.path());
  // The writer takes the lock: a second run of this name is refused before it touches the files of
  // the first.
  CheckpointOptions saving;
  saving.folder = folder_.checkpoints();
  saving.keep = recipe_.checkpoint.keep;
  saving.async = recipe_.checkpoint.async;
  saving.start_step = first_step_;
  writer_ = std::make_unique<CheckpointWriter>(world_, saving);
  if (main_rank_) {
    folder_.open(resolved_, first_step_);
    log_.open(folder_.log());
  }
  world_.barrier();

  if (checkpoint_) {
    checkpoint_->load(state_pieces(engine_.units(), optimizer_, parallel::place_of(mesh_)), world_);
    optimizer_.restored();
    engine_.publish(engine_.units().master());
    step_.set_step(first_step_, checkpoint_->info().skipped_updates);
    if (step_.loss_scaler() && checkpoint_->info().loss_scale)
      step_.loss_scaler()->restore(*checkpoint_->info().loss_scale);
    wall_before_ = checkpoint_->info().wall_seconds;
    saved_step_ = first_step_;
  } else {
    engine_.broadcast_weights();
    if (optimizer_.ema().defined()) optimizer_.ema().copy_(engine_.units().master());
  }

  for (const Skipped& skipped : resumed_.skipped)
    log_.line(fmt::format("skipped {}: {}", skipped.path, skipped.reason));
  for (const auto& [name, value] : division().rows())
    log_.line(fmt::format("{:<16}{}", name, value));
  if (recipe_.parallel.offload == "parameters" && !engine_.units().host_weights())
    log_.line(
        fmt::format("{:<16}weights stay on the device, since no other rank has a part of them; "
                    "parallel.offload=parameters does no more than optimizer here",
                    "offload"));
  if (checkpoint_)
    log_.line(fmt::format("{:<16}step {} of {}, from {}", "resumed", first_step_, total_steps_,
                          resumed_.path));
  if (!main_rank_) return;
  append_history(folder_.path(), {core::utc_now(), first_step_, options_.command_line,
                                  options_.launch.host, options_.version, world_.size()});
  const RunLength length{recipe_.run.name, total_steps_, steps_per_epoch_, first_step_};
  if (options_.print) sinks_.add(console_sink(length, ::isatty(STDOUT_FILENO) == 1));
  sinks_.add(log_sink(log_));
  sinks_.add(jsonl_sink(folder_.metrics()));
  if (recipe_.logging.tensorboard) sinks_.add(tensorboard_sink(folder_.tensorboard()));
}

bool Run::evaluates_at(int64_t step) const {
  if (recipe_.eval.sources.empty() || step == total_steps_)
    return false;  // the last one is finish()'s
  if (recipe_.eval.every_steps > 0) return step % recipe_.eval.every_steps == 0;
  return recipe_.eval.every_epochs > 0 &&
         step % (recipe_.eval.every_epochs * steps_per_epoch_) == 0;
}

bool Run::saves_at(int64_t step) const {
  return recipe_.checkpoint.every_steps > 0 && step % recipe_.checkpoint.every_steps == 0;
}

void Run::train() {
  const StopSignal stop;
  const int64_t every = std::max<int64_t>(1, recipe_.logging.every_steps);
  std::optional<StepReport>
      before;  // its loss is on the host by the time the next step is under way
  for (int64_t done = first_step_ + 1; done <= total_steps_; ++done) {
    trace(done - 1);
    const StepReport report = step_.run(loader_, &share_);
    tuning_.after_step(main_rank_);
    if (before) result_.losses.push_back(before->loss());
    before = report;
    meter_.add(report);

    if (done % every == 0 || done == 1 || done == total_steps_) log_step(report);
    if (evaluates_at(done)) evaluate(false);
    if (saves_at(done)) save();
    const int signal = agreed_signal(stop, world_);
    if (signal != 0 && done < total_steps_) preempt(signal);
  }
  if (before) result_.losses.push_back(before->loss());
  step_.settle();
  trace(total_steps_);
}

/// Begins and ends the recording that options_.trace asks for; `done` steps have been run.
void Run::trace(int64_t done) {
  if (options_.trace.empty()) return;
  const int64_t from =
      first_step_ +
      std::min(kTracedFrom, std::max<int64_t>(0, total_steps_ - first_step_ - kTracedSteps));
  if (done == from && done < total_steps_)
    trace_ = std::make_unique<Trace>(*model_, device_, world_);
  if (!trace_ || (done != from + kTracedSteps && done != total_steps_)) return;
  write_trace(options_.trace, *trace_, world_);
  trace_ = nullptr;
  log_.line(fmt::format("{:<16}steps {} to {} in {}", "trace", from + 1, done, options_.trace));
}

void Run::log_step(const StepReport& report) {
  StepRecord record = meter_.record(report);
  const data::HostMemory memory = data::host_memory();
  record.host_memory_gib = static_cast<double>(memory.rss_bytes) / kGib;
  record.skipped_samples = loader_.skipped();
  if (const auto encoder = dynamic_cast<const models::EncoderModel*>(model_.get());
      encoder && encoder->last_decatt().defined())
    record.terms.emplace_back("decatt", encoder->last_decatt().item().toDouble());
  if (recipe_.data.sources.size() > 1)
    for (const data::SourceProgress& source : loader_.progress())
      record.sources.emplace_back(source.name, source.epochs);
  if (memory.is_scarce() && !std::exchange(warned_of_memory_, true))
    core::log_warning(
        "[memory] {:.1f} of {:.1f} GiB of this host are left; lower data.cache_gib, "
        "data.prefetch or data.workers",
        static_cast<double>(memory.available_bytes) / kGib,
        static_cast<double>(memory.limit_bytes) / kGib);
  if (main_rank_) sinks_.step(record);
}

std::vector<SplitResult> Run::evaluate(bool keep_examples) {
  step_.settle();
  std::vector<SplitResult> results;
  {
    const EmaScope averaged(engine_, optimizer_.ema());
    results =
        evaluator_.run(model_->task(), forward_pass(engine_), device_, data_group_, keep_examples);
  }
  const int64_t step = step_.step();
  for (const SplitResult& result : results)
    if (main_rank_)
      sinks_.evaluation({step, static_cast<double>(step) / static_cast<double>(steps_per_epoch_),
                         result.split, result.samples, result.metrics, result.seconds});
  return results;
}

/// Every rank calls it; a step that is saved already is not saved again.
void Run::save() {
  step_.settle();
  if (saved_step_ == step_.step()) return;
  saved_step_ = step_.step();
  CheckpointInfo info;
  info.step = step_.step();
  info.update_count = step_.update_count();
  info.skipped_updates = step_.skipped();
  if (step_.loss_scaler()) info.loss_scale = step_.loss_scaler()->state();
  info.loader = loader_.state();
  info.seed = static_cast<uint64_t>(recipe_.run.seed);
  info.wall_seconds = wall_before_ + wall_.seconds();
  info.mesh = mesh_.describe();
  info.recipe = config::to_yaml(recipe_);
  info.program = options_.version;
  writer_->save(state_pieces(engine_.units(), optimizer_, parallel::place_of(mesh_)), info);
}

void Run::preempt(int signal) {
  save();
  writer_->finish();
  sinks_.flush();
  core::fail<core::Preempted>(
      "[train] {} came: stopped after step {} of {}, state saved in {}; run the same command again",
      signal_name(signal), step_.step(), total_steps_,
      writer_->last().path.empty() ? resumed_.path : writer_->last().path);
}

/// Last evaluation, last checkpoint, weights for others, report.
void Run::finish() {
  result_.evaluation = evaluate(recipe_.logging.html);
  save();
  writer_->finish();
  result_.folder = folder_.path();
  result_.first_step = first_step_;
  result_.steps = step_.step();
  export_weights();
  const bool draws = model_->task() == models::Task::denoising && recipe_.logging.html;
  const std::optional<PictureTable> drawn = draws ? std::optional(drawn_samples()) : std::nullopt;
  if (main_rank_) {
    sinks_.flush();
    ReportData data = report_data(result_.evaluation);
    if (drawn) data.pictures.push_back(*drawn);
    save_report_data(folder_.path(), data);
    if (recipe_.logging.html) result_.report = write_report(folder_.path());
  }
  world_.barrier();
  for (const SplitResult& split : result_.evaluation)
    log_.line((optimizer_.ema().defined() ? "averaged weights: " : "") + describe(split));
  log_.line(fmt::format("{:<16}{}", "weights", folder_.file("weights.safetensors")));
  if (!result_.report.empty()) log_.line(fmt::format("{:<16}{}", "report", result_.report));
}

void Run::export_weights() {
  write_weights(folder_.file("weights.safetensors"), *model_, engine_, engine_.units().master());
  if (optimizer_.ema().defined())
    write_weights(folder_.file("weights-ema.safetensors"), *model_, engine_, optimizer_.ema());
}

/// What a diffusion model draws, for the report. Every rank calls it: some may hold parts only.
PictureTable Run::drawn_samples() {
  const EmaScope averaged(engine_, optimizer_.ema());
  const NoisePass pass = is_whole(recipe_.parallel) ? NoisePass() : noise_pass(*model_, engine_);
  return sample_sheet(*model_, recipe_, device_, kDrawnSamples, pass);
}

ReportData Run::report_data(const std::vector<SplitResult>& results) {
  ReportData data;
  data.name = recipe_.run.name;
  data.kind = recipe_.model.kind.value;
  data.averaged_weights = optimizer_.ema().defined();
  data.layout = division().rows();
  data.environment = environment_rows(options_.libraries, device_);
  for (size_t i = 0; i < results.size(); ++i) {
    const SplitResult& result = results[i];
    data.splits.push_back({result.split, result.samples, result.seconds, result.metrics,
                           result.confusion, result.class_names});
    if (i == 0) add_examples(result, recipe_.eval.sources[i], recipe_.model, data);
  }
  return data;
}

RunResult Run::operator()() {
  VT_REQUIRE(ConfigError, steps_per_epoch_ > 0,
             "[data] an epoch must hold at least one batch but {} samples are fewer than "
             "data.batch_size {}",
             loader_.samples(), recipe_.data.batch_size);
  if (options_.dry_run) {
    for (const auto& [name, value] : division().rows())
      log_.line(fmt::format("{:<16}{}", name, value));
    log_.line(fmt::format("{:<16}{}", "dry run", "nothing was written, no step was run"));
    result_.folder = folder_.path();
    return result_;
  }
  start();
  train();
  finish();
  return result_;
}

}  // namespace

RunResult run_training(const config::ResolvedRecipe& resolved, comm::Communicator& world,
                       const TrainOptions& options) {
  config::require_training(resolved.recipe);
  set_determinism(resolved.recipe.run);
  handshake(world, resolved, options.version, choose_device(resolved.recipe.run, options.launch));
  return Run(resolved, world, options)();
}

}  // namespace vitrail::train
