#include "vitrail/parallel/pipeline_schedule.h"

#include <algorithm>
#include <cstdio>
#include <deque>
#include <map>
#include <set>
#include <string>
#include <tuple>

#include <gtest/gtest.h>

#include "vitrail/core/error.h"

namespace vitrail::parallel {
namespace {

struct Setting {
  ScheduleKind kind;
  int ranks, parts, micro_batches;
  std::string name() const {
    const char* kinds[] = {"gpipe", "1f1b", "interleaved"};
    return std::string(kinds[static_cast<int>(kind)]) + " R" + std::to_string(ranks) + " V" +
           std::to_string(parts) + " M" + std::to_string(micro_batches);
  }
};

std::vector<Setting> settings() {
  std::vector<Setting> all;
  for (const int ranks : {1, 2, 3, 4, 5, 8})
    for (const int micro : {1, 2, 3, 4, 6, 8, 16, 40}) {
      all.push_back({ScheduleKind::gpipe, ranks, 1, micro});
      all.push_back({ScheduleKind::one_each, ranks, 1, micro});
      for (const int parts : {1, 2, 3})
        if (micro % ranks == 0) all.push_back({ScheduleKind::interleaved, ranks, parts, micro});
    }
  return all;
}

/// Messages on one link that a rank may have under way when it ends an action: with one, this is the strictest order that
/// a device with a single queue of work could impose.
constexpr size_t kSendsUnderWay = 1;

/// Ranks that run their actions in order: they wait for what an action reads, then for their last message on the link on
/// which it writes. Messages of a link are taken in the order in which they were sent. A forward takes 1, a backward 2.
struct Simulation {
  explicit Simulation(const Setting& setting_) : setting(setting_) {
    for (int rank = 0; rank < setting.ranks; ++rank)
      actions.push_back(
          schedule(setting.kind, setting.ranks, rank, setting.parts, setting.micro_batches));
    next.resize(actions.size());
    clock.resize(actions.size());
    busy.resize(actions.size());
    has_read.resize(actions.size());
  }

  int stages() const { return setting.ranks * setting.parts; }
  using Message = std::tuple<int, int, bool>;  // stage that reads it, micro-batch, backward
  using Link = std::tuple<int, int, bool>;     // from, to, backward

  /// False when the rank must wait.
  bool step(int rank) {
    if (next[rank] == actions[rank].size()) return false;
    const Action& action = actions[rank][next[rank]];
    const int stage = rank + action.part * setting.ranks;
    if (action.backward ? stage + 1 < stages() : stage > 0)
      if (!has_read[rank] && !read(rank, stage, action)) return false;
    has_read[rank] = true;
    const int target_stage = action.backward ? stage - 1 : stage + 1;
    const Link out{rank, (target_stage + setting.ranks) % setting.ranks, action.backward};
    const bool writes = target_stage >= 0 && target_stage < stages();
    if (writes && setting.ranks > 1 && links[out].size() >= kSendsUnderWay) return false;
    const double time = action.backward ? 2.0 : 1.0;
    clock[rank] += time, busy[rank] += time;
    const Message written{target_stage, action.micro_batch, action.backward};
    if (writes) links[out].emplace_back(written, clock[rank]);
    has_read[rank] = false;
    ++next[rank];
    return true;
  }

  bool read(int rank, int stage, const Action& action) {
    const int source = (action.backward ? stage + 1 : stage - 1 + setting.ranks) % setting.ranks;
    auto& queue = links[{source, rank, action.backward}];
    if (queue.empty()) return false;
    EXPECT_EQ(queue.front().first, (Message{stage, action.micro_batch, action.backward}))
        << "a message overtakes another";
    clock[rank] = std::max(clock[rank], queue.front().second);
    queue.pop_front();
    return true;
  }

  /// True when every rank comes to its end.
  bool run() {
    for (bool moved = true; moved;) {
      moved = false;
      for (int rank = 0; rank < setting.ranks; ++rank)
        while (step(rank)) moved = true;
    }
    for (size_t rank = 0; rank < actions.size(); ++rank)
      if (next[rank] != actions[rank].size()) return false;
    return true;
  }

  double idle_share() const {
    const double end = *std::max_element(clock.begin(), clock.end());
    return 1.0 - *std::min_element(busy.begin(), busy.end()) / end;
  }

  Setting setting;
  std::vector<std::vector<Action>> actions;
  std::vector<size_t> next;
  std::vector<double> clock, busy;
  std::vector<char> has_read;  // its present action
  std::map<Link, std::deque<std::pair<Message, double>>> links;
};

TEST(PipelineSchedule, RunsEveryMicroBatchForwardAndThenBackwardOnceInEveryPart) {
  for (const Setting& setting : settings())
    for (int rank = 0; rank < setting.ranks; ++rank) {
      SCOPED_TRACE(setting.name() + " rank " + std::to_string(rank));
      std::set<std::pair<int, int>> forward, backward;
      std::map<int, int> last_backward;
      for (const Action& action :
           schedule(setting.kind, setting.ranks, rank, setting.parts, setting.micro_batches)) {
        const std::pair key{action.part, action.micro_batch};
        EXPECT_TRUE((action.backward ? backward : forward).insert(key).second);
        if (!action.backward) continue;
        EXPECT_TRUE(forward.contains(key));
        // Gradients add up in the order of the micro-batches.
        EXPECT_EQ(action.micro_batch, last_backward[action.part]++);
      }
      const auto count = static_cast<size_t>(setting.parts * setting.micro_batches);
      EXPECT_EQ(forward.size(), count);
      EXPECT_EQ(backward.size(), count);
    }
}

TEST(PipelineSchedule, NeverWaitsForItself) {
  for (const Setting& setting : settings())
    EXPECT_TRUE(Simulation(setting).run()) << setting.name();
}

TEST(PipelineSchedule, HasNoMoreMicroBatchesUnderWayThanItsKindAllows) {
  for (const Setting& setting : settings())
    for (int rank = 0; rank < setting.ranks; ++rank) {
      int now = 0, most = 0;
      for (const Action& action :
           schedule(setting.kind, setting.ranks, rank, setting.parts, setting.micro_batches)) {
        now += action.backward ? -1 : 1;
        most = std::max(most, now);
      }
      const int total = setting.parts * setting.micro_batches, behind = setting.ranks - rank;
      const int allowed = setting.kind == ScheduleKind::gpipe ? total
                          : setting.parts == 1
                              ? behind
                              : 2 * (behind - 1) + (setting.parts - 1) * setting.ranks + 1;
      EXPECT_EQ(most, std::min(allowed, total)) << setting.name() << " rank " << rank;
    }
}

TEST(PipelineSchedule, IdlesAsLongAsTheFormulaSays) {
  for (const Setting& setting : std::vector<Setting>{{ScheduleKind::gpipe, 4, 1, 8},
                                                     {ScheduleKind::one_each, 4, 1, 8},
                                                     {ScheduleKind::one_each, 4, 1, 16},
                                                     {ScheduleKind::interleaved, 4, 2, 8},
                                                     {ScheduleKind::interleaved, 4, 3, 8},
                                                     {ScheduleKind::interleaved, 2, 2, 8}}) {
    Simulation simulation(setting);
    ASSERT_TRUE(simulation.run());
    const double formula = bubble_share(setting.ranks, setting.parts, setting.micro_batches);
    std::printf("%s: idle %.4f, formula %.4f\n", setting.name().c_str(), simulation.idle_share(),
                formula);
    EXPECT_NEAR(simulation.idle_share(), formula, 1e-9) << setting.name();
  }
}

TEST(PipelineSchedule, RefusesPartsThatItCannotFill) {
  EXPECT_THROW(schedule(ScheduleKind::interleaved, 4, 0, 2, 6), core::Error);
  EXPECT_THROW(schedule(ScheduleKind::one_each, 4, 0, 2, 8), core::Error);
}

}  // namespace
}  // namespace vitrail::parallel
