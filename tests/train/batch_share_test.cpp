#include "vitrail/train/batch_share.h"

#include <filesystem>
#include <fstream>
#include <mutex>

#include <ATen/ops/equal.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/train/tiny_run.h"
#include "vitrail/core/error.h"
#include "vitrail/io/image.h"
#include "vitrail/train/loop.h"

namespace vitrail::train {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

/// The result of rank 0.
RunResult train_on_four(const config::ResolvedRecipe& recipe) {
  RunResult result;
  comm::run_thread_group(4, [&](comm::Communicator& world) {
    TrainOptions options;
    options.print = false;
    RunResult mine = run_training(recipe, world, options);
    if (world.rank() == 0) result = std::move(mine);
  });
  return result;
}

std::vector<std::string> joined(std::vector<std::string> a, const std::vector<std::string>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

TEST(BatchShare, LoadOnceTrainsBitForBitLikeEveryRank) {
  const Workplace place;
  const std::vector<std::string> layouts[] = {{"parallel.strategy=ddp", "parallel.tensor=2"},
                                              {"parallel.strategy=none", "parallel.pipeline=2",
                                               "parallel.tensor=2", "train.micro_batches=2"},
                                              {"parallel.strategy=zero3", "parallel.sequence=2"}};
  int number = 0;
  for (const std::vector<std::string>& layout : layouts) {
    const std::string suffix = std::to_string(number++);
    const std::vector<std::string> common = joined(
        layout, {"train.steps=15", "data.sources[0].augment=[shift:1,mixup:0.4]", "run.threads=1"});
    const RunResult each = train_on_four(
        tiny_recipe(place, "each" + suffix, joined(common, {"data.share=every_rank"})));
    const RunResult once = train_on_four(
        tiny_recipe(place, "once" + suffix, joined(common, {"data.share=load_once"})));
    ASSERT_EQ(each.losses.size(), 15u);
    EXPECT_EQ(once.losses, each.losses) << layout.at(1);
    EXPECT_EQ(read_bytes(once.folder + "/weights.safetensors"),
              read_bytes(each.folder + "/weights.safetensors"));
    EXPECT_EQ(once.evaluation.at(0).metrics, each.evaluation.at(0).metrics);
    EXPECT_EQ(once.evaluation.at(0).samples, 41);
  }
}

TEST(BatchShare, ARunGoesOnWhereItStoppedUnderEitherWay) {
  const Workplace place;
  const std::vector<std::string> layout{"parallel.strategy=ddp", "parallel.tensor=2"};
  const auto recipe = [&](const char* name, const char* share, const char* steps) {
    return tiny_recipe(place, name, joined(layout, {share, steps}));
  };
  const RunResult whole = train_on_four(recipe("whole", "data.share=every_rank", "train.steps=14"));
  // 10 batches an epoch: the second half begins in the first epoch and ends in the second.
  const RunResult first = train_on_four(recipe("parts", "data.share=load_once", "train.steps=7"));
  const RunResult second = train_on_four(recipe("parts", "data.share=load_once", "train.steps=12"));
  const RunResult third = train_on_four(recipe("parts", "data.share=every_rank", "train.steps=14"));
  EXPECT_EQ(third.first_step, 12);
  std::vector<double> losses = first.losses;
  losses.insert(losses.end(), second.losses.begin(), second.losses.end());
  losses.insert(losses.end(), third.losses.begin(), third.losses.end());
  EXPECT_EQ(losses, whole.losses);
}

/// A folder with two classes of 8x8 pictures of random bytes.
std::string write_pictures(const Workplace& place, int count) {
  const std::string folder = place.file("pictures");
  for (int i = 0; i < count; ++i) {
    const std::string path = fmt::format("{}/{}/{:03}.png", folder, i % 2 ? "b" : "a", i);
    fs::create_directories(fs::path(path).parent_path());
    std::vector<uint8_t> pixels(64);
    for (size_t p = 0; p < pixels.size(); ++p)
      pixels[p] = static_cast<uint8_t>(37 * i + 11 * static_cast<int>(p));
    std::ofstream(path, std::ios::binary)
        << io::encode_png({.width = 8, .height = 8, .channels = 1, .pixels = pixels});
  }
  return folder;
}

config::Recipe pictures_recipe(const Workplace& place, const std::string& folder) {
  return tiny_recipe(place, "pictures",
                     {"data.share=load_once", "data.sources[0].reader=image_folder",
                      "data.sources[0].root=" + folder, "data.sources[0].split=[]",
                      "data.sources[0].augment=[shift:1]", "data.batch_size=8"})
      .recipe;
}

/// tensor 2 x replicate 2, on threads.
void on_shares(const config::Recipe& recipe,
               const std::function<void(comm::Mesh&, BatchShare&, data::Loader&)>& body) {
  comm::run_thread_group(4, [&](comm::Communicator& world) {
    comm::Mesh mesh(world, {.replicate = 2, .tensor = 2});
    BatchShare share(mesh, at::kCPU, recipe.data.share == "load_once");
    data::LoaderOptions options =
        data::loader_options(recipe, mesh.data_rank(), mesh.data_size(), false);
    options.reads = share.reads();
    data::Loader loader(recipe.data.sources, recipe.model, options);
    body(mesh, share, loader);
  });
}

TEST(BatchShare, OnlyTheFirstRankReadsAndEveryFieldArrives) {
  const Workplace place;
  const config::Recipe recipe = pictures_recipe(place, write_pictures(place, 30));
  on_shares(recipe, [&](comm::Mesh& mesh, BatchShare& share, data::Loader& loader) {
    const bool is_first = mesh.coordinate(comm::Axis::tensor) == 0;
    EXPECT_EQ(share.reads(), is_first);
    data::Loader alone(recipe.data.sources, recipe.model,
                       data::loader_options(recipe, mesh.data_rank(), mesh.data_size(), false));
    for (int i = 0; i < 7; ++i) {
      data::Batch shared = share.next(loader), own = alone.next();
      EXPECT_EQ(loader.in_flight() > 0, is_first) << "a rank that reads nothing holds no batches";
      EXPECT_EQ(shared.epoch, own.epoch);
      EXPECT_EQ(shared.slot, own.slot);
      EXPECT_EQ(shared.variables, own.variables);
      const auto left = shared.columns(), right = own.columns();
      for (size_t c = 0; c < left.size(); ++c) {
        ASSERT_EQ(left[c]->defined(), right[c]->defined()) << c;
        if (!left[c]->defined()) continue;
        EXPECT_EQ(left[c]->scalar_type(), right[c]->scalar_type()) << c;
        EXPECT_TRUE(at::equal(*left[c], *right[c])) << c;
      }
      EXPECT_EQ(loader.state().epoch, alone.state().epoch);
      EXPECT_EQ(loader.state().batch, alone.state().batch);
    }
  });
}

TEST(BatchShare, AnErrorOfTheReadingRankReachesTheOthersWithItsTextAndCode) {
  const Workplace place;
  const std::string folder = write_pictures(place, 30);
  std::ofstream(folder + "/a/004.png") << "broken";
  std::mutex mutex;
  std::vector<std::vector<std::string>> of_group(2);
  on_shares(pictures_recipe(place, folder),
            [&](comm::Mesh& mesh, BatchShare& share, data::Loader& loader) {
              for (int i = 0; i < 15; ++i) {  // five epochs of most of the files
                try {
                  share.next(loader);
                } catch (const core::DataError& error) {
                  EXPECT_EQ(error.exit_code(), core::ExitCode::data);
                  const std::lock_guard lock(mutex);
                  of_group[static_cast<size_t>(mesh.data_rank())].push_back(error.what());
                  return;
                }
              }
            });
  // One of the data ranks meets the file; both of its tensor ranks say so.
  const auto& said = of_group[0].empty() ? of_group[1] : of_group[0];
  ASSERT_EQ(said.size(), 2u);
  EXPECT_EQ(said[0], said[1]);
  EXPECT_THAT(said[0], HasSubstr("004.png"));
  fmt::print("{}\n", said[0]);
}

TEST(BatchShare, ALoaderThatReadsNothingOnlySkips) {
  const Workplace place;
  const config::Recipe recipe = pictures_recipe(place, write_pictures(place, 30));
  data::LoaderOptions options = data::loader_options(recipe, 0, 2, false);
  data::Loader reading(recipe.data.sources, recipe.model, options);
  EXPECT_THROW(reading.skip(), core::Error);
  options.reads = false;
  data::Loader idle(recipe.data.sources, recipe.model, options);
  EXPECT_THROW(idle.next(), core::Error);
  EXPECT_EQ(idle.samples(), reading.samples());
  EXPECT_EQ(idle.batches_per_epoch(), reading.batches_per_epoch());
  for (int i = 0; i < 5; ++i) {
    reading.next(), idle.skip();
    EXPECT_EQ(idle.state().epoch, reading.state().epoch);
    EXPECT_EQ(idle.state().batch, reading.state().batch);
  }
}

}  // namespace
}  // namespace vitrail::train
