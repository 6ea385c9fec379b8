#include "vitrail/train/plan_groups.h"

#include <algorithm>
#include <map>
#include <tuple>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "vitrail/core/error.h"
#include "vitrail/parallel/layout.h"

namespace vitrail::train {
namespace {

using comm::Axis;

/// A rank of a job that does not run: answers who it is and notes which groups it asks for.
class RehearsedRank final : public comm::Communicator {
 public:
  struct Asked {
    int color = 0, key = 0;
  };
  RehearsedRank(int rank, int size) : rank_(rank), size_(size) {}
  int rank() const override { return rank_; }
  int size() const override { return size_; }
  std::string backend() const override { return "rehearsal"; }
  comm::Work all_reduce(comm::Buffer, comm::Reduce, comm::Stream) override { return refuse(); }
  comm::Work all_gather(comm::Buffer, comm::Buffer, comm::Stream) override { return refuse(); }
  comm::Work reduce_scatter(comm::Buffer, comm::Buffer, comm::Reduce, comm::Stream) override {
    return refuse();
  }
  comm::Work broadcast(comm::Buffer, int, comm::Stream) override { return refuse(); }
  comm::Work all_to_all(comm::Buffer, comm::Buffer, comm::Stream) override { return refuse(); }
  comm::Work send(comm::Buffer, int, comm::Stream) override { return refuse(); }
  comm::Work receive(comm::Buffer, int, comm::Stream) override { return refuse(); }
  comm::Work send_receive(comm::Buffer, int, comm::Buffer, int, comm::Stream) override {
    return refuse();
  }
  void barrier() override { refuse(); }
  std::unique_ptr<comm::Communicator> split(int color, int key) override {
    asked.push_back({color, key});
    return std::make_unique<RehearsedRank>(0, 1);
  }
  void abort(int) noexcept override {}
  std::vector<Asked> asked;

 private:
  static comm::Work refuse() {
    core::fail<core::CommError>("[plan] a rehearsed rank cannot communicate");
  }
  int rank_, size_;
};

struct Family {
  const char* name;
  std::initializer_list<Axis> axes;
};

/// The groups that training makes, in its order.
const Family kFamilies[] = {
    {"tensor", {Axis::tensor}},       {"sequence", {Axis::sequence}},
    {"pipeline", {Axis::pipeline}},   {"shard", {Axis::shard, Axis::sequence}},
    {"replicate", {Axis::replicate}}, {"data", {Axis::replicate, Axis::shard, Axis::sequence}}};

std::string axes_text(const Family& family) {
  std::vector<std::string> names;
  for (const Axis axis : family.axes) names.emplace_back(comm::name(axis));
  return fmt::format("{}", fmt::join(names, " x "));
}

comm::MeshShape shape_of(const MeshSizes& sizes) {
  return {.replicate = sizes[0],
          .shard = sizes[1],
          .pipeline = sizes[2],
          .sequence = sizes[3],
          .tensor = sizes[4]};
}

int64_t members_of(const MeshSizes& sizes, const Family& family) {
  int64_t members = 1;
  for (const Axis axis : family.axes) members *= sizes[static_cast<size_t>(axis)];
  return members;
}

/// Ranks of the same color, by key: what split() would have made of what all ranks asked for.
std::vector<std::vector<int>> groups_of(const std::vector<RehearsedRank::Asked>& asked) {
  std::map<int, std::vector<std::pair<int, int>>> by_color;
  for (size_t rank = 0; rank < asked.size(); ++rank)
    by_color[asked[rank].color].emplace_back(asked[rank].key, static_cast<int>(rank));
  std::vector<std::vector<int>> groups;
  for (auto& [color, members] : by_color) {
    std::ranges::sort(members);
    groups.emplace_back();
    for (const auto& [key, rank] : members) groups.back().push_back(rank);
  }
  return groups;
}

/// Counts how often each element of the model is kept: a multiple of the parameter's size for every replica.
class Coverage {
 public:
  void add(const parallel::Layout& layout) {
    for (const parallel::KeptRun& run : layout.kept_runs()) kept_[run.slot->name] += run.count;
    for (const parallel::Unit& unit : layout.units())
      for (const parallel::ParameterSlot& slot : unit.slots) {
        whole_[slot.name] = parallel::Box{{}, slot.whole_shape}.count();
        divided_[slot.name] = slot.placement.split != parallel::Split::none;
      }
  }
  /// `copies` of a parameter that tensor ranks divide, `copies` x tensor of one that they do not.
  void check(int64_t copies, int64_t tensor, int64_t parameters) const {
    VT_CHECK(static_cast<int64_t>(whole_.size()) == parameters,
             "[plan] the ranks together must hold the model's {} parameters but hold {}",
             parameters, whole_.size());
    for (const auto& [name, whole] : whole_) {
      const int64_t expected = whole * copies * (divided_.at(name) ? 1 : tensor);
      const auto found = kept_.find(name);
      const int64_t kept = found == kept_.end() ? 0 : found->second;
      VT_CHECK(kept == expected,
               "[plan] all ranks together must keep {} elements of {} but keep {}", expected, name,
               kept);
    }
  }

 private:
  std::map<std::string, int64_t> kept_, whole_;
  std::map<std::string, bool> divided_;
};

/// Copies of a kept element over the data ranks.
int64_t copies_of(const config::Recipe& recipe, const MeshSizes& sizes) {
  const int64_t replicate = sizes[0], inner = int64_t{sizes[1]} * sizes[3];
  const std::string& strategy = recipe.parallel.strategy.value;
  if (strategy == "none" || strategy == "ddp") return replicate * inner;
  return recipe.parallel.shard_optimizer == "all" ? 1 : replicate;
}

}  // namespace

Rehearsal rehearse(PlanSubject& subject, const config::Recipe& given, const MeshSizes& sizes) {
  const config::Recipe recipe = with_mesh(given, sizes);
  int size = 1;
  for (const int one : sizes) size *= one;
  Rehearsal result{.mesh = sizes};
  std::vector<std::vector<RehearsedRank::Asked>> asked(std::size(kFamilies));
  Coverage coverage;
  for (int rank = 0; rank < size; ++rank) {
    RehearsedRank world(rank, size);
    comm::Mesh mesh(world, shape_of(sizes));
    for (const Family& family : kFamilies) mesh.along(family.axes);
    VT_CHECK(world.asked.size() == std::size(kFamilies),
             "[plan] rank {} must ask for {} groups but asks for {}", rank, std::size(kFamilies),
             world.asked.size());
    for (size_t f = 0; f < asked.size(); ++f) asked[f].push_back(world.asked[f]);
    parallel::MeshPlace place{sizes, {}};
    RankHolding holding{.rank = rank};
    for (int axis = 0; axis < comm::kAxisCount; ++axis)
      place.coordinates[static_cast<size_t>(axis)] = mesh.coordinate(static_cast<Axis>(axis));
    holding.coordinates = place.coordinates;
    const parallel::Layout layout(subject.model(),
                                  parallel::layout_options(subject.model(), recipe, place));
    holding.parameters = layout.parameter_count(), holding.kept = layout.kept_count();
    for (const parallel::Unit& unit : layout.units()) holding.units.push_back(unit.name);
    coverage.add(layout);
    result.ranks.push_back(std::move(holding));
  }
  for (size_t f = 0; f < asked.size(); ++f) {
    GroupFamily family{kFamilies[f].name, axes_text(kFamilies[f]), groups_of(asked[f])};
    const int64_t members = members_of(sizes, kFamilies[f]);
    for (const std::vector<int>& group : family.groups)
      VT_CHECK(static_cast<int64_t>(group.size()) == members,
               "[plan] groups of {} must have {} ranks but one is {{{}}}", family.name, members,
               fmt::join(group, ","));
    result.families.push_back(std::move(family));
  }
  coverage.check(copies_of(recipe, sizes), sizes[4],
                 static_cast<int64_t>(subject.model().named_parameters().size()));
  return result;
}

std::string to_text(const Rehearsal& rehearsal) {
  constexpr size_t kShown = 8;
  std::string text =
      fmt::format("{} ranks, each with its layout; groups agree\n", rehearsal.ranks.size());
  for (const GroupFamily& family : rehearsal.families) {
    text += fmt::format("  {:<10}{:>5} of {:<6}", family.name, family.groups.size(),
                        family.groups.front().size());
    for (size_t g = 0; g < std::min(kShown, family.groups.size()); ++g) {
      const std::vector<int>& group = family.groups[g];
      const size_t shown = std::min(kShown, group.size());
      text += fmt::format(
          "{{{}{}}}",
          fmt::join(group.begin(), group.begin() + static_cast<std::ptrdiff_t>(shown), ","),
          group.size() > shown ? ",..." : "");
    }
    text += fmt::format("{}  along {}\n", family.groups.size() > kShown ? " ..." : "", family.axes);
  }
  const auto [least, most] = std::ranges::minmax_element(rehearsal.ranks, {}, &RankHolding::kept);
  text +=
      fmt::format("  parameters kept by a rank, padding included: {} (rank {}) to {} (rank {})\n",
                  least->kept, least->rank, most->kept, most->rank);
  text += "  rank: replicate shard pipeline sequence tensor; computes with; keeps; units\n";
  for (size_t r = 0; r < std::min(kShown, rehearsal.ranks.size()); ++r) {
    const RankHolding& one = rehearsal.ranks[r];
    text += fmt::format("  {:>4}: {}; {}; {}; {}\n", one.rank, fmt::join(one.coordinates, " "),
                        one.parameters, one.kept,
                        one.units.empty() ? "none"
                                          : fmt::format("{} ({} ... {})", one.units.size(),
                                                        one.units.back(), one.units.front()));
  }
  return text;
}

}  // namespace vitrail::train
