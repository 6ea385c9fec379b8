#pragma once
/// In which order a rank of a pipeline runs its micro-batches. Numbers only.
///
/// Stages    rank r of R holds the stages r, r + R, r + 2R ...: its parts 0, 1, 2 ...
/// Kinds     gpipe: all forward, then all backward. one_each (1F1B): at most R - r micro-batches are under way on rank r.
///           interleaved: 1F1B over all parts, in groups of R micro-batches; R divides their number.

#include <vector>

namespace vitrail::parallel {

enum class ScheduleKind { gpipe, one_each, interleaved };

struct Action {
  bool backward = false;
  int part = 0;
  int micro_batch = 0;
  bool operator==(const Action&) const = default;
};

/// What rank `rank` of `ranks` does in a step. Backwards of one part run in the order of their micro-batches, so that
/// gradients add up as on one rank.
std::vector<Action> schedule(ScheduleKind kind, int ranks, int rank, int parts, int micro_batches);

/// Share of a step in which a rank idles when all stages take equally long: (R - 1) / (parts M + R - 1).
double bubble_share(int ranks, int parts, int micro_batches);

}  // namespace vitrail::parallel
