#pragma once
/// The memory of a rank's parameters in flat buffers (layout.h says where everything lies).
///
/// Whole       what a unit computes with, [count] elements in the compute dtype; the module's parameters and their .grad
///             are views. A unit's weights and gradient lie in memory of their own, the arenas `weights` and `autograd`,
///             or take turns in slots (gather.h, reduce.h), where blocks of zero2 (gradients) and zero3 (both) lie.
/// Sum         fp32 [count] of every unit whose gradient has memory of its own: the sum over micro-batches; the same
///             storage as `autograd` in fp32.
/// Slices      of every unit: `published` in the compute dtype, what ranks gather (`weights` when those are not divided,
///             `master` in fp32); `slice_gradient` in fp32 (`gradient` when optimizer state is not divided further).
/// Kept        a piece of every unit: `master` and `gradient` in fp32, `published_piece` in the compute dtype (`master` in
///             fp32), decay flags, moments and average (allocated by whoever uses them).
/// Undivided   in fp32 weights, published and master are one, autograd, sum and gradient another.
/// Offload     on a GPU master and decay flags may lie in host memory, then published pieces are their own; those too may
///             lie in host memory (host_weights.h), then there are no slices.

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "vitrail/models/model.h"
#include "vitrail/parallel/host_weights.h"
#include "vitrail/parallel/layout.h"
#include "vitrail/parallel/pool.h"

namespace vitrail::parallel {

/// Fills a whole parameter with its first values, fp32 on the CPU.
using InitialValues = std::function<void(const nn::NamedTensor& parameter)>;

struct UnitMemory {
  bool weights_in_slots = false, gradients_in_slots = false;  // of blocks
  int64_t keep_below = 0;  // blocks with fewer elements have memory for weights of their own
  bool kept_on_host = false, weights_on_host = false;
  InitialValues initial;  // for models without values (models::make_model_deferred)
};

class UnitSet {
 public:
  /// Moves every parameter of `model` to `device` in `compute_dtype` (kFloat or kBFloat16), makes it and its .grad views.
  /// The model keeps working as before; it must outlive the set.
  UnitSet(models::Model& model, at::Device device, at::ScalarType compute_dtype);
  /// The same for what `layout` gives this rank. Parameters move one by one, and what the model held of them is freed, so
  /// that a rank never holds more than the model and its own part. Parameters of units that it does not hold lose their
  /// memory and keep their shapes.
  UnitSet(models::Model& model, at::Device device, at::ScalarType compute_dtype,
          const LayoutOptions& layout, const UnitMemory& memory);

  const Layout& layout() const { return layout_; }
  std::span<const Unit> units() const { return layout_.units(); }
  int64_t count() const { return layout_.count(); }            // of a whole arena
  int64_t kept_count() const { return layout_.kept_count(); }  // of a kept arena
  int64_t parameter_count() const { return layout_.parameter_count(); }
  bool is_divided() const { return layout_.sharding().pieces() > 1; }

  // Arenas. `weights` and `autograd_gradient` hold the units that have memory of their own.
  at::Tensor& weights() { return weights_; }
  const at::Tensor& weights() const { return weights_; }
  at::Tensor& autograd_gradient() { return autograd_; }
  at::Tensor& master() { return master_; }
  const at::Tensor& master() const { return master_; }
  at::Tensor& gradient() { return gradient_; }
  const at::Tensor& gradient() const { return gradient_; }
  at::Tensor& published_piece() { return published_piece_; }
  const at::Tensor& published_piece() const { return published_piece_; }
  /// One byte an element that is kept: 1 where weight decay applies.
  at::Tensor& decay_mask() { return decay_mask_; }
  const at::Tensor& decay_mask() const { return decay_mask_; }
  /// A zeroed fp32 kept arena, for moments and averages.
  at::Tensor allocate() const;

  // Of one unit, by its place in units().
  bool weights_in_slot(size_t u) const { return homes_[u].weights < 0; }
  bool gradient_in_slot(size_t u) const { return homes_[u].gradient < 0; }
  /// Null: published pieces lie on the device.
  HostWeights* host_weights() { return host_weights_.get(); }
  /// The kept range of each unit.
  std::vector<HostRange> kept_ranges() const;
  MovingTensor& moving_weights(size_t u) { return homes_[u].moving_weights; }
  MovingTensor& moving_gradient(size_t u) { return homes_[u].moving_gradient; }
  at::Tensor whole_weights(size_t u) const;
  at::Tensor sum(size_t u) const;
  at::Tensor published(size_t u) const { return slice(published_, u); }
  at::Tensor published_piece(size_t u) const { return piece(published_piece_, u); }
  at::Tensor slice_gradient(size_t u) const { return slice(slice_gradient_, u); }
  at::Tensor kept_gradient(size_t u) const { return piece(gradient_, u); }

  /// The part of a whole arena that holds a parameter, shaped as the rank's part of it.
  static at::Tensor view(const at::Tensor& arena, const ParameterSlot& slot);
  /// Adds the autograd gradient of a unit with memory of its own to the sum and clears it; nothing to do in fp32.
  void accumulate(size_t u);
  void accumulate(const Unit& unit) { accumulate(static_cast<size_t>(&unit - units().data())); }
  /// Clears every gradient and sum that outlives a micro-batch.
  void zero_gradients();
  /// These fp32 values (a kept arena) become what ranks gather; gathering is left to gather.h. In fp32 divided weights
  /// are read out of `kept_arena` itself, so it must stay; undivided ones are copied over the master weights.
  void publish(const at::Tensor& kept_arena);
  void publish_master() { publish(master_); }
  /// Every slot of every unit, in arena order.
  template <class F>
  void for_each_slot(F&& visit) const {
    for (const Unit& unit : units())
      for (const ParameterSlot& slot : unit.slots) visit(slot);
  }

 private:
  /// Where the whole weights and gradient of a unit lie: offsets in the arenas, or -1 and a moving tensor.
  struct Home {
    int64_t weights = -1, gradient = -1;
    MovingTensor moving_weights, moving_gradient;
  };
  void allocate_kept(const at::TensorOptions& options, const UnitMemory& memory);
  void allocate_published(const at::TensorOptions& options, const UnitMemory& memory);
  void allocate_whole(const at::TensorOptions& options, const UnitMemory& memory);
  void take_over(models::Model& model, const InitialValues& initial);
  void fill(const KeptRun& run, const at::Tensor& local);
  void make_views(const std::vector<nn::NamedTensor>& parameters);
  at::Tensor slice(const at::Tensor& slices, size_t u) const;
  at::Tensor piece(const at::Tensor& kept, size_t u) const;

  Layout layout_;
  at::ScalarType dtype_;
  std::vector<Home> homes_;
  std::unique_ptr<HostWeights> host_weights_;
  at::Tensor weights_, autograd_, sum_;
  at::Tensor published_, slice_gradient_;
  at::Tensor master_, gradient_, published_piece_, decay_mask_;
};

}  // namespace vitrail::parallel
