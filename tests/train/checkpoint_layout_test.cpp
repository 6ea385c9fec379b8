// Saved by one layout, loaded by another: every element, and not a block more than is needed.

#include <array>
#include <map>
#include <mutex>
#include <set>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/zeros.h>

#include "checkpoint_sample.h"
#include "tests/parallel/random_layout.h"
#include "vitrail/core/checksum.h"
#include "vitrail/train/checkpoint_manifest.h"
#include "vitrail/train/checkpoint_reshard.h"

namespace vitrail::train {

namespace {

using namespace vitrail::testing;
using ::testing::HasSubstr;

const std::vector<std::string> kKinds{"", "exp_avg/", "ema/"};

/// Bits that tell kind, parameter and element apart.
float value_of(const std::string& name, int64_t index) {
  const uint32_t bits = core::draw({5}, std::hash<std::string>{}(name),
                                   static_cast<uint32_t>(index)) &
                        0x3FFFFFFF;  // no NaN, so that == compares
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

/// One rank's state under a layout.
struct RankState {
  RankState(const std::vector<RandomParameter>& parameters, const RandomMesh& shape,
            const parallel::MeshPlace& place)
      : model(parameters),
        layout(model, vitrail::testing::layout_options(parameters, shape, place)) {
    for (const std::string& kind : kKinds) {
      arenas.push_back(at::zeros({layout.kept_count()}));
      for (const parallel::KeptPiece& piece : parallel::kept_pieces(layout, place))
        pieces.push_back(
            {kind + piece.slot->name, piece.slot->whole_shape, core::DType::f32, piece.range,
             arenas.back().narrow(0, piece.kept_offset, piece.range.count), piece.copies});
    }
  }
  void fill() const {
    for (const StatePiece& piece : pieces)
      for (int64_t i = 0; i < piece.range.count; ++i)
        piece.data.data_ptr<float>()[i] =
            value_of(piece.name, whole_index(piece.range, piece.whole_shape, i));
  }
  /// Elements that are not as saved, of every `step`-th.
  int64_t wrong(int64_t step = 1) const {
    int64_t count = 0;
    for (const StatePiece& piece : pieces)
      for (int64_t i = 0; i < piece.range.count; i += step)
        count += piece.data.const_data_ptr<float>()[i] !=
                 value_of(piece.name, whole_index(piece.range, piece.whole_shape, i));
    return count;
  }
  int64_t bytes() const {
    int64_t count = 0;
    for (const StatePiece& piece : pieces) count += piece.range.count * 4;
    return count;
  }

  RandomModel model;
  parallel::Layout layout;
  std::vector<at::Tensor> arenas;
  std::vector<StatePiece> pieces;
};

void save_as(const std::string& folder, const std::vector<RandomParameter>& parameters,
             const RandomMesh& shape) {
  comm::run_thread_group(shape.ranks(), [&](comm::Communicator& world) {
    comm::Mesh mesh(world, shape.shape());
    const RankState state(parameters, shape, parallel::place_of(mesh));
    state.fill();
    CheckpointWriter writer(world, {.folder = folder, .keep = 0, .async = false});
    writer.save(state.pieces, sample_info(1));
  });
}

/// Bytes of the blocks in which a piece's elements lie: what a reader cannot do without. Slow and plain.
int64_t needed_bytes(const Manifest& manifest, const std::vector<StatePiece>& pieces) {
  std::map<std::string, std::set<int64_t>> wanted;
  for (const StatePiece& piece : pieces)
    for (int64_t i = 0; i < piece.range.count; ++i)
      wanted[piece.name].insert(whole_index(piece.range, piece.whole_shape, i));
  int64_t bytes = 0;
  for (const auto& [name, elements] : wanted) {
    const TensorEntry& entry = manifest.tensors.at(name);
    for (const Region& region : entry.regions) {
      const parallel::BoxRange range{entry.boxes[static_cast<size_t>(region.box)], region.start,
                                     region.count};
      std::set<int64_t> blocks;
      for (int64_t i = 0; i < region.count; ++i)
        if (elements.contains(whole_index(range, entry.shape, i)))
          blocks.insert(i * 4 / region.block_bytes());
      for (const int64_t block : blocks)
        bytes += std::min(region.block_bytes(), region.bytes - block * region.block_bytes());
    }
  }
  return bytes;
}

TEST(CheckpointLayouts, WhatAnyLayoutSavedAnyOtherLoads) {
  constexpr uint32_t kCases = 320;
  int64_t elements = 0, boxes = 0;
  std::set<std::string> meshes;
  for (uint32_t round = 0; round < kCases; ++round) {
    Random random(round);
    const auto parameters = random_parameters(random);
    const RandomMesh from = random_mesh(random, 8), to = random_mesh(random, 8);
    meshes.insert(from.text()), meshes.insert(to.text());
    const TemporaryFolder folder;
    save_as(folder.path(), parameters, from);
    ASSERT_EQ(why_invalid(folder / "step-00000001", true), "") << from.text();
    std::mutex mutex;
    comm::run_thread_group(to.ranks(), [&](comm::Communicator& world) {
      comm::Mesh mesh(world, to.shape());
      const RankState state(parameters, to, parallel::place_of(mesh));
      const CheckpointReader reader(folder / "step-00000001");
      reader.load(state.pieces, world);
      const std::lock_guard lock(mutex);
      EXPECT_EQ(state.wrong(), 0) << from.text() << "to " << to.text();
      if (round < 40) {
        EXPECT_EQ(reader.bytes_read(), needed_bytes(reader.manifest(), state.pieces))
            << from.text() << "to " << to.text();
      }
      elements += state.bytes() / 4;
      if (world.rank() == 0)
        for (const auto& [name, entry] : reader.manifest().tensors)
          boxes += static_cast<int64_t>(entry.boxes.size()) - 1;
    });
    if (HasFailure()) return;
  }
  EXPECT_GT(boxes, 0);
  std::printf("%u pairs of %zu layouts, %ld elements right\n", kCases, meshes.size(), elements);
}

/// Larger than a block in every layout.
std::vector<RandomParameter> large_parameters() {
  using parallel::Placement;
  using parallel::Split;
  return {{"u0.qkv", {3 * 512, 1024}, Placement{.split = Split::rows, .sections = {512, 512, 512}}},
          {"u0.proj", {1024, 1024}, Placement{.split = Split::columns}},
          {"u1.table", {999, 1001}, Placement{}, 1}};
}

const RandomMesh kDdp2{{2, 1, 1, 1, 1}, false, false}, kZero4{{1, 4, 1, 1, 1}, true, false},
    kHybrid{{2, 2, 1, 1, 1}, true, false}, kTensor{{1, 2, 1, 1, 2}, true, false},
    kPipeline{{1, 2, 2, 1, 1}, true, false}, kAll{{2, 2, 1, 1, 1}, true, true};

TEST(CheckpointLayouts, ARankReadsOnlyWhatItKeepsAndTheBlocksAroundIt) {
  const auto parameters = large_parameters();
  double worst_even = 0, worst_columns = 0;
  for (const RandomMesh& from : {kDdp2, kZero4, kTensor}) {
    const TemporaryFolder folder;
    save_as(folder.path(), parameters, from);
    for (const RandomMesh& to : {kDdp2, kZero4, kHybrid, kTensor, kPipeline, kAll}) {
      comm::run_thread_group(to.ranks(), [&](comm::Communicator& world) {
        comm::Mesh mesh(world, to.shape());
        const RankState state(parameters, to, parallel::place_of(mesh));
        const CheckpointReader reader(folder / "step-00000001");
        reader.load(state.pieces, world);
        EXPECT_EQ(state.wrong(13), 0);
        const double ratio =
            static_cast<double>(reader.bytes_read()) / static_cast<double>(state.bytes());
        const double most = comm::max(world, ratio);
        if (world.rank() != 0) return;
        double& worst = to.sizes[4] != from.sizes[4] ? worst_columns : worst_even;
        worst = std::max(worst, most);
      });
    }
  }
  std::printf("bytes read over bytes kept: at most %.3f; %.3f where the tensor ranks change\n",
              worst_even, worst_columns);
  // Each run that a rank keeps begins and ends in a block of 1 MiB: here runs have 1 to 4 MiB.
  EXPECT_LE(worst_even, 2.0);
  // Half of each row of `proj`: all of its blocks.
  EXPECT_LE(worst_columns, 2.5);
}

TEST(CheckpointLayouts, AFlippedBitInWhatIsReadIsFoundAndNamedOnEveryRank) {
  const auto parameters = large_parameters();
  const TemporaryFolder folder;
  save_as(folder.path(), parameters, kZero4);
  int64_t found = 0, unread = 0;
  Random random(3);
  for (int flips = 0; flips < 16; ++flips) {
    const std::string file = fmt::format("rank-{:05}.safetensors", random(4));
    const std::string path = folder / ("step-00000001/" + file);
    const auto size = static_cast<int64_t>(std::filesystem::file_size(path));
    const auto offset = static_cast<size_t>(2000 + random(size - 2000));
    const auto bit = static_cast<int>(random(8));
    flip(path, offset, bit);
    EXPECT_THAT(why_invalid(folder / "step-00000001", true), HasSubstr(file));
    comm::run_thread_group(2, [&](comm::Communicator& world) {
      const RandomMesh shape{{1, 1, 1, 1, 2}, false, false};
      comm::Mesh mesh(world, shape.shape());
      const RankState state(parameters, shape, parallel::place_of(mesh));
      const CheckpointReader reader(folder / "step-00000001");
      const std::string error = checkpoint_error([&] { reader.load(state.pieces, world); });
      EXPECT_THAT(error, ::testing::AllOf(HasSubstr(file), HasSubstr("tensor "),
                                          HasSubstr("the file is damaged"), HasSubstr("(rank ")));
      if (world.rank() == 0) ++found;
    });
    // A rank that needs another file does not meet the damage.
    const CheckpointReader reader(folder / "step-00000001");
    for (const std::string& name : reader.names())
      unread += checkpoint_error([&] { reader.read(name); }).empty();
    flip(path, offset, bit);
  }
  EXPECT_GT(unread, 0);
  EXPECT_EQ(why_invalid(folder / "step-00000001", true), "");
  std::printf("%ld flipped bits, all found by partial reads\n", found);
}

TEST(CheckpointLayouts, NamesThatAnyRankHasMustBeThoseOfTheCheckpoint) {
  const TemporaryFolder folder;
  auto parameters = large_parameters();
  save_as(folder.path(), parameters, kPipeline);
  const auto error_of = [&](const std::vector<RandomParameter>& run, const RandomMesh& shape) {
    std::set<std::string> errors;
    std::mutex mutex;
    comm::run_thread_group(shape.ranks(), [&](comm::Communicator& world) {
      comm::Mesh mesh(world, shape.shape());
      const RankState state(run, shape, parallel::place_of(mesh));
      const std::string error = checkpoint_error(
          [&] { CheckpointReader(folder / "step-00000001").load(state.pieces, world); });
      const std::lock_guard lock(mutex);
      errors.insert(error);
    });
    EXPECT_EQ(errors.size(), 1u) << "the same on every rank";
    return *errors.begin();
  };
  EXPECT_EQ(error_of(parameters, kPipeline), "");
  auto fewer = parameters;
  fewer.pop_back();
  EXPECT_THAT(error_of(fewer, kTensor), HasSubstr("u1.table [999, 1001] is not in this run"));
  auto more = parameters;
  more.push_back({"u1.head", {5, 5}, {}, 1});
  EXPECT_THAT(error_of(more, kPipeline), HasSubstr("u1.head [5, 5] is missing"));
  auto other = parameters;
  other[2].shape = {999, 1000};
  EXPECT_THAT(error_of(other, kPipeline),
              HasSubstr("u1.table must have shape [999, 1000] but got [999, 1001]"));
}

TEST(CheckpointLayouts, CopiesThatDisagreeAreRefusedBeforeAnythingIsWritten) {
  const TemporaryFolder folder;
  comm::run_thread_group(2, [&](comm::Communicator& world) {
    const auto parameters = large_parameters();
    comm::Mesh mesh(world, kDdp2.shape());
    RankState state(parameters, kDdp2, parallel::place_of(mesh));
    if (world.rank() == 1)
      state.pieces[0].range.count -= 1,
          state.pieces[0].data = state.pieces[0].data.narrow(0, 0, state.pieces[0].range.count);
    CheckpointWriter writer(world, {.folder = folder.path(), .async = false});
    EXPECT_THAT(checkpoint_error([&] { writer.save(state.pieces, sample_info(1)); }),
                HasSubstr("rank 1 differs from rank 0"));
  });
  EXPECT_TRUE(names_in(folder.path()).empty());
}

TEST(CheckpointLayouts, ALayoutThatLeavesElementsOutIsRefused) {
  const TemporaryFolder folder;
  comm::run_thread_group(4, [&](comm::Communicator& world) {
    const auto parameters = large_parameters();
    comm::Mesh mesh(world, kZero4.shape());
    RankState state(parameters, kZero4, parallel::place_of(mesh));
    if (world.rank() == 2) state.pieces.erase(state.pieces.begin());
    CheckpointWriter writer(world, {.folder = folder.path(), .async = false});
    EXPECT_THAT(checkpoint_error([&] { writer.save(state.pieces, sample_info(1)); }),
                HasSubstr("(a hole)"));
  });
  EXPECT_TRUE(names_in(folder.path()).empty());
}

TEST(CheckpointReshard, KeepsEveryBitInAnyNumberOfFiles) {
  const TemporaryFolder folder;
  for (uint32_t round = 0; round < 20; ++round) {
    Random random(500 + round);
    const auto parameters = random_parameters(random);
    const std::string from = folder / ("from" + std::to_string(round));
    save_as(from, parameters, random_mesh(random, 8));
    const CheckpointReader reader(from + "/step-00000001");
    const int ranks = static_cast<int>(random.between(1, 9));
    const Resharded done = reshard_checkpoint(reader, folder / ("to" + std::to_string(round)),
                                              undivided_plan(reader, ranks));
    EXPECT_EQ(done.files, ranks);
    EXPECT_EQ(why_invalid(done.path, true), "");
    const CheckpointReader again(done.path);
    EXPECT_EQ(again.info().created_utc, reader.info().created_utc);
    for (const TensorDifference& tensor : compare_checkpoints(reader, again))
      EXPECT_TRUE(tensor.note.empty() && tensor.max_difference == 0) << tensor.name;
    EXPECT_EQ(names_in(folder / ("to" + std::to_string(round))).size(), 1u);
  }
}

TEST(CheckpointReshard, TakesFormat1AndLargeTensorsAndRefusesItsOwnFolder) {
  const TemporaryFolder folder;
  const CheckpointReader golden(VITRAIL_SOURCE "/tests/golden/checkpoint_v1/step-00000003");
  const Resharded done = reshard_checkpoint(golden, folder / "golden", undivided_plan(golden, 3));
  const CheckpointReader again(done.path);
  EXPECT_EQ(again.names(), golden.names());
  for (const std::string& name : golden.names())
    EXPECT_TRUE(bits_equal(again.read(name), golden.read(name))) << name;
  EXPECT_THROW(reshard_checkpoint(again, folder / "golden", undivided_plan(again, 1)),
               core::ConfigError);

  save_as(folder / "large", large_parameters(), kTensor);
  const CheckpointReader large(folder / "large/step-00000001");
  const CheckpointReader whole(
      reshard_checkpoint(large, folder / "whole", undivided_plan(large, 1)).path);
  for (const std::string& name : large.names())
    EXPECT_TRUE(bits_equal(whole.read(name), large.read(name))) << name;
}

TEST(CheckpointReshard, ADamagedSourceLeavesNothingBehind) {
  const TemporaryFolder folder;
  save_as(folder / "a", large_parameters(), kZero4);
  flip(folder / "a/step-00000001/rank-00002.safetensors", 100000);
  const CheckpointReader reader(folder / "a/step-00000001");
  EXPECT_THAT(checkpoint_error(
                  [&] { reshard_checkpoint(reader, folder / "b", undivided_plan(reader, 2)); }),
              HasSubstr("rank-00002.safetensors"));
  EXPECT_TRUE(names_in(folder / "b").empty());
}

}  // namespace

}  // namespace vitrail::train
