#include "vitrail/parallel/collect.h"

#include <mutex>
#include <set>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/parallel/random_layout.h"
#include "vitrail/core/error.h"

namespace vitrail::parallel {
namespace {

using namespace vitrail::testing;

MeshPlace place_in(const RandomMesh& mesh, int rank) {
  MeshPlace place{mesh.sizes, {}};
  for (size_t axis = mesh.sizes.size(); axis-- > 0;) {
    place.coordinates[axis] = rank % mesh.sizes[axis];
    rank /= mesh.sizes[axis];
  }
  return place;
}

TEST(KeptPieces, HoldEveryElementAsOftenAsTheySay) {
  int64_t elements = 0, uneven = 0;
  for (uint32_t round = 0; round < 400; ++round) {
    Random random(round);
    const auto parameters = random_parameters(random);
    const RandomMesh mesh = random_mesh(random, 16);
    RandomModel model(parameters);
    std::map<std::pair<std::string, int64_t>, std::multiset<int>> answered;  // element -> indices
    std::map<std::pair<std::string, int64_t>, int> count;
    for (int rank = 0; rank < mesh.ranks(); ++rank) {
      const MeshPlace place = place_in(mesh, rank);
      const Layout layout(model, testing::layout_options(parameters, mesh, place));
      for (const KeptPiece& piece : kept_pieces(layout, place)) {
        if (piece.copies.index < 0) ++uneven;
        for (int64_t i = 0; piece.copies.index >= 0 && i < piece.range.count; ++i) {
          const std::pair key{piece.slot->name,
                              whole_index(piece.range, piece.slot->whole_shape, i)};
          answered[key].insert(piece.copies.index);
          count[key] = piece.copies.count;
        }
      }
    }
    int64_t total = 0;
    for (const auto& parameter : parameters) total += Box{{}, parameter.shape}.count();
    ASSERT_EQ(static_cast<int64_t>(answered.size()), total) << mesh.text();
    for (const auto& [key, indices] : answered) {
      ASSERT_EQ(static_cast<int>(indices.size()), count[key]) << key.first << " " << mesh.text();
      int index = 0;
      for (const int one : indices) ASSERT_EQ(one, index++) << key.first << " " << mesh.text();
    }
    elements += total;
  }
  EXPECT_GT(uneven, 0);
  std::printf("%ld elements; %ld pieces left to the first tensor rank\n", elements, uneven);
}

float value_of(const std::string& name, int64_t index) {
  return static_cast<float>(std::hash<std::string>{}(name) % 1000) +
         static_cast<float>(index) / 1024;
}

TEST(Collect, PutsEveryParameterTogetherOnRankZero) {
  for (uint32_t round = 0; round < 40; ++round) {
    Random random(1000 + round);
    const auto parameters = random_parameters(random);
    const RandomMesh shape = random_mesh(random, 8);
    std::vector<std::string> seen;
    std::vector<WholeParameter> announced;
    comm::run_thread_group(shape.ranks(), [&](comm::Communicator& world) {
      const at::NoGradGuard no_grad;
      comm::Mesh mesh(world, shape.shape());
      RandomModel model(parameters);
      const MeshPlace place = place_of(mesh);
      const Layout layout(model, testing::layout_options(parameters, shape, place));
      const at::Tensor arena = at::zeros({layout.kept_count()});
      for (const KeptPiece& piece : kept_pieces(layout, place))
        for (int64_t i = 0; i < piece.range.count; ++i)
          arena.data_ptr<float>()[piece.kept_offset + i] =
              value_of(piece.slot->name, whole_index(piece.range, piece.slot->whole_shape, i));
      collect(layout, arena, mesh,
              {[&](const std::vector<WholeParameter>& all) { announced = all; },
               [&](const std::string& name, const at::Tensor& whole) {
                 seen.push_back(name);
                 EXPECT_EQ(world.rank(), 0);
                 for (int64_t i = 0; i < whole.numel(); ++i)
                   ASSERT_EQ(whole.const_data_ptr<float>()[i], value_of(name, i))
                       << name << " " << shape.text();
               }});
    });
    ASSERT_EQ(seen.size(), parameters.size()) << shape.text();
    ASSERT_EQ(announced.size(), parameters.size());
    for (size_t i = 0; i < seen.size(); ++i) EXPECT_EQ(announced[i].name, seen[i]);
    EXPECT_TRUE(std::is_sorted(seen.begin(), seen.end()));
  }
}

TEST(Collect, AFailureOfTheVisitorIsThrownOnEveryRank) {
  Random random(5);
  const auto parameters = random_parameters(random);
  comm::run_thread_group(4, [&](comm::Communicator& world) {
    comm::Mesh mesh(world, {.replicate = 1, .shard = 4});
    RandomModel model(parameters);
    const RandomMesh shape{{1, 4, 1, 1, 1}, true, false};
    const Layout layout(model, testing::layout_options(parameters, shape, place_of(mesh)));
    const at::Tensor arena = at::zeros({layout.kept_count()});
    std::string text;
    try {
      collect(layout, arena, mesh, {{}, [&](const std::string&, const at::Tensor&) {
                                      core::fail<core::Error>("[weights] x: disk full");
                                    }});
    } catch (const core::Error& error) {
      text = error.what();
    }
    EXPECT_THAT(text, ::testing::HasSubstr("disk full"));
    EXPECT_EQ(comm::sum(world, 1.0), 4.0);  // the group still works
  });
}

}  // namespace
}  // namespace vitrail::parallel
