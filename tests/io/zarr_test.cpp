#include "vitrail/io/zarr.h"

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <map>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/core/temp_folder.h"
#include "tests/io/fuzz.h"
#include "tests/io/python.h"
#include "tests/io/zarr_cases.h"
#include "vitrail/core/error.h"
#include "vitrail/io/n5.h"

namespace vitrail::io {
namespace {

using core::DataError;
using ::testing::AllOf;
using testing::ArrayCase;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::message_of;
using ::testing::Not;
using testing::TempFolder;

std::unique_ptr<ArrayFile> open_case(const ArrayCase& one, std::shared_ptr<ChunkCache> cache) {
  return one.format == "n5" ? open_n5(one.path, "", cache) : open_zarr(one.path, "", cache);
}

/// The matrix, written once for all tests of this file.
const std::vector<ArrayCase>& matrix() {
  static const TempFolder folder;
  static const std::vector<ArrayCase> cases = [] {
    const std::string script =
        std::filesystem::absolute(std::filesystem::path(__FILE__).parent_path() / "zarr_matrix.py");
    const std::string said = testing::run_python(
        folder.path(), "import sys, runpy\nsys.argv[1:] = ['.']\nrunpy.run_path('" + script +
                           "', run_name='__main__')\n");
    EXPECT_EQ(said.find("python failed"), std::string::npos) << said;
    return testing::parse_array_cases(said, folder.path());
  }();
  return cases;
}

TEST(Zarr, EqualsWhatZarrPythonAndTensorstoreWrote) {
  std::map<std::string, int> counts;
  const auto shared = std::make_shared<ChunkCache>(64 << 20);
  const auto tiny = std::make_shared<ChunkCache>(300);  // keeps a few of the chunks
  for (const ArrayCase& one : matrix()) {
    ++counts[one.format];
    expect_equal(one, *open_case(one, nullptr), 8);
    expect_equal(one, *open_case(one, shared), 8);
    expect_equal(one, *open_case(one, tiny), 8);
    if (HasFatalFailure() || HasNonfatalFailure()) break;
  }
  std::printf("%d zarr and %d N5 arrays, each whole and in 8 boxes, with 3 caches\n",
              counts["zarr"], counts["n5"]);
  EXPECT_GE(counts["zarr"], 200);
  EXPECT_GE(counts["n5"], 60);
}

TEST(Zarr, ManyThreadsReadThroughOneCacheWhatOneDoes) {
  const auto cache = std::make_shared<ChunkCache>(1 << 20);
  std::atomic<size_t> next{0};
  std::vector<std::jthread> threads;
  std::vector<std::pair<const ArrayCase*, std::shared_ptr<ArrayFile>>> arrays;
  for (size_t i = 0; i < matrix().size(); i += 25)
    arrays.emplace_back(&matrix()[i], open_case(matrix()[i], cache));
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&] {
      for (size_t i; (i = next++) < 4 * arrays.size();) {  // each array by four threads at once
        const auto& [one, array] = arrays[i / 4];
        expect_equal(*one, *array, 20);
      }
    });
  threads.clear();
  EXPECT_GT(cache->chunks().hits(), 0);
}

/// The first file of a folder that is no metadata.
std::string chunk_file(const std::string& folder) {
  std::vector<std::string> files;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
    const std::string name = entry.path().filename();
    if (entry.is_regular_file() && name[0] != '.' && name != "zarr.json" &&
        name != "attributes.json")
      files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  return files.empty() ? "" : files[0];
}

/// Without the flush to disk that would take most of a test's time.
void write_plainly(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

TEST(Zarr, RefusesDamagedChunksNamingTheFile) {
  int read = 0, refused = 0;
  for (size_t i = 0; i < matrix().size(); ++i) {
    const ArrayCase& one = matrix()[i];
    const std::string file = chunk_file(one.path);
    ASSERT_NE(file, "") << one.path;
    const std::string content = core::read_file(file, 1 << 24);
    const auto array = open_case(one, nullptr);
    for (uint32_t round = 0; round < 6; ++round) {
      write_plainly(file, testing::damaged(content, round + static_cast<uint32_t>(i)));
      const auto again = open_case(one, nullptr);
      try {
        testing::read_box(*again, std::vector<int64_t>(one.shape.size(), 0), one.shape);
        ++read;
      } catch (const DataError& error) {
        ++refused;
        EXPECT_THAT(error.what(), AllOf(HasSubstr(file), Not(HasSubstr("\n"))));
      }
    }
    write_plainly(file, content);
    expect_equal(one, *array, 1);
  }
  std::printf("%d damaged chunk files: %d refused, %d read (their codecs have no checksum)\n",
              read + refused, refused, read);
  EXPECT_GT(refused, read / 4);
}

TEST(Zarr, ReadsOnlyTheChunksOfAShardThatABoxTouches) {
  const TempFolder folder;
  const std::string said = testing::run_python(folder.path(), R"(
import numpy as np, zarr
data = np.arange(8 * 8, dtype="uint16").reshape(8, 8)
a = zarr.create_array("a", shape=(8, 8), chunks=(2, 4), shards=(8, 8), dtype="uint16", zarr_format=3)
a[...] = data
)");
  ASSERT_EQ(said, "");
  const std::string shard = folder.file("a/c/0/0");
  std::string content = core::read_file(shard, 1 << 20);
  // The index, 8 entries and a checksum, lies at the end; the entry of chunk (1, 1) has number 3.
  uint64_t place[2];
  std::memcpy(place, content.data() + content.size() - 4 - 16 * 8 + 16 * 3, sizeof place);
  std::fill_n(content.begin() + static_cast<std::ptrdiff_t>(place[0]), place[1], '\0');
  core::write_file_atomic(shard, content);
  const auto array = open_zarr(folder.file("a"), "", nullptr);
  EXPECT_THAT(array->chunk_shape(), ElementsAre(2, 4));
  const auto read = [&](int64_t z, int64_t y) {
    const std::string box =
        testing::read_box(*array, std::vector<int64_t>{z, y}, std::vector<int64_t>{2, 4});
    uint16_t first = 0;
    std::memcpy(&first, box.data(), 2);
    return first;
  };
  EXPECT_EQ(read(2, 0), 16);
  EXPECT_EQ(read(4, 4), 36);
  EXPECT_THAT(message_of<DataError>([&] { read(2, 4); }),
              AllOf(HasSubstr("a/c/0/0 at byte"), HasSubstr("broken")));
  EXPECT_THAT(message_of<DataError>([&] { read(7, 0); }), HasSubstr("must lie inside"));
}

}  // namespace
}  // namespace vitrail::io
