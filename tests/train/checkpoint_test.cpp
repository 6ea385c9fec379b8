#include "vitrail/train/checkpoint.h"

#include <atomic>
#include <map>

#include <ATen/ops/zeros.h>

#include "checkpoint_sample.h"
#include "vitrail/io/safetensors.h"
#include "vitrail/train/checkpoint_export.h"
#include "vitrail/train/checkpoint_files.h"
#include "vitrail/train/checkpoint_manifest.h"
#include "vitrail/train/checkpoint_tensor.h"

namespace vitrail::train {

namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(EvenShare, CoversEveryElementOnceInNearlyEqualBytes) {
  const auto state = sample_state(1);
  int64_t total = 0;
  for (const auto& tensor : state) total += static_cast<int64_t>(tensor.tensor.nbytes());
  for (int size : {1, 2, 3, 4, 7, 1000}) {
    std::vector<std::vector<int>> seen;
    for (const auto& tensor : state) seen.emplace_back(tensor.tensor.numel(), 0);
    for (int rank = 0; rank < size; ++rank) {
      int64_t bytes = 0;
      for (const Share& share : even_share(whole_pieces(state, {size, rank}))) {
        bytes += share.bytes;
        for (int64_t i = 0; i < share.count; ++i) ++seen[share.piece][share.start + i];
      }
      EXPECT_LE(std::abs(bytes - total / size), 8) << "one element at either end";
    }
    for (const auto& counts : seen)
      EXPECT_TRUE(std::all_of(counts.begin(), counts.end(), [](int n) { return n == 1; }));
  }
}

TEST(Checkpoint, LoadsBitEqualOnAnyNumberOfRanks) {
  const auto saved = sample_state(1);
  for (int writers : {1, 2, 3, 4}) {
    const TemporaryFolder folder;
    save_once(folder.path(), writers, 10, saved);
    EXPECT_THAT(names_in(folder / "step-00000010"), ::testing::SizeIs(writers + 1));
    for (int readers : {1, 2, 3, 5}) {
      comm::run_thread_group(readers, [&](comm::Communicator& group) {
        const Newest newest = resolve_resume("auto", folder.path(), group);
        ASSERT_EQ(newest.path, folder / "step-00000010");
        EXPECT_TRUE(newest.skipped.empty());
        const CheckpointReader reader(newest.path);
        auto loaded = sample_state(2);
        reader.load(loaded);
        expect_same(saved, loaded);
      });
    }
  }
}

TEST(Checkpoint, KeepsEveryCounter) {
  const TemporaryFolder folder;
  save_once(folder.path(), 2, 123456789012, sample_state(1));
  const CheckpointReader reader(folder / "step-123456789012");
  const CheckpointInfo &info = reader.info(), expected = sample_info(123456789012);
  EXPECT_EQ(info.step, expected.step);
  EXPECT_EQ(info.update_count, expected.update_count);
  EXPECT_EQ(info.skipped_updates, expected.skipped_updates);
  EXPECT_EQ(info.loader.epoch, 3);
  EXPECT_EQ(info.loader.batch, 7);
  EXPECT_EQ(info.seed, expected.seed);
  EXPECT_EQ(info.wall_seconds, expected.wall_seconds);
  EXPECT_EQ(info.mesh, expected.mesh);
  EXPECT_EQ(info.recipe, expected.recipe);
  EXPECT_EQ(info.program, expected.program);
  EXPECT_THAT(info.created_utc, ::testing::MatchesRegex("20..-..-..T..:..:..Z"));
}

TEST(Checkpoint, AsynchronousSaveHoldsTheStateOfTheMomentOfTheCall) {
  const TemporaryFolder folder;
  comm::run_thread_group(3, [&](comm::Communicator& group) {
    std::atomic<bool> go{false};
    CheckpointWriter writer(
        group, {.folder = folder.path(),
                .keep = 0,
                .async = true,
                .before_operation = [&](std::string_view operation, const std::string&) {
                  while (operation == "write" && !go) std::this_thread::yield();
                }});
    auto state = sample_state(1);
    writer.save(state, sample_info(10));
    EXPECT_TRUE(writer.busy());
    for (size_t i = 0; i < state.size(); ++i) fill(state[i].tensor, 2, i + 1);  // training goes on
    go = true;
    writer.save(state, sample_info(20));  // waits for the first
    EXPECT_EQ(writer.last().step, 10);
    writer.finish();
    EXPECT_EQ(writer.last().path, folder / "step-00000020");
    EXPECT_GT(writer.last().bytes, 0);
  });
  for (int64_t step : {10, 20}) {
    auto loaded = sample_state(3);
    CheckpointReader(folder.path() + "/step-000000" + std::to_string(step)).load(loaded);
    expect_same(sample_state(step == 10 ? 1 : 2), loaded);
  }
}

TEST(Checkpoint, SavingAStepAgainReplacesIt) {
  const TemporaryFolder folder;
  save_once(folder.path(), 3, 10, sample_state(1));
  save_once(folder.path(), 2, 10, sample_state(2));
  EXPECT_THAT(names_in(folder.path()), ElementsAre("step-00000010"));
  EXPECT_THAT(names_in(folder / "step-00000010"),
              ElementsAre("manifest.json", "rank-00000.safetensors", "rank-00001.safetensors"));
  auto loaded = sample_state(3);
  CheckpointReader(folder / "step-00000010").load(loaded);
  expect_same(sample_state(2), loaded);
}

TEST(Checkpoint, ItsFilesAreSafetensorsFilesOfWholeTensorsAndNamedParts) {
  const TemporaryFolder folder;
  const auto state = sample_state(1);
  save_once(folder.path(), 3, 10, state);
  std::map<std::string, std::string> bytes;
  int parts = 0;
  for (int rank = 0; rank < 3; ++rank) {
    const auto file = io::SafetensorsFile::open(
        folder / fmt::format("step-00000010/rank-{:05}.safetensors", rank));
    EXPECT_EQ(file.metadata().at("vitrail_step"), "10");
    for (const std::string& name : file.names()) {
      const auto piece = file.bytes(name);
      const std::string whole = name.substr(0, name.find('['));
      bytes[whole].append(reinterpret_cast<const char*>(piece.data()), piece.size());
      parts += whole != name;
    }
  }
  EXPECT_GT(parts, 0);
  for (const auto& [name, tensor] : state) {
    const auto* data = static_cast<const char*>(tensor.const_data_ptr());
    EXPECT_EQ(bytes[name], std::string(data, data + tensor.nbytes())) << name;
  }
}

TEST(Checkpoint, KeepsTheNewest) {
  const TemporaryFolder folder;
  for (int64_t step : {2, 4, 6, 8}) save_once(folder.path(), 2, step, sample_state(1), /*keep=*/2);
  EXPECT_THAT(names_in(folder.path()), ElementsAre("step-00000006", "step-00000008"));
}

TEST(Checkpoint, PruningNeverTakesAnInvalidOneForAKeptOne) {
  const TemporaryFolder folder;
  for (int64_t step : {2, 4, 6}) save_once(folder.path(), 1, step, sample_state(1));
  flip(folder / "step-00000006/rank-00000.safetensors", 1000);
  EXPECT_THAT(prune_checkpoints(folder.path(), 1, /*full=*/true),
              ElementsAre(folder / "step-00000002"));
  EXPECT_THAT(names_in(folder.path()), ElementsAre("step-00000004", "step-00000006"));
  EXPECT_THROW(prune_checkpoints(folder.path(), 0, true), core::ConfigError);
}

TEST(Checkpoint, NamesWhatItSkipsAndWhy) {
  const TemporaryFolder folder;
  for (int64_t step : {2, 4, 6, 8}) save_once(folder.path(), 2, step, sample_state(1));
  flip(folder / "step-00000008/rank-00001.safetensors", 800);
  std::filesystem::resize_file(folder / "step-00000006/rank-00000.safetensors", 100);
  std::filesystem::remove(folder / "step-00000004/manifest.json");
  for (int ranks : {1, 3})
    comm::run_thread_group(ranks, [&](comm::Communicator& group) {
      const Newest newest = resolve_resume("auto", folder.path(), group);
      EXPECT_EQ(newest.path, folder / "step-00000002");
      ASSERT_EQ(newest.skipped.size(), 3u);
      EXPECT_EQ(newest.skipped[0].path, folder / "step-00000008");
      EXPECT_THAT(newest.skipped[0].reason, HasSubstr("step-00000008/rank-00001.safetensors"));
      EXPECT_THAT(newest.skipped[0].reason, HasSubstr("checksum"));
      EXPECT_THAT(newest.skipped[1].reason, HasSubstr("bytes but got 100"));
      EXPECT_THAT(newest.skipped[2].reason,
                  HasSubstr("manifest.json: cannot open it: No such file"));
    });
}

TEST(Checkpoint, ResumesAsAsked) {
  const TemporaryFolder run;
  const std::string folder = run / "checkpoints";
  for (int64_t step : {2, 4}) save_once(folder, 2, step, sample_state(1));
  comm::run_thread_group(2, [&](comm::Communicator& group) {
    EXPECT_EQ(resolve_resume("never", folder, group).path, "");
    EXPECT_EQ(resolve_resume("auto", folder, group).path, folder + "/step-00000004");
    EXPECT_EQ(resolve_resume("auto", run / "elsewhere", group).path, "");
    EXPECT_EQ(resolve_resume(run.path(), "", group).path, folder + "/step-00000004");
    EXPECT_EQ(resolve_resume(folder, "", group).path, folder + "/step-00000004");
    EXPECT_EQ(resolve_resume(folder + "/step-00000002", "", group).path, folder + "/step-00000002");
    EXPECT_THAT(checkpoint_error([&] { resolve_resume(run / "elsewhere", "", group); }),
                HasSubstr("no such folder"));
  });
  for (const char* step : {"/step-00000002", "/step-00000004"})
    flip(folder + step + "/manifest.json", 50);
  comm::run_thread_group(2, [&](comm::Communicator& group) {
    EXPECT_THAT(checkpoint_error([&] { resolve_resume("auto", folder, group); }),
                HasSubstr("none of 2 checkpoints is valid"));
    EXPECT_THAT(checkpoint_error([&] { resolve_resume(folder + "/step-00000002", "", group); }),
                HasSubstr("cut short, damaged or edited"));
  });
}

TEST(Checkpoint, ARunThatStartsAnewMovesTheOldCourseAside) {
  const TemporaryFolder folder;
  for (int64_t step : {2, 4, 6}) save_once(folder.path(), 1, step, sample_state(1));
  const auto group = comm::self_communicator();
  { const CheckpointWriter writer(*group, {.folder = folder.path(), .start_step = 4}); }
  EXPECT_THAT(names_in(folder.path()),
              ElementsAre("step-00000002", "step-00000004", "superseded-1"));
  { const CheckpointWriter writer(*group, {.folder = folder.path(), .start_step = 0}); }
  EXPECT_THAT(names_in(folder.path()), ElementsAre("superseded-1", "superseded-2"));
  EXPECT_THAT(names_in(folder / "superseded-2"), ElementsAre("step-00000002", "step-00000004"));
}

TEST(Checkpoint, TwoRunsCannotShareAFolder) {
  const TemporaryFolder folder;
  const auto group = comm::self_communicator();
  const CheckpointWriter writer(*group, {.folder = folder.path()});
  EXPECT_THAT(checkpoint_error([&] {
                CheckpointWriter(*group, {.folder = folder.path(), .lock_seconds = 0.05});
              }),
              HasSubstr("another process saves checkpoints here"));
}

TEST(Checkpoint, NamesTensorAndShapesThatDoNotFit) {
  const TemporaryFolder folder;
  const std::vector<SampleTensor> model{{"head.weight", {10, 4}, at::kFloat},
                                        {"head.bias", {10}, at::kFloat}};
  save_once(folder.path(), 1, 1, make_state(model, 1));
  const CheckpointReader reader(folder / "step-00000001");
  const auto error_of = [&](const std::vector<SampleTensor>& tensors) {
    return checkpoint_error([&] { reader.load(make_state(tensors, 1)); });
  };
  EXPECT_EQ(error_of(model), "");
  EXPECT_THAT(error_of({{"head.weight", {100, 4}, at::kFloat}, model[1]}),
              HasSubstr("step-00000001: does not fit this run: head.weight must have shape [100, "
                        "4] but got [10, 4]"));
  EXPECT_THAT(error_of({model[0]}),
              HasSubstr("head.bias [10] is not in this run; it was saved by another model"));
  EXPECT_THAT(error_of({model[0], model[1], {"norm.bias", {4}, at::kFloat}}),
              HasSubstr("norm.bias [4] is missing"));
  EXPECT_THAT(error_of({model[0], {"head.bias", {10}, at::kBFloat16}}),
              HasSubstr("head.bias must be bf16 but got f32"));
  EXPECT_THAT(error_of({model[0], model[1], {"ema/head.bias", {10}, at::kFloat}}),
              HasSubstr("without train.ema_decay"));
  EXPECT_THAT(error_of({model[0], model[1], {"momentum/head.bias", {10}, at::kFloat}}),
              HasSubstr("another train.optimizer.kind"));
}

TEST(Checkpoint, ListsOnlyTheFirstDifferencesOfAnotherModel) {
  const TemporaryFolder folder;
  save_once(folder.path(), 1, 1, sample_state(1));
  std::vector<TensorState> other;
  for (int i = 0; i < 30; ++i) other.push_back({"layer." + std::to_string(i), at::zeros({2})});
  const std::string error =
      checkpoint_error([&] { CheckpointReader(folder / "step-00000001").load(other); });
  EXPECT_THAT(
      error,
      HasSubstr("layer.4 [2] is missing; and 34 more"));  // 30 missing and 9 left over, 5 shown
  EXPECT_LT(error.size(), 600u);
}

TEST(Checkpoint, RefusesAStateOnWhichRanksDisagree) {
  const TemporaryFolder folder;
  comm::run_thread_group(3, [&](comm::Communicator& group) {
    CheckpointWriter writer(group, {.folder = folder.path(), .async = false});
    const std::vector<TensorState> state{{"x", at::zeros({group.rank() == 2 ? 5 : 4})}};
    EXPECT_THAT(checkpoint_error([&] { writer.save(state, sample_info(1)); }),
                HasSubstr("rank 2 differs from rank 0"));
  });
  EXPECT_TRUE(names_in(folder.path()).empty());
}

TEST(Checkpoint, GivesParametersAndTheirAverage) {
  const TemporaryFolder run;
  const std::vector<SampleTensor> tensors{{"b", {3}, at::kFloat},
                                          {"a", {2, 2}, at::kFloat},
                                          {"ema/b", {3}, at::kFloat},
                                          {"ema/a", {2, 2}, at::kFloat},
                                          {"exp_avg/a", {2, 2}, at::kFloat}};
  const auto state = make_state(tensors, 1);
  save_once(run / "checkpoints", 2, 1, state);
  const auto weights = read_parameters(run.path(), false),
             average = read_parameters(run.path(), true);
  ASSERT_EQ(weights.size(), 2u);
  EXPECT_EQ(weights[0].name, "a");
  EXPECT_TRUE(bits_equal(weights[0].tensor, state[1].tensor));
  EXPECT_TRUE(bits_equal(weights[1].tensor, state[0].tensor));
  ASSERT_EQ(average.size(), 2u);
  EXPECT_EQ(average[1].name, "b");
  EXPECT_TRUE(bits_equal(average[1].tensor, state[2].tensor));

  EXPECT_EQ(export_parameters(run.path(), true, run / "ema.safetensors"), 2);
  EXPECT_THAT(read_bytes(run / "ema.safetensors"),
              HasSubstr(R"("a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]})"));
  EXPECT_THAT(names_in(run.path()), ElementsAre("checkpoints", "ema.safetensors"));
  EXPECT_THAT(checkpoint_error([&] { export_parameters(run.path(), true, run / "no/file"); }),
              AllOf(HasSubstr("[checkpoint] " + run.path() + "/no/file: cannot write"),
                    HasSubstr("No such file")));
  EXPECT_THAT(checkpoint_error([&] { export_parameters(run.path(), true, run / "checkpoints"); }),
              HasSubstr("cannot write"));  // a folder is there; the temporary file must go
  EXPECT_THAT(names_in(run.path()), ElementsAre("checkpoints", "ema.safetensors"));
  save_once(run / "plain", 1, 1, make_state({tensors[0]}, 1));
  EXPECT_THAT(checkpoint_error([&] { read_parameters(run / "plain", true); }),
              HasSubstr("without train.ema_decay"));
}

TEST(Checkpoint, ComparisonFindsTheLargestDifference) {
  const TemporaryFolder folder;
  auto a = make_state({{"x", {4}, at::kFloat}, {"same", {2}, at::kFloat}}, 1);
  a[0].tensor.zero_();
  save_once(folder / "a", 1, 1, a);
  a[0].tensor.mutable_data_ptr<float>()[2] = -0.25f;
  a.push_back({"new", at::zeros({1})});
  save_once(folder / "b", 3, 2, a);
  const std::string text = describe_difference(CheckpointReader(folder / "a/step-00000001"),
                                               CheckpointReader(folder / "b/step-00000002"));
  EXPECT_THAT(text, HasSubstr("step: 1 and 2\n"));
  EXPECT_THAT(text, HasSubstr("x: largest difference 0.25\n"));
  EXPECT_THAT(text, HasSubstr("new: only in the second\n"));
  EXPECT_THAT(text, HasSubstr("1 tensors equal, 2 differ"));
  EXPECT_THAT(describe_checkpoint(folder / "b/step-00000002", true), HasSubstr("step 2  epoch 3"));
}

const std::string kGolden = VITRAIL_SOURCE "/tests/golden/checkpoint_v1";

/// Saved by two ranks of a program that knew format 1 only; the weights beside it are what it held.
TEST(CheckpointFormat1, StillLoadsBitEqual) {
  const std::string path = kGolden + "/step-00000003";
  EXPECT_EQ(why_invalid(path, true), "");
  EXPECT_EQ(CheckpointReader(path).info().step, 3);
  for (bool ema : {false, true}) {
    const auto expected =
        io::SafetensorsFile::open(kGolden + (ema ? "/weights-ema" : "/weights") + ".safetensors");
    const auto found = read_parameters(path, ema);
    EXPECT_EQ(found.size(), expected.names().size());
    for (const auto& [name, tensor] : found) {
      const auto bytes = expected.bytes(name);
      ASSERT_EQ(bytes.size(), tensor.nbytes()) << name;
      EXPECT_EQ(std::memcmp(bytes.data(), tensor.const_data_ptr(), bytes.size()), 0) << name;
    }
  }
}

}  // namespace

}  // namespace vitrail::train
