#pragma once
/// The parameters of a model in flat buffers; every data-parallel strategy is a choice of which
/// slice of them a rank keeps, when weights are gathered and when gradients are reduced.
///
/// One arena a kind holds all units, in the order in which backward completes them, so that a
/// bucket of neighbouring units is one contiguous range and the optimizer walks one range:
///   weights    compute dtype; the module's parameters are views
///   master     fp32 weights; the same storage as `weights` when the compute dtype is fp32
///   autograd   compute dtype; the parameters' .grad are views
///   gradient   fp32 sum over micro-batches; the same storage as `autograd` in fp32
///   moment 0/1 fp32, ema fp32 (allocated by whoever uses them)
/// Each parameter starts at a multiple of 256 bytes (cuBLASLt presumes it); the gaps hold zeros and
/// stay zero.

#include <span>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "vitrail/models/model.h"

namespace vitrail::parallel {

struct ParameterSlot {
  std::string name;
  std::vector<int64_t> shape;
  int64_t offset = 0;  // elements from the start of the arena
  int64_t count = 0;
  bool decay = false;
};

/// A contiguous range of the arenas.
struct Unit {
  std::string name;
  nn::Stack* stack = nullptr;
  int block = -1;
  int64_t offset = 0, count = 0;  // elements
  std::vector<ParameterSlot> slots;
};

class UnitSet {
 public:
  /// Moves every parameter of `model` to `device` in `compute_dtype` (kFloat or kBFloat16), makes
  /// it and its .grad views of the arenas. The model keeps working as before; it must outlive the
  /// set.
  UnitSet(models::Model& model, at::Device device, at::ScalarType compute_dtype);

  std::span<const Unit> units() const { return units_; }
  int64_t count() const { return count_; }  // elements of an arena, gaps included
  int64_t parameter_count() const;

  at::Tensor& weights() { return weights_; }
  at::Tensor& master() { return master_; }
  at::Tensor& autograd_gradient() { return autograd_; }
  at::Tensor& gradient() { return gradient_; }
  /// One byte an element of the arena: 1 where weight decay applies.
  at::Tensor& decay_mask() { return decay_mask_; }
  /// A zeroed fp32 arena, for moments and averages.
  at::Tensor allocate() const;

  /// The part of `arena` that holds a parameter, shaped as the parameter.
  static at::Tensor view(const at::Tensor& arena, const ParameterSlot& slot);
  /// Adds the autograd gradients of a range to the fp32 gradient and clears them; nothing to do in
  /// fp32.
  void accumulate(const Unit& unit);
  void zero_gradients();
  /// master -> weights (a cast); nothing to do in fp32.
  void publish_master();
  /// Every slot of every unit, in arena order.
  template <class F>
  void for_each_slot(F&& visit) const {
    for (const Unit& unit : units_)
      for (const ParameterSlot& slot : unit.slots) visit(slot);
  }

 private:
  std::vector<Unit> units_;
  int64_t count_ = 0;
  at::Tensor weights_, master_, autograd_, gradient_, decay_mask_;
};

}  // namespace vitrail::parallel
