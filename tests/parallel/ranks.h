#pragma once
/// Training steps of tiny models on ranks that are threads of this process: any layout must give the losses and weights
/// of one rank.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/zeros.h>

#include "tests/parallel/tiny.h"
#include "vitrail/comm/mesh.h"
#include "vitrail/config/recipe.h"
#include "vitrail/models/init.h"
#include "vitrail/parallel/device.h"
#include "vitrail/parallel/engine.h"
#include "vitrail/train/optimizer.h"

namespace vitrail::testing {

/// A recipe for `model` with all that must not depend on ranks switched on: clipping, average, decay.
inline config::Recipe tiny_recipe(const config::Model& model) {
  config::Recipe recipe;
  recipe.model = model;
  recipe.train.clip_grad_norm = 0.5;
  recipe.train.ema_decay = 0.9;
  recipe.train.optimizer.weight_decay = 0.05;
  recipe.parallel.bucket_mib = 0.02;  // several buckets even for the smallest models
  return recipe;
}

/// Samples [first, first + count) of an endless set.
using SampleMaker = std::function<data::Batch(int64_t first, int64_t count)>;

struct RanksOptions {
  int64_t global_batch = 24;
  double learning_rate = 3e-3;
  SampleMaker samples = [](int64_t first, int64_t count) {
    return vitrail::testing::samples(first, count);
  };
  bool on_gpus = false;  // rank r on GPU r
  bool keep_weights = false;
  bool evaluate = false;  // one pass with the average and one with the weights after the last step
  bool deferred = false;  // the model begins without values (models::make_model_deferred)
  /// Called on every rank after the last step.
  std::function<void(parallel::Engine&, train::Optimizer&)> at_end;
};

struct RanksResult {
  std::vector<double>
      losses;  // of each step, mean over the global batch; then those of the evaluation
  std::vector<double> norms;                  // of the gradient
  std::map<std::string, at::Tensor> weights;  // whole fp32 tensors, with keep_weights
};

namespace ranks {

/// Whole tensors put together from what ranks keep.
class Collection {
 public:
  void add(parallel::UnitSet& units) {
    const std::lock_guard lock(mutex_);
    const at::NoGradGuard no_grad;
    const at::Tensor master = units.master().cpu();
    for (const parallel::KeptRun& run : units.layout().kept_runs()) {
      Piece& piece = pieces_[{run.slot->name, run.slot->placement.part}];
      if (!piece.values.defined()) {
        piece.slot = *run.slot;
        piece.values = at::zeros({run.slot->count}, at::kFloat);
      }
      piece.values.narrow(0, run.start, run.count)
          .copy_(master.narrow(0, run.kept_offset, run.count));
    }
  }

  std::map<std::string, at::Tensor> wholes() const {
    const at::NoGradGuard no_grad;
    std::map<std::string, at::Tensor> found;
    for (const auto& [key, piece] : pieces_) {
      at::Tensor& whole = found[key.first];
      if (!whole.defined()) whole = at::zeros(piece.slot.whole_shape, at::kFloat);
      int64_t first = 0;
      for (const parallel::Box& box :
           parallel::boxes(piece.slot.whole_shape, piece.slot.placement)) {
        at::Tensor place = whole;
        for (size_t axis = 0; axis < box.shape.size(); ++axis)
          place = place.narrow(static_cast<int64_t>(axis), box.start[axis], box.shape[axis]);
        place.copy_(piece.values.narrow(0, first, box.count()).view(box.shape));
        first += box.count();
      }
    }
    return found;
  }

 private:
  struct Piece {
    parallel::ParameterSlot slot;
    at::Tensor values;
  };
  std::mutex mutex_;
  std::map<std::pair<std::string, int>, Piece> pieces_;
};

/// Ranks that no axis names share what the strategy divides, else they hold the same.
inline comm::MeshShape mesh_shape(const config::Parallel& options) {
  const bool divides = options.strategy != "none" && options.strategy != "ddp";
  comm::MeshShape shape{options.replicate, options.shard.value_or(1), options.pipeline,
                        options.sequence, options.tensor};
  if (!divides || options.shard) return shape;
  if (options.replicate == -1) shape.replicate = 1;
  shape.shard = -1;
  return shape;
}

inline at::ScalarType dtype_of(const config::Recipe& recipe) {
  return recipe.train.precision == "bf16" ? at::kBFloat16 : at::kFloat;
}

/// Sum over the data ranks of this rank's share, in fp64.
inline double mean_over_data(comm::Mesh& mesh, const at::Tensor& loss) {
  comm::Communicator& group = mesh.along({comm::Axis::replicate, comm::Axis::shard});
  return comm::sum(group, loss.item().toDouble()) / group.size();
}

inline void run_rank(comm::Communicator& world, const config::Recipe& recipe, int64_t steps,
                     const RanksOptions& options, RanksResult& result, Collection& collection) {
  use_one_thread();
  comm::Mesh mesh(world, mesh_shape(recipe.parallel));
  const auto model = options.deferred
                         ? models::make_model_deferred(recipe.model)
                         : models::make_model(recipe.model, static_cast<uint64_t>(recipe.run.seed));
  models::configure(*model, recipe.train);
  const auto initial = options.deferred ? models::initial_values(
                                              recipe.model, static_cast<uint64_t>(recipe.run.seed))
                                        : parallel::InitialValues{};
  const at::Device device = options.on_gpus
                                ? at::Device(at::kCUDA, static_cast<at::DeviceIndex>(world.rank()))
                                : at::Device(at::kCPU);
  parallel::set_device(device);
  parallel::Engine engine(*model, recipe, mesh, device, dtype_of(recipe), initial);
  train::Optimizer optimizer(engine, recipe.train.optimizer, recipe.train.ema_decay);
  const int64_t local = options.global_batch / mesh.data_size();
  const auto batch_of = [&](int64_t step) {
    data::Batch batch =
        options.samples(step * options.global_batch + mesh.data_rank() * local, local);
    for (at::Tensor* tensor : batch.rows()) *tensor = tensor->to(device);
    return batch;
  };
  std::vector<double> losses, norms;
  for (int64_t step = 0; step < steps; ++step) {
    const auto draws_of = [&](const data::Batch& samples) {
      return nn::Draws{static_cast<uint64_t>(recipe.run.seed), static_cast<uint32_t>(step),
                       samples.sample_ids, true};
    };
    engine.units().zero_gradients();
    data::Batch batch = batch_of(step);
    batch = model->prepared(batch, draws_of(batch));
    const at::Tensor loss = engine.forward_backward(batch, recipe.train.micro_batches, draws_of);
    const train::GradientNorm norm = optimizer.gradient_norm(recipe.train.clip_grad_norm);
    norms.push_back(norm.norm.item().toDouble());
    optimizer.step(options.learning_rate, step + 1, norm);
    losses.push_back(mean_over_data(mesh, loss));
  }
  if (options.evaluate) {
    const data::Batch batch = batch_of(steps);
    const nn::Draws draws{static_cast<uint64_t>(recipe.run.seed), 0, batch.sample_ids, false};
    const at::Tensor master = engine.units().master().clone();
    if (optimizer.ema().defined()) {
      engine.publish(optimizer.ema());
      losses.push_back(mean_over_data(mesh, engine.evaluate(batch, draws).loss));
      const at::NoGradGuard no_grad;
      engine.units().master().copy_(master);
      engine.publish(engine.units().master());
    }
    losses.push_back(mean_over_data(mesh, engine.evaluate(batch, draws).loss));
  }
  if (options.at_end) options.at_end(engine, optimizer);
  if (options.keep_weights) collection.add(engine.units());
  if (world.rank() == 0) result.losses = losses, result.norms = norms;
}

}  // namespace ranks

/// `ranks` threads; the axes of recipe.parallel must multiply to that.
inline RanksResult run_ranks(int ranks, const config::Recipe& recipe, int64_t steps,
                             const RanksOptions& options = {}) {
  RanksResult result;
  ranks::Collection collection;
  comm::run_thread_group(ranks, [&](comm::Communicator& world) {
    ranks::run_rank(world, recipe, steps, options, result, collection);
  });
  result.weights = collection.wholes();
  return result;
}

inline std::vector<double> losses_of(int ranks, const config::Recipe& recipe, int64_t steps,
                                     const RanksOptions& options = {}) {
  return run_ranks(ranks, recipe, steps, options).losses;
}

/// The same training by one rank that knows of no layout.
inline config::Recipe alone(config::Recipe recipe) {
  recipe.parallel = {};
  return recipe;
}

/// Worst relative difference over steps [0, count), printed with a name.
inline double compare(const std::string& name, const std::vector<double>& values,
                      const std::vector<double>& expected, size_t count = SIZE_MAX) {
  double worst = values.size() == expected.size() ? 0.0 : INFINITY;
  for (size_t i = 0; i < std::min({values.size(), expected.size(), count}); ++i) {
    const double difference = std::abs(values[i] - expected[i]) / std::abs(expected[i]);
    worst = std::isfinite(difference) ? std::max(worst, difference) : INFINITY;
  }
  std::printf("%s: worst relative difference %.2g\n", name.c_str(), worst);
  return worst;
}

/// Largest difference of any weight, over the largest weight.
inline double compare_weights(const std::string& name,
                              const std::map<std::string, at::Tensor>& values,
                              const std::map<std::string, at::Tensor>& expected) {
  const at::NoGradGuard no_grad;
  double worst = values.size() == expected.size() ? 0.0 : INFINITY, most = 0;
  for (const auto& [key, tensor] : expected) {
    const auto found = values.find(key);
    if (found == values.end()) return INFINITY;
    if (tensor.numel() == 0) continue;
    most = std::max(most, largest(tensor));
    worst = std::max(worst, largest(found->second - tensor));
  }
  std::printf("%s: worst difference of a weight %.2g of the largest\n", name.c_str(), worst / most);
  return worst / most;
}

}  // namespace vitrail::testing
