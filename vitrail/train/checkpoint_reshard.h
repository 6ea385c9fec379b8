#pragma once
/// A checkpoint written again as other ranks would have saved it, without a model in memory and without those ranks.

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "vitrail/config/recipe.h"
#include "vitrail/train/checkpoint.h"

namespace vitrail::train {

/// What each of some ranks would keep, without data.
struct RankPlan {
  int ranks = 1;
  std::function<std::vector<StatePiece>(int rank)> pieces;
};
/// Every rank holds everything and writes an equal share: ddp.
RankPlan undivided_plan(const CheckpointReader& checkpoint, int ranks);
/// The layout that a recipe gives `ranks` ranks; 0: as many as its axes multiply to, with one replica.
/// throws ConfigError for a shard axis that is left open while `ranks` is 0.
RankPlan plan_of(const CheckpointReader& checkpoint, const config::Recipe& recipe, int ranks);

struct Resharded {
  std::string path;  // <output>/step-N
  int64_t files = 0;
  int64_t bytes = 0;
};
/// Writes the checkpoint at `path` into `output`, one file for each rank of the plan. Every byte that is read is checked;
/// memory is that of a block of one tensor. The folder appears whole or not at all.
Resharded reshard_checkpoint(const CheckpointReader& checkpoint, const std::string& output,
                             const RankPlan& plan);

}  // namespace vitrail::train
