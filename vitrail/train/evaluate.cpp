#include "vitrail/train/evaluate.h"

#include <chrono>
#include <cmath>
#include <map>
#include <utility>

#include <ATen/ops/index_select.h>
#include <ATen/ops/nonzero.h>
#include <ATen/ops/softmax.h>
#include <c10/core/GradMode.h>

#include "vitrail/core/error.h"
#include "vitrail/data/reader.h"
#include "vitrail/parallel/device.h"
#include "vitrail/train/assembly.h"
#include <nlohmann/json.hpp>

namespace vitrail::train {

namespace {

constexpr size_t kExamplesOfAKind = 24;
constexpr int64_t kReconstructions = 8;

/// Without the rows that only fill up the last batch; those have sample id -1.
data::Batch without_padding(const data::Batch& batch) {
  const at::Tensor rows = at::nonzero(batch.sample_ids.ge(0)).flatten();
  if (rows.numel() == batch.size()) return batch;
  const auto pick = [&](const at::Tensor& tensor) {
    return tensor.defined() ? at::index_select(tensor, 0, rows) : tensor;
  };
  data::Batch kept = batch;
  kept.image = pick(batch.image);
  kept.label = pick(batch.label);
  kept.mask_noise = pick(batch.mask_noise);
  kept.sample_ids = pick(batch.sample_ids);
  return kept;
}

/// Collects right and wrong answers for the report.
class VerdictCollector {
 public:
  void add(const data::Batch& batch, const models::Output& output) {
    if (full()) return;
    const at::Tensor shares = at::softmax(output.output.to(at::kCPU, at::kFloat), 1);
    const at::Tensor labels = batch.label.to(at::kCPU), predicted = shares.argmax(1);
    for (int64_t i = 0; i < batch.size() && !full(); ++i) {
      const int64_t truth = labels.const_data_ptr<int64_t>()[i];
      const int64_t guess = predicted.const_data_ptr<int64_t>()[i];
      if (truth < 0) continue;
      size_t& count = truth == guess ? right_ : wrong_;
      size_t& of_class = of_class_[{truth, truth == guess}];
      // Lists are sorted by class; without a share for each, all pictures would show the first.
      const size_t share = (kExamplesOfAKind + shares.size(1) - 1) / shares.size(1);
      if (count >= kExamplesOfAKind || of_class >= share) continue;
      ++count;
      ++of_class;
      Example example;
      example.sample = batch.sample_ids[i].item<int64_t>();
      example.image = batch.image[i].to(at::kCPU, at::kFloat).clone();
      example.output = shares[i].clone();
      example.label = truth;
      example.predicted = guess;
      examples_.push_back(std::move(example));
    }
  }
  std::vector<Example> take() { return std::move(examples_); }

 private:
  bool full() const { return right_ >= kExamplesOfAKind && wrong_ >= kExamplesOfAKind; }

  size_t right_ = 0, wrong_ = 0;
  std::map<std::pair<int64_t, bool>, size_t> of_class_;  // (true class, answered rightly)
  std::vector<Example> examples_;
};

void keep_reconstructions(const data::Batch& batch, const models::Output& output,
                          std::vector<Example>& examples) {
  for (int64_t i = 0; i < batch.size() && static_cast<int64_t>(examples.size()) < kReconstructions;
       ++i) {
    Example example;
    example.sample = batch.sample_ids[i].item<int64_t>();
    example.image = batch.image[i].to(at::kCPU, at::kFloat).clone();
    example.output = output.output[i].to(at::kCPU, at::kFloat).clone();
    example.mask = output.mask[i].to(at::kCPU, at::kFloat).clone();
    examples.push_back(std::move(example));
  }
}

/// Adds the counts of all ranks.
void reduce(std::vector<double>& sums, comm::Communicator& group) {
  group
      .all_reduce({sums.data(), static_cast<int64_t>(sums.size()), core::DType::f64},
                  comm::Reduce::sum)
      .wait();
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

Evaluator::Evaluator(const std::vector<config::Source>& sources, const config::Recipe& recipe,
                     int64_t data_rank, int64_t data_ranks, bool pin)
    : model_options_(recipe.model), seed_(static_cast<uint64_t>(recipe.run.seed)) {
  data::LoaderOptions options;
  options.global_batch =
      recipe.eval.batch_size > 0 ? recipe.eval.batch_size : recipe.data.batch_size;
  VT_REQUIRE(ConfigError, options.global_batch % data_ranks == 0,
             "[layout] {} must be a multiple of the data ranks but got {} and {}",
             recipe.eval.batch_size > 0 ? "eval.batch_size" : "data.batch_size",
             options.global_batch, data_ranks);
  options.data_rank = data_rank;
  options.data_ranks = data_ranks;
  options.workers = recipe.data.workers;
  options.prefetch = recipe.data.prefetch;
  options.training = false;
  options.drop_last = false;
  options.skip_errors = recipe.data.on_error == "skip";
  options.pin_memory = pin;
  options.seed = seed_;
  for (const config::Source& source : sources)
    splits_.push_back({data::source_name(source),
                       std::make_unique<data::Loader>(std::vector<config::Source>{source},
                                                      recipe.model, options)});
}

int64_t Evaluator::samples() const {
  int64_t total = 0;
  for (const Split& split : splits_) total += split.loader->samples();
  return total;
}

std::vector<SplitResult> Evaluator::run(models::Model& model, at::Device device,
                                        comm::Communicator& group, bool keep_examples) {
  std::vector<SplitResult> results;
  for (Split& split : splits_)
    results.push_back(run_split(split, model, device, group, keep_examples));
  return results;
}

SplitResult Evaluator::run_split(Split& split, models::Model& model, at::Device device,
                                 comm::Communicator& group, bool keep_examples) {
  const c10::NoGradGuard no_grad;
  const auto start = std::chrono::steady_clock::now();
  const bool classifies = model_options_.kind == "vit";
  models::ClassificationTally classes(classifies ? model_options_.num_classes : 1);
  models::MeanTally mean;
  VerdictCollector verdicts;
  SplitResult result;
  result.split = split.name;
  for (int64_t i = 0; i < split.loader->batches_per_epoch(); ++i) {
    const data::Batch batch = on_device(without_padding(split.loader->next()), device);
    if (batch.size() == 0) continue;
    const models::Output output = model.forward(batch, {seed_, 0, batch.sample_ids, false});
    if (classifies) {
      classes.add(output.output, batch.label);
      if (keep_examples) verdicts.add(batch, output);
    } else {
      mean.add(output.loss.item<double>(), batch.size());
      if (keep_examples) keep_reconstructions(batch, output, result.examples);
    }
  }
  reduce(classes.sums(), group);
  reduce(mean.sums(), group);
  if (classifies) {
    result.samples = classes.samples();
    result.metrics = classes.metrics();
    result.confusion = classes.confusion();
    result.class_names = split.loader->class_names();
    result.examples = verdicts.take();
  } else {
    result.samples = mean.samples();
    result.metrics = mean.metrics();
  }
  result.seconds = seconds_since(start);
  return result;
}

EmaScope::EmaScope(parallel::UnitSet& units, const at::Tensor& ema) : units_(units) {
  if (!ema.defined()) return;
  const c10::NoGradGuard no_grad;
  kept_ = units_.weights().clone();
  units_.weights().copy_(ema);
}

EmaScope::~EmaScope() {
  if (!kept_.defined()) return;
  const c10::NoGradGuard no_grad;
  units_.weights().copy_(kept_);
}

namespace {

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

}  // namespace

std::vector<SplitResult> evaluate_recipe(const config::ResolvedRecipe& resolved,
                                         comm::Communicator& world,
                                         const EvaluateOptions& options) {
  const config::Recipe& recipe = resolved.recipe;
  const std::vector<config::Source> sources = chosen_sources(recipe, options.split);
  const at::Device device = choose_device(recipe.run, options.launch);
  set_threads(recipe.run, options.launch);
  comm::Mesh mesh(world, mesh_shape(recipe.parallel));
  Evaluator evaluator(sources, recipe, mesh.data_rank(), mesh.data_size(), device.is_cuda());
  const auto model = models::make_model(recipe.model, static_cast<uint64_t>(recipe.run.seed));
  models::configure(*model, recipe.train);
  load_weights(*model, recipe, options.weights);
  parallel::UnitSet units(*model, device, compute_dtype(recipe.train));
  return evaluator.run(*model, device, mesh.along({comm::Axis::replicate, comm::Axis::shard}),
                       false);
}

}  // namespace vitrail::train
