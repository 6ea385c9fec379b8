#pragma once
/// A job of N ranks played through on one: who talks to whom, what each holds.

#include <string>
#include <vector>

#include "vitrail/train/plan.h"

namespace vitrail::train {

/// The groups along some axes: every rank is in exactly one; members in group order.
struct GroupFamily {
  std::string name;  // "tensor", "data"
  std::string axes;  // "replicate x shard x sequence"
  std::vector<std::vector<int>> groups;
};

struct RankHolding {
  int rank = 0;
  std::array<int, comm::kAxisCount> coordinates{};
  int64_t parameters = 0, kept = 0;  // elements
  std::vector<std::string> units;    // names of what it computes with
};

struct Rehearsal {
  MeshSizes mesh{1, 1, 1, 1, 1};
  std::vector<GroupFamily> families;
  std::vector<RankHolding> ranks;
};

/// Builds the real mesh and the real layout of every rank. Checks that all ranks agree on each group, that every
/// parameter is held by as many ranks as the mesh says, and that the pieces of the ranks together are the whole model
/// once.
/// throws Error naming ranks and group (or parameter) when they do not.
Rehearsal rehearse(PlanSubject& subject, const config::Recipe& recipe, const MeshSizes& sizes);
/// Groups in braces as {0,2}{4,6}; long lists are cut.
std::string to_text(const Rehearsal& rehearsal);

}  // namespace vitrail::train
