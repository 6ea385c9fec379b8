#pragma once
/// Where every parameter of a rank lies in its flat buffers, and which slice of them it keeps. Numbers only, no memory:
/// training builds its buffers from it, `vitrail plan` counts it.
///
/// Whole       all parameters that this rank computes with, unit after unit, in the order in which backward completes
///             them. Every parameter starts at a multiple of kAlignment elements, every unit is padded so that it can be
///             cut into equal aligned slices. Gaps hold zeros and stay zero.
/// Slices      a unit of `count` elements is cut into `weights` equal slices, that the ranks of the weights' group gather;
///             each of these into kept / weights equal slices, of which a rank keeps one: master weights, gradients,
///             moments and average. Kept slices of all units lie one after another in the kept arenas.
/// Units are   elements, not bytes.

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "vitrail/kernels/flat.h"
#include "vitrail/models/model.h"
#include "vitrail/parallel/placement.h"

namespace vitrail::parallel {

/// 256 bytes of bf16 (cuBLASLt presumes it); the same in fp32, so that a layout does not depend on the precision.
constexpr int64_t kAlignment = 128;
static_assert(kAlignment == kernels::kFlagGroup);

/// How units are cut. 1 and 1: every rank keeps everything (none, ddp).
struct Sharding {
  int weights = 1, weights_index = 0;  // slices of a unit's weights, this rank's
  int kept = 1, kept_index = 0;        // of each such slice: pieces, this rank's
  int pieces() const { return weights * kept; }
};

struct ParameterSlot {
  std::string name;
  std::vector<int64_t> whole_shape;  // of the model
  std::vector<int64_t> shape;        // of this rank's part
  Placement placement;
  int64_t offset = 0;  // from the start of the whole arena
  int64_t count = 0;
  bool decay = false;
};

struct Unit {
  std::string name;
  nn::Stack* stack = nullptr;  // null for ends
  int block = -1;
  int64_t offset = 0, count = 0;            // in the whole arena, padding included
  int64_t kept_offset = 0, kept_count = 0;  // in the kept arenas
  std::vector<ParameterSlot> slots;         // parameters whose gradients are partial come first
  int64_t partial_count = 0;  // elements from `offset` on that hold those, padding included
};

/// A run of a parameter's elements that this rank keeps.
struct KeptRun {
  const ParameterSlot* slot = nullptr;
  int64_t start = 0;        // in the rank's local tensor, row-major
  int64_t kept_offset = 0;  // in the kept arenas, a multiple of kAlignment
  int64_t count = 0;
};

struct LayoutOptions {
  Sharding sharding;
  PlacementTable placement;  // empty: every parameter whole
  std::function<bool(const models::UnitSpec& unit)>
      is_held;  // empty: all; else the units of this pipeline stage
};

class Layout {
 public:
  /// The model may have shapes only (models::make_model_shapes).
  Layout(models::Model& model, const LayoutOptions& options);

  const std::vector<Unit>& units() const { return units_; }
  const Sharding& sharding() const { return sharding_; }
  int64_t count() const { return count_; }            // of the whole arena
  int64_t kept_count() const { return kept_count_; }  // of a kept arena
  /// Elements of this rank's parameters, without padding.
  int64_t parameter_count() const;
  /// Offset in the whole arena of the first element that this rank keeps of a unit.
  int64_t first_kept(const Unit& unit) const;
  /// Everything this rank keeps, in the order of the kept arenas.
  std::vector<KeptRun> kept_runs() const;

 private:
  std::vector<Unit> units_;
  Sharding sharding_;
  int64_t count_ = 0, kept_count_ = 0;
};

}  // namespace vitrail::parallel
