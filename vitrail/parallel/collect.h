#pragma once
/// What a rank keeps, as parts of whole tensors; and whole tensors put together again on one rank.

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "vitrail/comm/mesh.h"
#include "vitrail/parallel/box_range.h"
#include "vitrail/parallel/engine.h"
#include "vitrail/parallel/layout.h"

namespace vitrail::parallel {

/// How many ranks hold the very same elements, and this rank's place among them. A negative index: other ranks hold them
/// too, and those answer for them.
struct Copies {
  int count = 1, index = 0;
};
/// Replicas hold the same; so do ranks of an axis that the strategy does not divide, and tensor ranks for a parameter
/// that is not split. Needs no ranks.
Copies copies_of(const Placement& placement, const Sharding& sharding, const MeshPlace& place);
MeshPlace place_of(const comm::Mesh& mesh);

/// A run of elements that a rank keeps, placed in the whole parameter.
struct KeptPiece {
  const ParameterSlot* slot = nullptr;  // of the layout
  BoxRange range;                       // range.count elements ...
  int64_t kept_offset = 0;              // ... from here in the kept arenas
  Copies copies;
};
/// Everything this rank keeps. Over all ranks, the pieces with copies.index == 0 hold every element of every parameter
/// once.
std::vector<KeptPiece> kept_pieces(const Layout& layout, const MeshPlace& place);

/// A parameter's name and its shape in the model, whatever this rank holds of it.
struct WholeParameter {
  std::string name;
  std::vector<int64_t> shape;
};
struct CollectVisitor {
  /// Once, before the first tensor: all of them, sorted by name. May be empty.
  std::function<void(const std::vector<WholeParameter>&)> begin;
  /// Every parameter in that order: whole, contiguous, on the CPU, in the arena's type.
  std::function<void(const std::string& name, const at::Tensor& whole)> tensor;
};
/// Puts the parameters in a kept arena (master weights, a moment, the average) together on rank 0 of the mesh and calls
/// `visitor` there, one tensor at a time, so that rank 0 needs memory for the largest one only. Every rank calls it; the
/// visitor of other ranks is not used.
/// Errors    what the visitor throws is thrown on rank 0, and an Error with its text on every other rank.
void collect(const Layout& layout, const at::Tensor& kept_arena, comm::Mesh& mesh,
             const CollectVisitor& visitor);

}  // namespace vitrail::parallel
