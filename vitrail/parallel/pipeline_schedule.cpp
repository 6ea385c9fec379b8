#include "vitrail/parallel/pipeline_schedule.h"

#include <algorithm>

#include "vitrail/core/error.h"

namespace vitrail::parallel {
namespace {

/// The k-th forward of a rank: R micro-batches through part 0, the same through part 1, and so on, then the next R.
Action forward_of(int k, int ranks, int parts) {
  const int group = k / (ranks * parts), within = k % (ranks * parts);
  return {false, within / ranks, group * ranks + within % ranks};
}

/// The k-th backward: the same, from the last part to the first.
Action backward_of(int k, int ranks, int parts) {
  const Action mirrored = forward_of(k, ranks, parts);
  return {true, parts - 1 - mirrored.part, mirrored.micro_batch};
}

/// Forwards before the first backward.
int warm_up(ScheduleKind kind, int ranks, int rank, int parts, int total) {
  if (kind == ScheduleKind::gpipe) return total;
  // Until the first backward reaches this rank the later ones run ranks - 1 - rank forwards more, and with parts as many
  // again on the way back, besides all earlier parts of the group.
  const int behind = ranks - 1 - rank;
  return std::min(total, parts == 1 ? behind : 2 * behind + (parts - 1) * ranks);
}

}  // namespace

std::vector<Action> schedule(ScheduleKind kind, int ranks, int rank, int parts, int micro_batches) {
  VT_CHECK(parts == 1 || (kind == ScheduleKind::interleaved && micro_batches % ranks == 0),
           "[pipeline] several parts a rank need the interleaved schedule and a multiple of {} "
           "micro-batches but there are {}",
           ranks, micro_batches);
  // With one part forwards simply follow each other; groups would ask for a multiple of the ranks.
  const int group = parts == 1 ? 1 : ranks;
  const int total = parts * micro_batches, ahead = warm_up(kind, ranks, rank, parts, total);
  std::vector<Action> actions;
  for (int k = 0; k < total + ahead; ++k) {
    if (k < total) actions.push_back(forward_of(k, group, parts));
    if (k >= ahead) actions.push_back(backward_of(k - ahead, group, parts));
  }
  return actions;
}

double bubble_share(int ranks, int parts, int micro_batches) {
  return (ranks - 1.0) / (static_cast<double>(parts) * micro_batches + ranks - 1.0);
}

}  // namespace vitrail::parallel
