#include "vitrail/train/evaluate.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <memory>

#include <ATen/ops/index_select.h>
#include <ATen/ops/nonzero.h>
#include <c10/core/GradMode.h>

#include "vitrail/core/error.h"
#include "vitrail/data/reader.h"
#include "vitrail/data/statistics.h"
#include "vitrail/models/metrics_leaves.h"
#include "vitrail/parallel/device.h"
#include "vitrail/train/assembly.h"
#include "vitrail/train/handshake.h"
#include <nlohmann/json.hpp>

namespace vitrail::train {

namespace {

/// Adds the counts of all ranks.
void reduce(std::vector<double>& sums, comm::Communicator& group) {
  group
      .all_reduce({sums.data(), static_cast<int64_t>(sums.size()), core::DType::f64},
                  comm::Reduce::sum)
      .wait();
}

/// Every rank gets the records of all, rank after rank.
void gather(std::vector<double>& records, comm::Communicator& group) {
  const std::string own(reinterpret_cast<const char*>(records.data()),
                        records.size() * sizeof(double));
  records.clear();
  for (const std::string& bytes : comm::gather_strings(group, own)) {
    const size_t before = records.size();
    records.resize(before + bytes.size() / sizeof(double));
    std::copy(bytes.begin(), bytes.end(), reinterpret_cast<char*>(records.data() + before));
  }
}

/// How to take values back to what they were before the source's mean and std.
models::PixelScale scale_of(const config::Source& source, const config::Model& model) {
  const auto [mean, std] = data::normalize_values(source, data::channels_of(source, model));
  return {mean, std};
}

/// Trees and grids are compared on the image.
std::unique_ptr<models::Tally> tally_of(models::Task task, const config::Model& options,
                                        const models::PixelScale& scale) {
  if (task == models::Task::reconstruction && options.num_leaves() > 0)
    return std::make_unique<models::LeafReconstructionTally>(options, scale);
  return models::make_tally(task, options, scale);
}

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

std::string describe(const SplitResult& result) {
  std::string text = result.split;
  const char* separator = " ";
  for (const auto& [name, value] : result.metrics) {
    text += fmt::format("{}{} {:.4g}", separator, name, value);
    separator = ", ";
  }
  return text + fmt::format(" ({} samples)", result.samples);
}

std::string to_json(const SplitResult& result) {
  nlohmann::ordered_json metrics = nlohmann::ordered_json::object();
  for (const auto& [name, value] : result.metrics) metrics[name] = value;
  return nlohmann::ordered_json{
      {"split", result.split}, {"samples", result.samples}, {"metrics", metrics}}
      .dump();
}

data::Batch without_padding(const data::Batch& batch) {
  const at::Tensor rows = at::nonzero(batch.sample_ids.ge(0)).flatten();
  if (rows.numel() == batch.size()) return batch;
  data::Batch kept = batch;
  for (at::Tensor* tensor : kept.rows()) *tensor = at::index_select(*tensor, 0, rows);
  return kept;
}

data::LoaderOptions evaluation_loader(const config::Recipe& recipe, int64_t data_rank,
                                      int64_t data_ranks, bool pin) {
  return data::evaluation_options(recipe, data_rank, data_ranks, pin);
}

Evaluator::Evaluator(const std::vector<config::Source>& sources, const config::Recipe& recipe,
                     int64_t data_rank, int64_t data_ranks, bool pin, BatchShare* share)
    : model_options_(recipe.model),
      leaves_(recipe.model),
      seed_(static_cast<uint64_t>(recipe.run.seed)),
      share_(share) {
  data::LoaderOptions options = evaluation_loader(recipe, data_rank, data_ranks, pin);
  options.reads = !share || share->reads();
  for (const config::Source& source : sources)
    splits_.push_back({source, std::make_unique<data::Loader>(std::vector<config::Source>{source},
                                                              recipe.model, options)});
}

int64_t Evaluator::samples() const {
  int64_t total = 0;
  for (const Split& split : splits_) total += split.loader->samples();
  return total;
}

ForwardPass forward_pass(models::Model& model) {
  return
      [&model](const data::Batch& batch, const nn::Draws& draws,
               const std::vector<std::string>& taps) { return model.forward(batch, draws, taps); };
}

ForwardPass forward_pass(parallel::Engine& engine) {
  return [&engine](const data::Batch& batch, const nn::Draws& draws,
                   const std::vector<std::string>& taps) {
    return engine.evaluate(batch, draws, taps);
  };
}

std::vector<SplitResult> Evaluator::run(models::Task task, const ForwardPass& forward,
                                        at::Device device, comm::Communicator& group,
                                        bool keep_examples) {
  std::vector<SplitResult> results;
  for (Split& split : splits_)
    results.push_back(run_split(split, task, forward, device, group, keep_examples));
  return results;
}

namespace {

/// What a tally needs besides the model's output: of drawn noise, the noise itself.
std::vector<std::string> scored_taps(models::Task task) {
  if (task == models::Task::denoising) return {"noise"};
  return {};
}

}  // namespace

SplitResult Evaluator::run_split(Split& split, models::Task task, const ForwardPass& forward,
                                 at::Device device, comm::Communicator& group, bool keep_examples) {
  const c10::NoGradGuard no_grad;
  const auto start = std::chrono::steady_clock::now();
  const std::unique_ptr<models::Tally> tally =
      tally_of(task, model_options_, scale_of(split.source, model_options_));
  ExampleCollector examples(task, split.loader->samples(), model_options_);
  SplitResult result;
  result.split = data::source_name(split.source);
  for (int64_t i = 0; i < split.loader->batches_per_epoch(); ++i) {
    const data::Batch padded = share_ ? share_->next(*split.loader) : split.loader->next();
    const data::Batch samples = without_padding(padded);
    const bool counts = samples.size() > 0;
    // Weights that are divided are gathered by all ranks together, so a rank without samples makes the pass too.
    data::Batch batch = on_device(counts ? samples : padded, device);
    const nn::Draws draws{seed_, 0, batch.sample_ids, false};
    batch = leaves_.with_leaves(std::move(batch), draws);
    const models::Output output = forward(batch, draws, scored_taps(task));
    if (!counts) continue;
    tally->add(batch, output);
    if (keep_examples) examples.add(batch, output);
  }
  reduce(tally->sums(), group);
  if (task == models::Task::detection) gather(tally->records(), group);
  result.samples = tally->samples();
  result.metrics = tally->metrics();
  result.confusion = tally->confusion();
  if (!result.confusion.empty() || task == models::Task::detection)
    result.class_names = split.loader->class_names();
  result.examples = examples.take();
  result.seconds = seconds_since(start);
  return result;
}

EmaScope::EmaScope(parallel::Engine& engine, const at::Tensor& ema)
    : engine_(engine), exceptions_at_start_(std::uncaught_exceptions()) {
  if (!ema.defined()) return;
  const c10::NoGradGuard no_grad;
  const parallel::UnitSet& units = engine_.units();
  if (units.weights().defined() && units.master().is_alias_of(units.weights()))
    kept_ = units.master().clone();
  engine_.publish(ema);
  active_ = true;
}

EmaScope::~EmaScope() noexcept(false) {
  if (!active_ || std::uncaught_exceptions() > exceptions_at_start_) return;
  const c10::NoGradGuard no_grad;
  if (kept_.defined()) engine_.units().master().copy_(kept_);
  engine_.publish(engine_.units().master());
}

std::vector<config::Source> chosen_sources(const config::Recipe& recipe, const std::string& split) {
  if (split.empty()) {
    VT_REQUIRE(ConfigError, !recipe.eval.sources.empty(),
               "[eval] eval.sources must name held-out data but is empty; add a source or give "
               "--split train");
    return recipe.eval.sources;
  }
  std::string names;
  for (const config::Source& source : recipe.eval.sources) {
    if (data::source_name(source) == split) return {source};
    names += data::source_name(source) + ", ";
  }
  VT_REQUIRE(ConfigError, split == "train", "[eval] --split must be one of {}train but got '{}'",
             names, split);
  return recipe.data.sources;
}

std::vector<SplitResult> evaluate_recipe(const config::ResolvedRecipe& resolved,
                                         comm::Communicator& world,
                                         const EvaluateOptions& options) {
  const config::Recipe& recipe = resolved.recipe;
  const std::vector<config::Source> sources = chosen_sources(recipe, options.split);
  const at::Device device = choose_device(recipe.run, options.launch);
  set_threads(recipe.run, options.launch);
  handshake(world, resolved, options.version, device);
  comm::Mesh mesh = make_mesh(world, recipe.parallel, options.launch);
  BatchShare share(mesh, device, recipe.data.share == "load_once");
  Evaluator evaluator(sources, recipe, mesh.data_rank(), mesh.data_size(), device.is_cuda(),
                      &share);
  const auto model = models::make_model(recipe.model, static_cast<uint64_t>(recipe.run.seed));
  models::configure(*model, recipe.train);
  load_weights(*model, recipe, options.weights);
  parallel::Engine engine(*model, recipe, mesh, device, compute_dtype(recipe.train));
  return evaluator.run(model->task(), forward_pass(engine), device,
                       mesh.along({comm::Axis::replicate, comm::Axis::shard}), false);
}

}  // namespace vitrail::train
