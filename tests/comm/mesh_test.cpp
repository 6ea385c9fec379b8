#include "vitrail/comm/mesh.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "vitrail/core/error.h"

namespace vitrail::comm {
namespace {

using core::ConfigError;
using testing::AllOf;
using testing::HasSubstr;
using testing::ThrowsMessage;

constexpr Axis kAxes[] = {Axis::replicate, Axis::shard, Axis::pipeline, Axis::sequence,
                          Axis::tensor};

std::string refusal(int ranks, const MeshShape& shape) {
  std::string message = "accepted";
  run_thread_group(ranks, [&](Communicator& world) {
    try {
      Mesh(world, shape);
    } catch (const ConfigError& error) {
      if (world.rank() == 0) message = error.what();
    }
  });
  return message;
}

TEST(Mesh, NamesEveryFactorOfAWrongProduct) {
  EXPECT_EQ(refusal(6, {2, 2, 1, 1, 2}),
            "[mesh] replicate*shard*pipeline*sequence*tensor must equal the number of ranks but "
            "got 2*2*1*1*2 = 8 for 6 "
            "ranks");
  EXPECT_THAT(refusal(6, {-1, 4, 1, 1, 1}),
              AllOf(HasSubstr("-1*4*1*1*1"), HasSubstr("4, which does not divide 6 ranks")));
  EXPECT_THAT(refusal(2, {-1, -1, 1, 1, 1}),
              HasSubstr("only one axis may be -1 but replicate and shard are"));
  EXPECT_THAT(refusal(2, {2, 0, 1, 1, 1}),
              HasSubstr("shard must be at least 1, or -1 for what is left, but got 0"));
  EXPECT_THAT(refusal(1, {int64_t{1} << 31, int64_t{1} << 31, int64_t{1} << 31, 1, 1}),
              HasSubstr("for 1 ranks"));
}

TEST(Mesh, GivesWhatIsLeftToTheOpenAxis) {
  run_thread_group(8, [](Communicator& world) {
    const Mesh mesh(world, {2, -1, 1, 1, 2});
    EXPECT_EQ(mesh.size(Axis::shard), 2);
    EXPECT_EQ(mesh.describe(),
              "replicate 2 x shard 2 x pipeline 1 x sequence 1 x tensor 2 = 8 ranks");
    EXPECT_EQ(Mesh(world, {}).size(Axis::replicate), 8);
  });
}

TEST(Mesh, TensorRanksAreNeighboursAndReplicasOutermost) {
  run_thread_group(8, [](Communicator& world) {
    const Mesh mesh(world, {2, 2, 1, 1, 2});
    EXPECT_EQ(mesh.coordinate(Axis::tensor), world.rank() % 2);
    EXPECT_EQ(mesh.coordinate(Axis::shard), world.rank() / 2 % 2);
    EXPECT_EQ(mesh.coordinate(Axis::replicate), world.rank() / 4);
    EXPECT_EQ(mesh.data_rank(), world.rank() / 2);
    EXPECT_EQ(mesh.data_size(), 4);
  });
}

struct Case {
  int ranks;
  MeshShape shape;
};
class MeshShapes : public testing::TestWithParam<Case> {};
INSTANTIATE_TEST_SUITE_P(Shapes, MeshShapes,
                         testing::Values(Case{1, {}}, Case{2, {1, 2, 1, 1, 1}},
                                         Case{6, {3, 1, 1, 2, 1}}, Case{8, {2, 2, 1, 1, 2}},
                                         Case{8, {1, 2, 2, 1, -1}}, Case{8, {2, 1, 2, 2, 1}},
                                         Case{5, {-1, 1, 1, 1, 5}}));

// Every group along every set of axes holds exactly the ranks that agree on all other axes, in the
// world's order.
TEST_P(MeshShapes, GroupsHoldTheRanksThatDifferOnlyAlongTheirAxes) {
  run_thread_group(GetParam().ranks, [](Communicator& world) {
    Mesh mesh(world, GetParam().shape);
    std::vector<int32_t> mine;
    for (const Axis axis : kAxes) mine.push_back(mesh.coordinate(axis));
    std::vector<int32_t> all(static_cast<size_t>(kAxisCount * world.size()));
    world
        .all_gather({mine.data(), kAxisCount, core::DType::i32},
                    {all.data(), kAxisCount * world.size(), core::DType::i32})
        .wait();
    const auto check = [&](Communicator& group, unsigned mask) {
      std::vector<int32_t> want;
      for (int rank = 0; rank < world.size(); ++rank) {
        bool same = true;
        for (int axis = 0; axis < kAxisCount; ++axis)
          same &= (mask >> axis & 1u) != 0 || all[static_cast<size_t>(rank * kAxisCount + axis)] ==
                                                  mine[static_cast<size_t>(axis)];
        if (same) want.push_back(rank);
      }
      ASSERT_EQ(group.size(), static_cast<int>(want.size()));
      EXPECT_EQ(want[static_cast<size_t>(group.rank())], world.rank());
      int32_t own = world.rank();
      std::vector<int32_t> got(want.size());
      group.all_gather({&own, 1, core::DType::i32}, {got.data(), group.size(), core::DType::i32})
          .wait();
      EXPECT_EQ(got, want);
    };
    for (const Axis axis : kAxes) check(mesh.along(axis), 1u << static_cast<unsigned>(axis));
    check(mesh.along({Axis::replicate, Axis::shard}), 0b00011u);
    check(mesh.along({Axis::tensor, Axis::shard}), 0b10010u);
    EXPECT_EQ(&mesh.along({Axis::shard, Axis::tensor}), &mesh.along({Axis::tensor, Axis::shard}));
    EXPECT_EQ(mesh.along({Axis::replicate, Axis::shard}).size(), mesh.data_size());
    EXPECT_EQ(mesh.along({Axis::replicate, Axis::shard}).rank(), mesh.data_rank());
  });
}

}  // namespace
}  // namespace vitrail::comm
