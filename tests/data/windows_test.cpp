#include "vitrail/data/windows.h"

#include <algorithm>
#include <map>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "test_data.h"
#include "vitrail/core/error.h"
#include "vitrail/core/philox.h"

namespace vitrail::data {
namespace {

using test::message_of;
using test::model_of;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

/// A reader of files of given sides without content.
class Sides : public Reader {
 public:
  explicit Sides(std::vector<std::vector<int64_t>> files) : Reader(1), files_(std::move(files)) {}
  int64_t size() const override { return static_cast<int64_t>(files_.size()); }
  SampleInfo describe(int64_t i) const override { return {"file" + std::to_string(i), -1}; }
  Pixels decode(int64_t) const override { throw core::DataError("not needed"); }
  Shape shape(int64_t i) const override { return {files_.at(static_cast<size_t>(i)), 1}; }

 private:
  std::vector<std::vector<int64_t>> files_;
};

std::vector<Window> all_windows(const Windows& windows, const Sides& reader, int64_t epoch = 0) {
  std::vector<Window> result;
  for (int64_t i = 0; i < windows.size(); ++i) {
    const int64_t item = windows.item_of(i);
    result.push_back(windows.at(i, {3, epoch, i}, reader.shape(item).sides, "file"));
    EXPECT_EQ(result.back().item, item);
  }
  return result;
}

int64_t random(uint32_t& element, int64_t first, int64_t last) {
  const uint32_t bits = core::draw({17, core::Stream::test, 0, 0}, 0, element++);
  return first + static_cast<int64_t>(bits % static_cast<uint64_t>(last - first + 1));
}

TEST(TileStarts, AreTheWrittenOutRule) {
  EXPECT_THAT(tile_starts(10, 4, 0), ElementsAre(0, 4, 6));
  EXPECT_THAT(tile_starts(8, 4, 0), ElementsAre(0, 4));
  EXPECT_THAT(tile_starts(10, 4, 0.5), ElementsAre(0, 2, 4, 6));
  EXPECT_THAT(tile_starts(10, 4, 0.25), ElementsAre(0, 3, 6));
  EXPECT_THAT(tile_starts(7, 4, 0.99), ElementsAre(0, 1, 2, 3));
  EXPECT_THAT(tile_starts(4, 4, 0.5), ElementsAre(0));
  EXPECT_THAT(tile_starts(3, 4, 0.5), ElementsAre(0));
  EXPECT_EQ(tile_starts(128, 32, 0.25).size(), 5u);
}

TEST(Windows, TilesCoverEveryPixelFromUniqueOriginsWithExactOverlap) {
  uint32_t element = 0;
  int64_t tiles_seen = 0;
  for (int round = 0; round < 400; ++round) {
    const int64_t axes = random(element, 2, 3);
    config::Source source;
    std::vector<std::vector<int64_t>> files;
    std::vector<int64_t> model_sides(static_cast<size_t>(axes), 4);
    for (int64_t axis = 0; axis < axes; ++axis) {
      source.tile.push_back(random(element, 1, 9));
      source.overlap.push_back(static_cast<double>(random(element, 0, 9)) / 10.0);
    }
    for (int64_t file = random(element, 1, 3); file > 0; --file) {
      files.emplace_back();
      for (int64_t axis = 0; axis < axes; ++axis) files.back().push_back(random(element, 1, 20));
    }
    const Sides reader(files);
    const Windows windows(source, model_of(model_sides, 1, 2), reader, /*training=*/false);
    std::vector<std::set<std::vector<int64_t>>> origins(files.size());
    std::vector<std::set<std::vector<int64_t>>> covered(files.size());
    int64_t last_item = 0;
    for (const Window& window : all_windows(windows, reader)) {
      ++tiles_seen;
      EXPECT_GE(window.item, last_item);
      last_item = window.item;
      const auto item = static_cast<size_t>(window.item);
      EXPECT_TRUE(origins[item].insert(window.origin).second) << "an origin twice";
      EXPECT_EQ(window.sides, source.tile);
      for (size_t axis = 0; axis < files[item].size(); ++axis) {
        EXPECT_GE(window.origin[axis], 0);
        EXPECT_EQ(window.extent[axis], std::min(source.tile[axis], files[item][axis]));
        EXPECT_LE(window.origin[axis] + window.extent[axis], files[item][axis]);
      }
      std::vector<int64_t> p = window.origin;  // every pixel that is read
      for (;;) {
        covered[item].insert(p);
        size_t axis = p.size();
        while (axis-- > 0 && ++p[axis] == window.origin[axis] + window.extent[axis])
          p[axis] = window.origin[axis];
        if (axis == SIZE_MAX) break;
      }
    }
    for (size_t item = 0; item < files.size(); ++item) {
      ASSERT_EQ(static_cast<int64_t>(covered[item].size()), count(files[item]));
      for (size_t axis = 0; axis < files[item].size(); ++axis) {
        std::set<int64_t> starts;
        for (const auto& origin : origins[item]) starts.insert(origin[axis]);
        const std::vector<int64_t> row(starts.begin(), starts.end());
        const auto stride = std::max<int64_t>(
            1, std::llround(static_cast<double>(source.tile[axis]) * (1 - source.overlap[axis])));
        for (size_t k = 0; k + 2 < row.size(); ++k) ASSERT_EQ(row[k + 1] - row[k], stride);
        if (row.size() > 1) {
          ASSERT_LE(row.back() - row[row.size() - 2], stride);
          ASSERT_EQ(row.back() + source.tile[axis], files[item][axis]) << "flush with the end";
        }
      }
    }
  }
  std::printf("%ld tiles\n", static_cast<long>(tiles_seen));
  EXPECT_GT(tiles_seen, 10'000);
}

TEST(Windows, ARegionIsNeverLeft) {
  config::Source source;
  source.region = {0, 0.5, 0.25, 1};
  const Sides reader({{11, 16}, {3, 9}});
  const config::Model model = model_of({4, 4}, 1, 2);
  Windows windows(source, model, reader, true);
  std::vector<Window> whole = all_windows(windows, reader);
  ASSERT_EQ(whole.size(), 2u);
  EXPECT_THAT(whole[0].origin, ElementsAre(0, 4));
  EXPECT_THAT(whole[0].sides, ElementsAre(6, 12));  // llround(5.5) = 6
  EXPECT_THAT(whole[1].origin, ElementsAre(0, 2));
  EXPECT_THAT(whole[1].sides, ElementsAre(2, 7));
  source.tile = {4, 5};
  const std::vector<Window> tiles = all_windows(Windows(source, model, reader, false), reader);
  source.random_crop.size = {4, 5};
  source.random_crop.per_epoch = 50;
  const std::vector<Window> crops = all_windows(Windows(source, model, reader, true), reader);
  EXPECT_EQ(crops.size(), 100u);
  for (const std::vector<Window>& list : {tiles, crops})
    for (const Window& window : list) {
      const Window& region = whole[static_cast<size_t>(window.item)];
      for (size_t axis = 0; axis < 2; ++axis) {
        EXPECT_GE(window.origin[axis], region.origin[axis]);
        EXPECT_LE(window.origin[axis] + window.extent[axis],
                  region.origin[axis] + region.sides[axis]);
        EXPECT_EQ(window.sides[axis], axis == 0 ? 4 : 5);
      }
    }
}

TEST(Windows, SlicesAreEverySliceOfTheRegionAndTilesOfThem) {
  config::Source source;
  source.slices = 1;
  source.region = {0, 1, 0.5, 1, 0, 1};
  const Sides reader({{5, 8, 6}, {4, 2, 6}});
  const config::Model model = model_of({5, 6}, 1, 2);
  const std::vector<Window> slices = all_windows(Windows(source, model, reader, true), reader);
  ASSERT_EQ(slices.size(), 4u + 1u);
  for (int64_t k = 0; k < 5; ++k) {
    const Window& window = slices[static_cast<size_t>(k)];
    EXPECT_THAT(window.origin, ElementsAre(0, k < 4 ? 4 + k : 1, 0));
    EXPECT_THAT(window.sample_sides(), ElementsAre(k < 4 ? 5 : 4, 6));
    EXPECT_EQ(window.slice_axis, 1);
  }
  source.tile = {5, 4};
  const std::vector<Window> tiles = all_windows(Windows(source, model, reader, false), reader);
  ASSERT_EQ(tiles.size(), 2u * 5u);
  EXPECT_THAT(tiles[3].origin, ElementsAre(0, 5, 2));
  EXPECT_THAT(tiles[8].extent, ElementsAre(4, 1, 4));
  EXPECT_THAT(tiles[8].sample_sides(), ElementsAre(5, 4));
  source.random_crop.size = {2, 3};
  source.random_crop.per_epoch = 7;
  EXPECT_EQ(Windows(source, model, reader, true).size(), 5 * 7);
  EXPECT_EQ(Windows(source, model, reader, false).size(), 10);
}

TEST(Windows, RandomCropsReachEveryPlaceEquallyOftenAndDifferByEpoch) {
  config::Source source;
  source.random_crop.size = {4, 3};
  source.random_crop.per_epoch = 12'000;
  const Sides reader({{7, 5}});
  const Windows windows(source, model_of({4, 4}, 1, 2), reader, true);
  ASSERT_EQ(windows.size(), 12'000);
  std::map<std::vector<int64_t>, int64_t> seen;
  const std::vector<Window> first = all_windows(windows, reader);
  for (const Window& window : first) ++seen[window.origin];
  EXPECT_EQ(seen.size(), 12u);
  // Binomial(12000, 1/12): mean 1000, standard deviation 30; 5 of them.
  for (const auto& [origin, times] : seen) EXPECT_NEAR(static_cast<double>(times), 1000, 150);
  const std::vector<Window> second = all_windows(windows, reader, 1);
  int64_t same = 0;
  for (size_t i = 0; i < first.size(); ++i) same += first[i].origin == second[i].origin;
  EXPECT_NEAR(static_cast<double>(same), 1000, 150);
}

TEST(TileStarts, LeaveOutWhatWouldBeFlushWithTheEndWhenNotAllIsUsed) {
  EXPECT_THAT(tile_starts(10, 4, 0, false), ElementsAre(0, 4));
  EXPECT_THAT(tile_starts(10, 4, 0, true), ElementsAre(0, 4, 6));
  EXPECT_THAT(tile_starts(12, 4, 0, false), ElementsAre(0, 4, 8));
  EXPECT_THAT(tile_starts(11, 4, 0.5, false), ElementsAre(0, 2, 4, 6));
  EXPECT_THAT(tile_starts(3, 4, 0, false), ElementsAre(0)) << "a small image is padded";
}

TEST(CropStarts, AreEveryPlaceOrWhereChunksBegin) {
  const auto all = [](const CropStarts& starts) {
    std::vector<int64_t> result;
    for (int64_t i = 0; i < starts.size(); ++i) result.push_back(starts[i]);
    return result;
  };
  EXPECT_THAT(all({2, 7, 3, 1}), ElementsAre(2, 3, 4));
  EXPECT_THAT(all({0, 16, 4, 4}), ElementsAre(0, 4, 8, 12));
  EXPECT_THAT(all({0, 18, 8, 4}), ElementsAre(0, 4, 8, 10)) << "flush with the end";
  EXPECT_THAT(all({3, 18, 4, 4}), ElementsAre(3, 4, 8, 12, 14)) << "and with the start";
  EXPECT_THAT(all({0, 18, 6, 4}), testing::SizeIs(13)) << "6 is no multiple of 4";
  EXPECT_THAT(all({5, 8, 4, 4}), ElementsAre(5)) << "smaller than the crop";
}

TEST(CropStarts, ReachEveryPixelWhateverTheSizes) {
  uint32_t element = 1'000'000;
  for (int round = 0; round < 2000; ++round) {
    const int64_t low = random(element, 0, 20), high = low + random(element, 1, 60);
    const int64_t chunk = random(element, 1, 9), crop = random(element, 1, 30);
    const CropStarts starts(low, high, crop, chunk);
    const int64_t last = std::max(low, high - crop);
    ASSERT_EQ(starts[0], low);
    ASSERT_EQ(starts[starts.size() - 1], last);
    for (int64_t i = 1; i < starts.size(); ++i) {
      ASSERT_GT(starts[i], starts[i - 1]);
      ASSERT_LE(starts[i], starts[i - 1] + crop) << "a gap";
      if (i + 1 < starts.size() && crop % chunk == 0) {
        ASSERT_EQ(starts[i] % chunk, 0);
      }
    }
    if (crop % chunk != 0) {
      ASSERT_EQ(starts.size(), last - low + 1);
    }
  }
}

TEST(Windows, CropsOfChunkedFilesBeginWhereChunksDo) {
  const Sides reader({{64, 48}});
  config::Source source;
  source.random_crop.per_epoch = 4000;
  source.random_crop.size = {16, 10};
  source.random_crop.align = true;
  const Windows windows(source, model_of({16, 10}, 1, 2), reader, true);
  std::map<int64_t, int64_t> rows, columns;
  for (int64_t i = 0; i < windows.size(); ++i) {
    const Window window = windows.at(i, {3, 0, i}, {64, 48}, "file", {8, 8});
    ++rows[window.origin[0]];
    ++columns[window.origin[1]];
  }
  EXPECT_EQ(columns.size(), 39u) << "a crop of 10 pixels is no multiple of 8";
  ASSERT_EQ(rows.size(), 7u);
  // Binomial(4000, 1/7): mean 571, standard deviation 22; 5 of them.
  for (const auto& [start, times] : rows) {
    EXPECT_EQ(start % 8, 0);
    EXPECT_NEAR(static_cast<double>(times), 571, 111);
  }
}

TEST(Windows, RefuseWhatCannotBeMeant) {
  const Sides reader({{7, 5}});
  const config::Model model = model_of({4, 4}, 1, 2);
  const auto config_error = [&](const config::Source& source) {
    return message_of<core::ConfigError>([&] { Windows(source, model, reader, true); });
  };
  config::Source source;
  source.region = {0, 1};
  EXPECT_THAT(config_error(source), HasSubstr("region must hold start and end for each of the 2"));
  source.region = {0, 1, 0.5, 0.5};
  EXPECT_THAT(config_error(source), HasSubstr("region"));
  source = {};
  source.tile = {4};
  EXPECT_THAT(config_error(source), HasSubstr("tile must have 2 sides"));
  source.tile = {4, 0};
  EXPECT_THAT(config_error(source), HasSubstr("tile must have 2 sides"));
  source.tile = {4, 4};
  source.overlap = {0.5};
  EXPECT_THAT(config_error(source), HasSubstr("overlap"));
  source.overlap = {0.5, 1};
  EXPECT_THAT(config_error(source), HasSubstr("overlap"));
  source = {};
  source.random_crop.size = {3};
  EXPECT_THAT(config_error(source), HasSubstr("random_crop.size"));
  source = {};
  source.random_crop.per_epoch = -1;
  EXPECT_THAT(config_error(source), HasSubstr("per_epoch"));
  source = {};
  source.slices = 3;
  EXPECT_THAT(config_error(source), HasSubstr("slices"));
  source.slices = 0;  // but the file has 2 sides
  EXPECT_THAT(message_of<core::DataError>([&] { Windows(source, model, reader, true); }),
              AllOf(HasSubstr("file0"), HasSubstr("expected 3 sides"), HasSubstr("7 x 5")));
  source = {};
  source.region = {0, 0.05, 0, 1};
  const Windows narrow(source, model, reader, true);
  EXPECT_THAT(message_of<core::DataError>([&] {
                narrow.at(0, {}, {7, 5}, "x.png");
              }),
              AllOf(HasSubstr("x.png"), HasSubstr("region"), HasSubstr("is empty")));
}

}  // namespace
}  // namespace vitrail::data
