// Windows of files of which only a part is read.

#include <cmath>
#include <map>

#include <ATen/ops/equal.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "test_data.h"
#include "vitrail/core/error.h"
#include "vitrail/data/loader.h"
#include "vitrail/data/source_list.h"

namespace vitrail::data {
namespace {

using testing::AllOf;
using testing::HasSubstr;

/// Bytes of version 1 of NumPy's format: float32, C order; value = place in the file.
void write_npy(const std::string& path, const std::vector<int64_t>& sides) {
  std::string shape;
  for (const int64_t side : sides) shape += std::to_string(side) + ",";
  std::string header = "{'descr': '<f4', 'fortran_order': False, 'shape': (" + shape + "), }";
  header.resize((header.size() + 11 + 63) / 64 * 64 - 11, ' ');
  header += '\n';
  std::string bytes("\x93NUMPY\x01\x00", 8);
  bytes += static_cast<char>(header.size() % 256);
  bytes += static_cast<char>(header.size() / 256);
  bytes += header;
  std::vector<float> values(static_cast<size_t>(count(sides)));
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i);
  bytes.append(reinterpret_cast<const char*>(values.data()), 4 * values.size());
  test::write_bytes(path, bytes);
}

class PartsOfArrays : public testing::Test {
 protected:
  void SetUp() override {
    write_npy(folder_.path("a.npy"), {9, 10, 11});
    write_npy(folder_.path("b.npy"), {5, 12, 4});
    source_ = test::source_of("npy", folder_.path());
    source_.axes = "zyx";
    source_.normalize.value = "none";
  }
  LoaderOptions options(bool training) const {
    LoaderOptions options;
    options.global_batch = 1;
    options.training = training;
    options.seed = 4;
    return options;
  }
  /// Every voxel of a batch of one is the one at its place in the file, or padding.
  void expect_places(const Loader& loader, const Batch& batch) const {
    const Window window = loader.window(batch.epoch, batch.sample_ids.item<int64_t>());
    const std::vector<int64_t> sides = loader.reader(0).shape(window.item).sides;
    for (int64_t z = 0; z < 4; ++z)
      for (int64_t y = 0; y < 4; ++y)
        for (int64_t x = 0; x < 8; ++x) {
          const bool inside = z < window.extent[0] && y < window.extent[1] && x < window.extent[2];
          const int64_t place =
              ((window.origin[0] + z) * sides[1] + window.origin[1] + y) * sides[2] +
              window.origin[2] + x;
          ASSERT_EQ(batch.image[0][0][z][y][x].item<float>(),
                    inside ? static_cast<float>(place) : 0.0f);
        }
  }
  const config::Model model_ = test::model_of({4, 4, 8}, 1, 2);
  test::TemporaryFolder folder_;
  config::Source source_;
};

TEST_F(PartsOfArrays, TilesHoldTheVoxelsOfTheirPlaceAndPadding) {
  source_.tile = {4, 4, 8};
  Loader loader({source_}, model_, options(false));
  // 3 x 3 x 2 tiles of the first file, 2 x 3 x 1 of the second, which is narrower than the tile.
  ASSERT_EQ(loader.samples(), 18 + 6);
  for (int64_t b = 0; b < 24; ++b) expect_places(loader, loader.next());
}

TEST_F(PartsOfArrays, RandomCropsHoldTheVoxelsOfTheirPlace) {
  source_.random_crop.per_epoch = 20;
  Loader loader({source_}, model_, options(true));
  for (int64_t b = 0; b < 40; ++b) expect_places(loader, loader.next());
}

TEST_F(PartsOfArrays, NeverDecodeTheFile) {
  source_.tile = {4, 4, 8};
  const SourceList list({source_}, model_, 0, false, false);
  std::vector<float> image(128);
  int64_t label = 0;
  list.load(0, 3, image.data(), &label);
  EXPECT_EQ(list.cache().decodes(), 0);
  EXPECT_FALSE(list.reads_whole(3));
}

TEST_F(PartsOfArrays, UnlessNormalizeNeedsTheRangeOfTheFile) {
  source_.tile = {4, 4, 8};
  source_.normalize.value = "minmax";
  source_.mean = {0};
  source_.std = {1};
  Loader loader({source_}, model_, options(false));
  const Batch first = loader.next();
  EXPECT_EQ(first.image[0][0][0][0][1].item<float>(), 1.0f / (9 * 10 * 11 - 1));
  const SourceList list({source_}, model_, 0, false, false);
  EXPECT_TRUE(list.reads_whole(0));
}

TEST_F(PartsOfArrays, AndThenAFileBeyondTheCacheIsRefused) {
  // 2^29 floats, of which none but the header is on the disk.
  write_npy(folder_.path("large/c.npy"), {1});
  std::string bytes;
  {
    std::ifstream file(folder_.path("large/c.npy"), std::ios::binary);
    bytes.assign((std::istreambuf_iterator<char>(file)), {});
  }
  bytes.resize(128);
  const std::string shape = "(1,), }", large = "(512, 1024, 1024,), }";
  bytes.replace(bytes.find(shape), large.size(), large);
  test::write_bytes(folder_.path("large/c.npy"), bytes);
  std::filesystem::resize_file(folder_.path("large/c.npy"), 128 + (int64_t{4} << 29));
  source_.root = folder_.path("large");
  source_.tile = {4, 4, 8};
  source_.normalize.value = "minmax";
  LoaderOptions few = options(false);
  few.cache_bytes = int64_t{1} << 30;
  few.read_retries = 0;
  Loader loader({source_}, model_, few);
  EXPECT_THAT(test::message_of<core::DataError>([&] { loader.next(); }),
              AllOf(HasSubstr("c.npy"), HasSubstr("2.0 GiB"), HasSubstr("set statistics")));
  source_.normalize.value = "none";
  Loader parts({source_}, model_, few);
  EXPECT_NO_THROW(parts.next());
}

}  // namespace
}  // namespace vitrail::data
