#pragma once
/// A model laid over the ranks of a mesh: tensor, sequence and pipeline parallelism, units, strategy. Everything about
/// ranks that a training step needs is behind this class; a group of one is no special case.

#include <array>
#include <functional>
#include <memory>
#include <string>

#include <ATen/core/Tensor.h>

#include "vitrail/comm/mesh.h"
#include "vitrail/config/recipe.h"
#include "vitrail/models/model.h"
#include "vitrail/nn/draws.h"
#include "vitrail/parallel/groups.h"
#include "vitrail/parallel/layout.h"
#include "vitrail/parallel/unit.h"

namespace vitrail::parallel {

/// The layout of one rank: which units, which parts, which slices; for training and for `vitrail plan`. `coordinates`
/// and `sizes` are those of the mesh, by axis.
struct MeshPlace {
  std::array<int, comm::kAxisCount> sizes{1, 1, 1, 1, 1}, coordinates{};
  int size(comm::Axis axis) const { return sizes[static_cast<size_t>(axis)]; }
  int coordinate(comm::Axis axis) const { return coordinates[static_cast<size_t>(axis)]; }
};
LayoutOptions layout_options(models::Model& model, const config::Recipe& recipe,
                             const MeshPlace& place);

class Engine {
 public:
  /// Takes over the model's parameters. `model` and `mesh` outlive the engine. Every rank calls it.
  /// `initial` fills the parameters of a model that has no values yet (models::make_model_deferred).
  /// throws ConfigError when model, recipe and mesh do not fit.
  Engine(models::Model& model, const config::Recipe& recipe, comm::Mesh& mesh, at::Device device,
         at::ScalarType compute_dtype, const InitialValues& initial = {});
  ~Engine();

  UnitSet& units();
  Groups& groups();
  at::Device device() const;
  const config::Parallel& options() const;

  /// Ranks that hold the same get the values of the first of them; then publish().
  void broadcast_weights();
  /// The model computes with these fp32 values (a kept arena, master or average) from now on. The arena must stay; in fp32,
  /// where nothing is divided, its values are copied over the master weights.
  void publish(const at::Tensor& kept_arena);
  /// Whoever updated the arena that is published says so: weights are gathered anew before they are used.
  void weights_changed();

  /// Forward and backward of this rank's samples in `micro_batches` pieces, after units().zero_gradients(). Afterwards
  /// units().gradient() holds the mean over all data ranks of what this rank keeps. Returns the loss of this rank's
  /// samples, a scalar.
  at::Tensor forward_backward(const data::Batch& batch, int64_t micro_batches,
                              const std::function<nn::Draws(const data::Batch&)>& draws_of);
  /// fp32 scalar on the device that every loss is multiplied by before backward, read anew in every pass; the loss that
  /// forward_backward returns is not. Undefined = 1.
  void scale_loss_by(const at::Tensor& factor);
  /// Called when the gradient of a unit is complete in the order of a stream, within forward_backward (on a GPU).
  void on_gradient(std::function<void(size_t unit, void* stream)> tell);
  /// A pass without gradients; the output is on every rank that has these samples.
  models::Output evaluate(const data::Batch& batch, const nn::Draws& draws,
                          const std::vector<std::string>& taps = {});

  /// Sum over the ranks among which the kept elements are divided of the squares counted by `own` (fp64 device scalar):
  /// elements that several ranks hold are counted once.
  void sum_over_pieces(at::Tensor& own);
  /// What this rank counts in norms: 1 byte for each kAlignment elements of the kept arena; undefined = all.
  at::Tensor counted() const;

  /// "zero3 over 4 ranks, 12 units of at most 28.3 M, ..." for the plan that is printed once.
  std::string describe() const;
  /// Reductions that began before backward ended, in the last step.
  int64_t early_starts() const;
  /// Device memory besides the arenas that is planned once.
  struct Buffers {
    int64_t weight_slots = 0, gradient_slots = 0, staging = 0;  // bytes
  };
  Buffers buffers() const;
  /// Since the beginning: units gathered; units (undivided: buckets) reduced.
  struct Counts {
    int64_t gathers = 0, reductions = 0;
  };
  Counts counts() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace vitrail::parallel
