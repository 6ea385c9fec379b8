#pragma once
/// The memory of a rank's parameters in flat buffers (layout.h says where everything lies).
///
/// Whole       what a unit computes with, [count] elements: weights in the compute dtype, gradient in fp32 whatever the
///             parameters are in, so that autograd adds bf16 or fp16 to fp32 in place; parameters and their .grad are views. Both
///             lie in memory of their own, or take turns in slots (gather.h, reduce.h), where blocks of zero2 (gradients)
///             and zero3 (both) lie. Gradients with memory of their own add up over micro-batches.
/// Kept        a piece of every unit: `master` and `gradient` in fp32, decay flags, moments and average (allocated by
///             whoever uses them).
/// Slices      of every unit: `slice_gradient` in fp32 (`gradient` when optimizer state is not divided further). What
///             ranks gather is made of fp32 kept pieces where it is needed: in its place in the whole.
/// Staying     slices of blocks whose weights lie in slots, in the compute dtype, only where they cannot be made anew for
///             every gather: replicas divide them further, or the master weights are in host memory.
/// Undivided   the whole gradients are `gradient`; in fp32 weights and master are one.
/// Offload     on a GPU master and decay flags may lie in host memory; what the optimizer there writes goes to its place
///             in the whole or to a staying slice, or stays in host memory too (host_weights.h).

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
  /// Moves every parameter of `model` to `device` in `compute_dtype` (kFloat, kBFloat16 or kHalf), makes it and its .grad views.
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

  // Arenas. `weights` and `whole_gradients` hold the units that have memory of their own.
  at::Tensor& weights() { return weights_; }
  const at::Tensor& weights() const { return weights_; }
  const at::Tensor& whole_gradients() const { return whole_gradients_; }
  at::Tensor& master() { return master_; }
  const at::Tensor& master() const { return master_; }
  at::Tensor& gradient() { return gradient_; }
  const at::Tensor& gradient() const { return gradient_; }
  const at::Tensor& staying_slices() const { return slices_; }
  /// One byte for each kAlignment elements that are kept: 1 where weight decay applies.
  at::Tensor& decay_mask() { return decay_mask_; }
  const at::Tensor& decay_mask() const { return decay_mask_; }
  /// A zeroed fp32 kept arena, for moments and averages.
  at::Tensor allocate() const;

  // Of one unit, by its place in units().
  bool weights_in_slot(size_t u) const { return homes_[u].weights < 0; }
  bool gradient_in_slot(size_t u) const { return homes_[u].gradient < 0; }
  /// Null: weights are on the device.
  HostWeights* host_weights() { return host_weights_.get(); }
  /// Whether the unit's slice stays between gathers, apart from the whole.
  bool has_staying_slice(size_t u) const { return homes_[u].slice >= 0; }
  /// The kept range of each unit.
  std::vector<HostRange> kept_ranges() const;
  MovingTensor& moving_weights(size_t u) { return homes_[u].moving_weights; }
  MovingTensor& moving_gradient(size_t u) { return homes_[u].moving_gradient; }
  at::Tensor whole_weights(size_t u) const;
  at::Tensor whole_gradient(size_t u) const;
  /// This rank's slice of a unit's whole weights or gradient, and its piece of a slice.
  at::Tensor slice_of(const at::Tensor& whole, size_t u) const;
  at::Tensor piece_of(const at::Tensor& slice, size_t u) const;
  at::Tensor staying_slice(size_t u) const;
  /// This rank's piece of what is published, in the compute dtype and the order of `stream`: written to its place in
  /// `slice`, unless it exists already. Returns where it is.
  at::Tensor published_piece(size_t u, const at::Tensor& slice, void* stream);
  /// Where an optimizer in host memory writes the published piece of each unit: in host memory, or on the device.
  std::vector<at::Tensor> published_pieces() const;
  at::Tensor slice_gradient(size_t u) const;
  at::Tensor kept_gradient(size_t u) const { return piece(gradient_, u); }

  /// The part of a whole arena that holds a parameter, shaped as the rank's part of it.
  static at::Tensor view(const at::Tensor& arena, const ParameterSlot& slot);
  /// The part of flags (one for each kAlignment kept elements) that is about a run.
  static at::Tensor flags_of(const at::Tensor& flags, const KeptRun& run);
  /// Clears every gradient that outlives a micro-batch.
  void zero_gradients();
  /// These fp32 values (a kept arena) become what ranks gather; gathering is left to gather.h. Divided weights are read
  /// out of `kept_arena` itself (not those of an optimizer in host memory), so it must stay; undivided ones are rounded to
  /// the compute dtype, in fp32 copied over the master weights.
  void publish(const at::Tensor& kept_arena);
  void publish_master() { publish(master_); }
  /// Every slot of every unit, in arena order.
  template <class F>
  void for_each_slot(F&& visit) const {
    for (const Unit& unit : units())
      for (const ParameterSlot& slot : unit.slots) visit(slot);
  }

 private:
  /// Where the whole weights and gradient of a unit lie: offsets in the arenas, or -1 and a moving tensor; where its
  /// slice stays, or -1.
  struct Home {
    int64_t weights = -1, gradient = -1, slice = -1;
    MovingTensor moving_weights, moving_gradient;
  };
  void allocate_kept(const at::TensorOptions& options, const UnitMemory& memory);
  void allocate_slices(const at::TensorOptions& options, const UnitMemory& memory);
  void allocate_whole(const at::TensorOptions& options, const UnitMemory& memory);
  void take_over(models::Model& model, const InitialValues& initial);
  void fill(const KeptRun& run, const at::Tensor& local);
  void make_views(const std::vector<nn::NamedTensor>& parameters);
  at::Tensor piece(const at::Tensor& kept, size_t u) const;
  int64_t slice_count(size_t u) const;

  Layout layout_;
  at::ScalarType dtype_;
  std::vector<Home> homes_;
  std::unique_ptr<HostWeights> host_weights_;
  bool written_by_host_ = false;  // an optimizer in host memory writes the published pieces
  at::Tensor weights_, whole_gradients_;
  at::Tensor slices_, slice_gradient_;
  at::Tensor master_, gradient_, decay_mask_;
  at::Tensor published_;  // the kept arena out of which divided weights are made
};

}  // namespace vitrail::parallel
