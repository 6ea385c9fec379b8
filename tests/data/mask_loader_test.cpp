// Batches of masks, windows and volumes through the loader.

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <thread>

#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "test_data.h"
#include "tests/io/python.h"
#include "vitrail/core/error.h"
#include "vitrail/data/decoded.h"
#include "vitrail/data/dump.h"
#include "vitrail/data/inspect.h"
#include "vitrail/data/loader.h"
#include "vitrail/data/source_list.h"

namespace vitrail::data {
namespace {

using test::message_of;
using test::segmenter;
using test::source_of;
using test::write_grey;
using test::write_image;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

LoaderOptions options_of(int64_t batch, bool training, int64_t rank = 0, int64_t ranks = 1) {
  LoaderOptions options;
  options.global_batch = batch;
  options.training = training;
  options.data_rank = rank;
  options.data_ranks = ranks;
  options.seed = 5;
  return options;
}

/// Six images of 12 x 10 and up whose masks are their own values, 0 .. 255.
class Twins : public ::testing::Test {
 protected:
  Twins() {
    for (uint64_t i = 0; i < 6; ++i) {
      const std::vector<int64_t> sides{12, 10 + static_cast<int64_t>(i)};
      const Pixels pixels = test::noise(sides, 1, i);
      write_grey(folder_.path(fmt::format("image/{}.png", i)), sides, pixels.values);
      write_grey(folder_.path(fmt::format("label/{}.png", i)), sides, pixels.values);
    }
    source_ = source_of("images", folder_.path("image"), folder_.path("label"));
    source_.normalize.value = "none";
  }
  test::TemporaryFolder folder_;
  config::Source source_;
  config::Model model_ = segmenter({8, 8}, 1, 256);
};

TEST_F(Twins, GlobalBatchesOfMasksAreTheSameForAnyNumberOfRanksAndWorkers) {
  source_.random_crop.per_epoch = 4;
  source_.augment = {"flips", "rot90", "shift:2"};
  Loader alone({source_}, model_, options_of(8, true));
  ASSERT_EQ(alone.samples(), 24);
  std::vector<Batch> expected;
  for (int b = 0; b < 6; ++b) expected.push_back(alone.next());  // two epochs
  for (const Batch& batch : expected) {
    ASSERT_EQ(batch.image.sizes(), at::IntArrayRef({8, 1, 8, 8}));
    ASSERT_EQ(batch.label.sizes(), at::IntArrayRef({8, 8, 8}));
    const float* image = batch.image.const_data_ptr<float>();
    const int64_t* label = batch.label.const_data_ptr<int64_t>();
    int64_t differing = 0;  // a pixel that moved in is 0 with label -1
    for (int64_t i = 0; i < batch.label.numel(); ++i)
      differing += static_cast<int64_t>(image[i]) != std::max<int64_t>(label[i], 0);
    EXPECT_EQ(differing, 0);
  }
  EXPECT_FALSE(at::equal(expected[0].image, expected[3].image));
  for (const int64_t ranks : {2, 4})
    for (const int64_t workers : {0, 3}) {
      std::vector<std::vector<at::Tensor>> images(6), labels(6);
      for (int64_t rank = 0; rank < ranks; ++rank) {
        LoaderOptions options = options_of(8, true, rank, ranks);
        options.workers = workers;
        Loader loader({source_}, model_, options);
        for (size_t b = 0; b < 6; ++b) {
          const Batch batch = loader.next();
          images[b].push_back(batch.image);
          labels[b].push_back(batch.label);
        }
      }
      for (size_t b = 0; b < 6; ++b) {
        EXPECT_TRUE(at::equal(at::cat(images[b]), expected[b].image)) << ranks;
        EXPECT_TRUE(at::equal(at::cat(labels[b]), expected[b].label)) << ranks;
      }
    }
}

TEST_F(Twins, TilesOfAnEvaluationPutTogetherAreTheImages) {
  source_.tile = {8, 8};
  source_.overlap = {0.5, 0.25};
  for (const int64_t ranks : {1, 3}) {
    std::map<int64_t, std::map<std::pair<int64_t, int64_t>, int64_t>> pixels;
    for (int64_t rank = 0; rank < ranks; ++rank) {
      Loader loader({source_}, model_, options_of(7, false, rank, ranks));
      for (int64_t b = 0; b < loader.batches_per_epoch(); ++b) {
        const Batch batch = loader.next();
        for (int64_t i = 0; i < batch.size(); ++i) {
          const int64_t id = batch.sample_ids[i].item<int64_t>();
          const at::Tensor label = batch.label[i].contiguous();
          if (id < 0) {
            EXPECT_EQ(label.max().item<int64_t>(), -1) << "padding";
            continue;
          }
          const Window window = loader.window(batch.epoch, id);
          for (int64_t y = 0; y < 8; ++y)
            for (int64_t x = 0; x < 8; ++x)
              pixels[window.item][{window.origin[0] + y, window.origin[1] + x}] =
                  label.const_data_ptr<int64_t>()[8 * y + x];
        }
      }
    }
    ASSERT_EQ(pixels.size(), 6u);
    for (const auto& [item, found] : pixels) {
      const Pixels stored = test::noise({12, 10 + item}, 1, static_cast<uint64_t>(item));
      ASSERT_EQ(found.size(), stored.values.size());
      for (const auto& [place, value] : found)
        EXPECT_EQ(value,
                  stored.values[static_cast<size_t>(place.first * (10 + item) + place.second)]);
    }
  }
}

TEST_F(Twins, ImagesSmallerThanTheirTileArePaddedWithZeroAndMinusOne) {
  source_.tile = {16, 16};
  model_.image_size = {16, 16};
  Loader loader({source_}, model_, options_of(6, false));
  const Batch batch = loader.next();
  for (int64_t i = 0; i < 6; ++i)
    for (int64_t y = 0; y < 16; ++y)
      for (int64_t x = 0; x < 16; ++x) {
        const bool is_inside = y < 12 && x < 10 + i;
        const int64_t label = batch.label[i][y][x].item<int64_t>();
        EXPECT_EQ(label == -1, !is_inside);
        EXPECT_EQ(batch.image[i][0][y][x].item<float>(), is_inside ? static_cast<float>(label) : 0);
      }
}

TEST_F(Twins, MasksMustBeThereForModelsThatSegmentAndAreLeftOutOfOthers) {
  source_.labels = "";
  EXPECT_THAT(
      message_of<core::ConfigError>([&] { Loader({source_}, model_, options_of(2, true)); }),
      AllOf(HasSubstr("learns from masks"), HasSubstr("set labels")));
  model_.kind.value = "mae";
  Loader loader({source_}, model_, options_of(2, true));
  const Batch batch = loader.next();
  EXPECT_EQ(batch.label.sizes(), at::IntArrayRef({2}));
  EXPECT_EQ(batch.label.max().item<int64_t>(), -1);
}

TEST_F(Twins, ABrokenMaskIsSkippedOrNamedLikeABrokenImage) {
  test::write_bytes(folder_.path("label/3.png"), "broken");
  LoaderOptions options = options_of(6, false);
  Loader stops({source_}, model_, options);
  EXPECT_THAT(message_of<core::DataError>([&] { stops.next(); }), HasSubstr("label/3.png"));
  options.skip_errors = true;
  Loader skips({source_}, model_, options);
  const Batch batch = skips.next();
  EXPECT_EQ(batch.sample_ids[3].item<int64_t>(), -1);
  EXPECT_EQ(batch.label[3].max().item<int64_t>(), -1);
  EXPECT_GE(batch.label[4].min().item<int64_t>(), 0);
  EXPECT_EQ(skips.skipped(), 1);
}

TEST_F(Twins, DumpWritesMasksAndOrigins) {
  source_.random_crop.per_epoch = 3;
  source_.random_crop.size = {8, 8};
  const Dump whole = dump({source_}, model_, options_of(6, true), 1, 15);
  ASSERT_EQ(whole.label.sizes(), at::IntArrayRef({15, 8, 8}));
  ASSERT_EQ(whole.origin.sizes(), at::IntArrayRef({15, 2}));
  for (int64_t i = 0; i < 15; ++i) {
    const int64_t item = whole.index[i].item<int64_t>() / 3;
    const int64_t y = whole.origin[i][0].item<int64_t>(), x = whole.origin[i][1].item<int64_t>();
    const Pixels stored = test::noise({12, 10 + item}, 1, static_cast<uint64_t>(item));
    EXPECT_EQ(whole.label[i][0][0].item<int64_t>(),
              stored.values[static_cast<size_t>(y * (10 + item) + x)]);
    EXPECT_EQ(whole.label[i][7][7].item<int64_t>(),
              stored.values[static_cast<size_t>((y + 7) * (10 + item) + x + 7)]);
  }
  LoaderOptions empty = options_of(6, true, 1, 2);
  EXPECT_EQ(dump({source_}, model_, empty, 0, 2).label.sizes(), at::IntArrayRef({0, 8, 8}));
}

TEST_F(Twins, InspectCountsPixelsPerClassAndTheSheetShowsMasksBesideImages) {
  source_.random_crop.per_epoch = 4;
  const SourceReport report = inspect(source_, model_, 2, 100);
  EXPECT_EQ(report.files, 6);
  EXPECT_EQ(report.samples, 24);
  int64_t pixels = 0;
  for (const auto& [label, n] : report.mask_pixels) pixels += n;
  EXPECT_EQ(pixels, 12 * (10 + 11 + 12 + 13 + 14 + 15));
  EXPECT_THAT(to_text(report),
              AllOf(HasSubstr("24 samples of 6 files"), HasSubstr("mask class 255")));
  const Pixels sheet = contact_sheet({source_}, model_);
  EXPECT_THAT(sheet.sides, ElementsAre(3 * 66, 16 * 66)) << "24 samples, two cells each";
  int64_t differing = 0, image = 0;
  for (int64_t y = 0; y < 64; ++y)
    for (int64_t x = 0; x < 64; ++x) {
      const auto at = [&](int64_t column) {
        return sheet.values[static_cast<size_t>((y * sheet.sides[1] + column * 66 + x) * 3)];
      };
      differing += at(0) != at(1);
      image += at(0) != 0;
    }
  EXPECT_GT(image, 3000);
  EXPECT_GT(differing, 2000) << "classes above 0 are tinted";
}

TEST(Variables, NameTheChannelsOfABatchAndMustAgree) {
  config::Model model = segmenter({6, 6}, 3, 2);
  model.variables = {"t2m", "u10", "v10"};
  config::Source two = test::random_source(8), all = test::random_source(8);
  two.variables = {"v10", "t2m"};
  two.mean = {0.1, 0.2};
  Loader loader({two}, model, options_of(4, true));
  const Batch batch = loader.next();
  EXPECT_EQ(batch.image.sizes(), at::IntArrayRef({4, 2, 6, 6}));
  EXPECT_THAT(batch.variables, ElementsAre("v10", "t2m"));
  EXPECT_TRUE(Loader({all}, model, options_of(4, true)).next().variables.empty());
  const auto error = [&](const std::vector<config::Source>& sources) {
    return message_of<core::ConfigError>([&] { Loader(sources, model, options_of(4, true)); });
  };
  EXPECT_THAT(error({two, all}), AllOf(HasSubstr("variables []"), HasSubstr("[v10, t2m]")));
  two.variables = {"snow"};
  EXPECT_THAT(error({two}), HasSubstr("'snow' is not one of model.variables"));
  two.variables = {"u10", "u10"};
  EXPECT_THAT(error({two}), HasSubstr("'u10' is named twice"));
}

class NiftiSource : public ::testing::Test {
 protected:
  NiftiSource() {
    said_ = vitrail::testing::run_python(folder_.path(), R"(
import numpy as np, nibabel as nib, os
rng = np.random.default_rng(0)
for k in range(2):
    shape = (6 + k, 5, 4)  # x, y, z
    x = rng.normal(100, 30, shape).astype(np.float32)
    a, b = rng.random(shape, dtype=np.float32), rng.random(shape, dtype=np.float32)
    label = np.select([(a >= b) & (a >= .5), b >= .5], [1, 2], 0)
    for name, values in (("t1", x), ("gm", a), ("wm", b), ("label", label.astype(np.int16))):
        os.makedirs(name, exist_ok=True)
        image = nib.Nifti1Image(values, np.diag([-2, 2, 2.5, 1]))
        image.to_filename(f"{name}/{name}{k}.nii" + (".gz" if k else ""))
    low, high = np.percentile(x, [2, 98])
    unit = np.clip((x - low) / (high - low), 0, 1)
    unit.transpose(2, 1, 0).astype("<f4").tofile(f"unit{k}.bin")
    label.transpose(2, 1, 0).astype("<i8").tofile(f"label{k}.bin")
)");
    labels_ = source_of("nifti", folder_.path("t1"), folder_.path("label"));
    labels_.normalize.value = "percentile";
    labels_.percentile = {2, 98};
    labels_.mean = {0};
    labels_.std = {1};
    maps_ = labels_;
    maps_.labels = "";
    maps_.label_maps = {folder_.path("gm"), folder_.path("wm")};
  }
  template <class T>
  std::vector<T> values(const std::string& name) const {
    std::ifstream file(folder_.path(name), std::ios::binary);
    const std::string bytes(std::istreambuf_iterator<char>(file), {});
    std::vector<T> result(bytes.size() / sizeof(T));
    std::copy_n(bytes.data(), bytes.size(), reinterpret_cast<char*>(result.data()));
    return result;
  }
  std::string said_;
  test::TemporaryFolder folder_;
  config::Source labels_, maps_;
};

TEST_F(NiftiSource, GivesPercentileScaledVolumesWithLabelsOrProbabilityMaps) {
  ASSERT_EQ(said_, "");
  for (const config::Source& source : {labels_, maps_})
    for (int64_t k = 0; k < 2; ++k) {
      const config::Model model = segmenter({4, 5, 6 + k}, 1, 3);
      config::Source part = source;
      part.split = {0.5 * static_cast<double>(k), 0.5 * static_cast<double>(k + 1)};
      Loader loader({part}, model, options_of(1, false));
      const Batch batch = loader.next();
      ASSERT_EQ(batch.label.sizes(), at::IntArrayRef({1, 4, 5, 6 + k}));
      const std::vector<float> image = values<float>(fmt::format("unit{}.bin", k));
      const std::vector<int64_t> label = values<int64_t>(fmt::format("label{}.bin", k));
      double worst = 0;
      for (size_t i = 0; i < image.size(); ++i) {
        worst =
            std::max(worst, std::abs(double{batch.image.const_data_ptr<float>()[i]} - image[i]));
        ASSERT_EQ(batch.label.const_data_ptr<int64_t>()[i], label[i]);
      }
      std::printf("worst difference %g (allowed 1e-6)\n", worst);  // NumPy works in double
      EXPECT_LE(worst, 1e-6);
    }
}

TEST_F(NiftiSource, SlicesAcrossAnyAxisAreTheSlicesOfTheVolume) {
  ASSERT_EQ(said_, "");
  labels_.split = {0, 0.5};
  const std::vector<int64_t> label = values<int64_t>("label0.bin");
  const int64_t sides[3] = {4, 5, 6};
  for (int64_t axis = 0; axis < 3; ++axis) {
    labels_.slices = axis;
    const int64_t rows = axis == 0 ? 5 : 4, columns = axis == 2 ? 5 : 6;
    Loader loader({labels_}, segmenter({rows, columns}, 1, 3), options_of(sides[axis], false));
    ASSERT_EQ(loader.samples(), sides[axis]);
    const Batch batch = loader.next();
    for (int64_t k = 0; k < sides[axis]; ++k)
      for (int64_t r = 0; r < rows; ++r)
        for (int64_t c = 0; c < columns; ++c) {
          const int64_t z = axis == 0 ? k : r,
                        y = axis == 0   ? r
                            : axis == 1 ? k
                                        : c,
                        x = axis == 2 ? k : c;
          ASSERT_EQ(batch.label[k][r][c].item<int64_t>(),
                    label[static_cast<size_t>((z * 5 + y) * 6 + x)]);
        }
    EXPECT_EQ(loader.window(0, 2).origin[static_cast<size_t>(axis)], 2);
    EXPECT_EQ(loader.file_axes(), 3);
  }
}

TEST_F(NiftiSource, ReportsVoxelsAndOrientationAndNamesWhatDoesNotFit) {
  ASSERT_EQ(said_, "");
  const config::Model model = segmenter({4, 5, 6}, 1, 3);
  const SourceReport report = inspect(labels_, model, 1, 10);
  EXPECT_THAT(report.shapes.begin()->first,
              HasSubstr("4 x 5 x 6, 1 channel, voxels 2 x 2 x 2.5 (x, y, z), orientation LAS"));
  EXPECT_TRUE(report.broken.empty());
  const auto error = [&](const config::Source& source) {
    return message_of<core::DataError>([&] {
      const auto reader = open_reader(source, model);
      reader->decode(0);
      reader->decode_mask(0);
    });
  };
  config::Source bad = labels_;
  bad.labels = folder_.path("gm");
  EXPECT_THAT(error(bad), AllOf(HasSubstr("gm0.nii"), HasSubstr("whole numbers")));
  bad.labels = folder_.path("label/label1.nii.gz");
  EXPECT_THAT(error(bad),
              AllOf(HasSubstr("label1.nii.gz: expected one mask"), HasSubstr("found 1")));
  bad.root = folder_.path("t1/t10.nii");
  EXPECT_THAT(error(bad), AllOf(HasSubstr("label1.nii.gz"), HasSubstr("t10.nii"),
                                HasSubstr("4 x 5 x 7 and 4 x 5 x 6")));
  bad = labels_;
  bad.label_values = {0, 1};
  EXPECT_THAT(error(bad), AllOf(HasSubstr("label0.nii"), HasSubstr("got 2")));
  bad = maps_;
  bad.labels = labels_.labels;
  EXPECT_THAT(message_of<core::ConfigError>([&] { open_reader(bad, model); }),
              HasSubstr("exclude each other"));
  ASSERT_EQ(vitrail::testing::run_python(folder_.path(), R"(
import numpy as np, nibabel as nib
x = np.zeros((6, 5, 4), np.float32); x[1, 2, 3] = np.nan
nib.Nifti1Image(x, np.eye(4)).to_filename("nan.nii")
)"),
            "");
  bad = source_of("nifti", folder_.path("nan.nii"));
  EXPECT_THAT(error(bad),
              AllOf(HasSubstr("nan.nii"), HasSubstr("must be finite"), HasSubstr("nan")));
}

TEST(DecodedCache, DecodesAFileOnceForManyThreadsAndForgetsTheOldest) {
  const auto file_of = [](size_t bytes) {
    Decoded file;
    file.image.values.resize(bytes);
    return file;
  };
  DecodedCache cache(100);
  std::atomic<int> decodes = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t)
    threads.emplace_back([&] {
      const auto file = cache.get({0, 1}, [&] {
        ++decodes;
        std::this_thread::sleep_for(std::chrono::milliseconds(50));
        return file_of(60);
      });
      EXPECT_EQ(file->bytes(), 60);
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(decodes, 1);
  EXPECT_EQ(cache.bytes(), 60);
  const auto get = [&](int64_t item, size_t bytes) {
    bool was_decoded = false;
    cache.get({0, item}, [&] {
      was_decoded = true;
      return file_of(bytes);
    });
    return was_decoded;
  };
  EXPECT_TRUE(get(2, 30));
  EXPECT_FALSE(get(1, 60));  // now used last
  EXPECT_TRUE(get(3, 20));   // 110 bytes: file 2 goes
  EXPECT_EQ(cache.bytes(), 80);
  EXPECT_FALSE(get(1, 60));
  EXPECT_TRUE(get(2, 30));
  EXPECT_TRUE(get(4, 101));  // never kept
  EXPECT_TRUE(get(4, 101));
  EXPECT_LE(cache.bytes(), 100);
  int tries = 0;
  const auto fails = [&]() -> Decoded {
    ++tries;
    throw core::DataError("broken");
  };
  EXPECT_THROW(cache.get({1, 0}, fails), core::DataError);
  EXPECT_THROW(cache.get({1, 0}, fails), core::DataError);
  EXPECT_EQ(tries, 2);
}

TEST_F(Twins, ASourceOfWindowsDecodesEachFileOnceWhileItFits) {
  source_.random_crop.per_epoch = 10;
  const SourceList list({source_}, model_, 5, true, false);
  std::vector<float> image(64);
  std::vector<int64_t> label(64);
  for (int64_t epoch = 0; epoch < 3; ++epoch)
    for (int64_t i = 0; i < list.size(); ++i) list.load(epoch, i, image.data(), label.data());
  EXPECT_EQ(list.cache().decodes(), 6);
  const SourceList tight({source_}, model_, 5, true, false, /*cache_bytes=*/12 * 10 * 5);
  for (int64_t i = 0; i < tight.size(); ++i) tight.load(0, i, image.data(), label.data());
  EXPECT_EQ(tight.cache().decodes(), 6 + 5 * 9) << "only the first image fits";
}

}  // namespace
}  // namespace vitrail::data
