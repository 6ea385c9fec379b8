#pragma once
/// Metrics of a model on held-out data, exact over any number of ranks.

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "vitrail/comm/communicator.h"
#include "vitrail/comm/launch.h"
#include "vitrail/config/recipe.h"
#include "vitrail/data/loader.h"
#include "vitrail/models/leaves.h"
#include "vitrail/models/metrics.h"
#include "vitrail/models/model.h"
#include "vitrail/parallel/engine.h"
#include "vitrail/train/batch_share.h"
#include "vitrail/train/examples.h"

namespace vitrail::train {

struct SplitResult {
  std::string split;
  int64_t samples = 0;
  models::MetricList metrics;
  double seconds = 0;
  std::vector<std::vector<int64_t>>
      confusion;  // [true][predicted]; empty unless a classifier with few classes
  std::vector<std::string> class_names;  // beside a confusion, and of boxes
  std::vector<Example> examples;  // this rank's; filled only when asked for
};

/// "digits accuracy 0.9611, loss 0.142 (360 samples)"
std::string describe(const SplitResult& result);

/// The rows of a batch that hold samples, without those that only fill up the last batch (sample id
/// -1).
data::Batch without_padding(const data::Batch& batch);

/// How held-out data are read: in order, every sample once, without augmentation.
/// throws ConfigError when the batch cannot be divided among the ranks.
data::LoaderOptions evaluation_loader(const config::Recipe& recipe, int64_t data_rank,
                                      int64_t data_ranks, bool pin);

/// A pass without gradients: the model's forward, or Engine::evaluate.
using ForwardPass = std::function<models::Output(const data::Batch&, const nn::Draws&,
                                                 const std::vector<std::string>& taps)>;
ForwardPass forward_pass(models::Model& model);
ForwardPass forward_pass(parallel::Engine& engine);

/// One named list of sources and the loader that reads it, in order, without augmentation.
class Evaluator {
 public:
  /// One split for each of `sources`, named by data::source_name. `pin` for GPU runs. `share`: how batches come to this
  /// rank, outlives the evaluator; without one it reads for itself.
  /// throws ConfigError when the batch cannot be divided among the ranks; DataError.
  Evaluator(const std::vector<config::Source>& sources, const config::Recipe& recipe,
            int64_t data_rank, int64_t data_ranks, bool pin, BatchShare* share = nullptr);

  /// Every rank calls it with its `group`, the data ranks: those who share its samples (pipeline, sequence, tensor) count
  /// the same ones for themselves. Every rank gets the same metrics and makes equally many passes.
  /// Draws   the masks of an MAE come from step 0 and the sample's index, so every evaluation hides
  /// the same patches.
  std::vector<SplitResult> run(models::Task task, const ForwardPass& forward, at::Device device,
                               comm::Communicator& group, bool keep_examples);
  int64_t samples() const;

 private:
  struct Split {
    config::Source source;
    std::unique_ptr<data::Loader> loader;
  };
  SplitResult run_split(Split& split, models::Task task, const ForwardPass& forward,
                        at::Device device, comm::Communicator& group, bool keep_examples);

  config::Model model_options_;
  models::LeafMaker
      leaves_;  // made before the model's pass, since metrics and pictures need them too
  uint64_t seed_;
  BatchShare* share_;
  std::vector<Split> splits_;
};

/// While it lives the model computes with `ema` (an fp32 kept arena) instead of its own weights; afterwards those are back
/// bit by bit. An undefined `ema` changes nothing. Every rank makes and ends it.
class EmaScope {
 public:
  EmaScope(parallel::Engine& engine, const at::Tensor& ema);
  /// throws CommError when the ranks cannot exchange the weights; not while another error is on its way.
  ~EmaScope() noexcept(false);
  EmaScope(const EmaScope&) = delete;
  EmaScope& operator=(const EmaScope&) = delete;

 private:
  parallel::Engine& engine_;
  const int exceptions_at_start_;
  bool active_ = false;
  at::Tensor kept_;  // master weights, where the model computes with these very elements
};

struct EvaluateOptions {
  std::string weights;  // safetensors file, checkpoint folder or run folder; empty = newest valid
                        // checkpoint of the run
  std::string split;  // name of a source of eval.sources, or "train" (data.sources); empty = all of
                      // eval.sources
  comm::Launch launch;
  std::string version;  // of the program, compared between ranks
};

/// The sources that a split names. throws ConfigError when there is no such split.
std::vector<config::Source> chosen_sources(const config::Recipe& recipe, const std::string& split);

/// What `vitrail eval` does. Every rank calls it and gets the same result.
std::vector<SplitResult> evaluate_recipe(const config::ResolvedRecipe& resolved,
                                         comm::Communicator& world, const EvaluateOptions& options);
/// One line of JSON: {"split": ..., "samples": ..., "metrics": {...}}.
std::string to_json(const SplitResult& result);

}  // namespace vitrail::train
