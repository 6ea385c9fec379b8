#pragma once
/// What the word parallel.strategy means for a rank.

#include "vitrail/config/recipe.h"
#include "vitrail/parallel/layout.h"

namespace vitrail::parallel {

struct MeshPlace;

struct Strategy {
  Sharding sharding;
  bool weights_in_slots = false, gradients_in_slots = false;  // of blocks (unit.h)
};

Strategy strategy_of(const config::Parallel& options, const MeshPlace& place);

}  // namespace vitrail::parallel
