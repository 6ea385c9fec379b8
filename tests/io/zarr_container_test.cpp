// Finding arrays in containers, names of axes, and what is refused.

#include <filesystem>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/core/temp_folder.h"
#include "tests/io/fuzz.h"
#include "tests/io/python.h"
#include "vitrail/core/atomic_file.h"
#include "vitrail/core/error.h"
#include "vitrail/io/n5.h"
#include "vitrail/io/zarr.h"

namespace vitrail::io {
namespace {

using core::DataError;
using ::testing::AllOf;
using testing::as_bytes;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::message_of;
using testing::TempFolder;

constexpr const char* kV2 =
    R"({"zarr_format": 2, "shape": [5, 6], "chunks": [2, 3], "dtype": "<u2", "order": "C",
        "fill_value": 7, "compressor": {"id": "zstd", "level": 1}, "filters": null,
        "dimension_separator": "/"})";
constexpr const char* kV3 =
    R"({"zarr_format": 3, "node_type": "array", "shape": [5, 6], "data_type": "uint16",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [4, 6]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 7, "dimension_names": ["y", "x"], "attributes": {"odd": NaN},
        "codecs": [{"name": "transpose", "configuration": {"order": [1, 0]}},
          {"name": "sharding_indexed", "configuration": {"chunk_shape": [3, 2],
            "codecs": [{"name": "bytes", "configuration": {"endian": "big"}},
                       {"name": "zstd", "configuration": {"level": 1}}],
            "index_codecs": [{"name": "bytes", "configuration": {"endian": "little"}},
                             {"name": "crc32c"}], "index_location": "end"}}]})";
constexpr const char* kN5 =
    R"({"dimensions": [6, 5], "blockSize": [3, 2], "dataType": "uint16",
        "compression": {"type": "gzip", "level": 1}, "axes": ["x", "y"]})";

/// `text` with the first `old` replaced.
std::string with(std::string text, const std::string& old, const std::string& now) {
  const size_t at = text.find(old);
  EXPECT_NE(at, std::string::npos) << old;
  return at == std::string::npos ? text : text.replace(at, old.size(), now);
}

void put(const TempFolder& folder, const std::string& name, const std::string& text) {
  const std::string path = folder.file(name);
  std::filesystem::create_directories(std::filesystem::path(path).parent_path());
  core::write_file_atomic(path, text);
}

TEST(ZarrMetadata, TellsShapesChunksAndAxes) {
  const ZarrMeta v2 = parse_zarr_v2(kV2, "a");
  EXPECT_THAT(v2.shape, ElementsAre(5, 6));
  EXPECT_THAT(v2.chunk_shape, ElementsAre(2, 3));
  EXPECT_EQ(static_cast<int>(v2.fill[0]), 7);
  const ZarrMeta v3 = parse_zarr_v3(kV3, "a");
  EXPECT_EQ(v3.axes, "yx");
  EXPECT_THAT(v3.codecs.order, ElementsAre(1, 0));
  ASSERT_NE(v3.codecs.shard, nullptr);
  EXPECT_THAT(v3.codecs.shard->grid, ElementsAre(2, 2));
  EXPECT_EQ(v3.codecs.shard->index_bytes(), 68);
  const ZarrMeta n5 = parse_n5(kN5, "a");
  EXPECT_THAT(n5.shape, ElementsAre(5, 6));
  EXPECT_THAT(n5.chunk_shape, ElementsAre(2, 3));
  EXPECT_EQ(n5.axes, "yx");
}

TEST(ZarrMetadata, RefusesWhatItCannotReadNamingFileAndKey) {
  const auto v2 = [](const std::string& old, const std::string& now) {
    return message_of<DataError>([&] { parse_zarr_v2(with(kV2, old, now), "f/.zarray"); });
  };
  const auto v3 = [](const std::string& old, const std::string& now) {
    return message_of<DataError>([&] { parse_zarr_v3(with(kV3, old, now), "f/zarr.json"); });
  };
  const auto n5 = [](const std::string& old, const std::string& now) {
    return message_of<DataError>([&] { parse_n5(with(kN5, old, now), "f/attributes.json"); });
  };
  EXPECT_THAT(v2("<u2", "<c8"),
              AllOf(HasSubstr("f/.zarray"), HasSubstr("dtype"), HasSubstr("<c8")));
  EXPECT_THAT(v2("\"<u2\"", "[[\"a\", \"<u2\"]]"), HasSubstr("dtype"));
  EXPECT_THAT(v2("null", R"([{"id": "delta", "dtype": "<u2"}])"),
              AllOf(HasSubstr("filter"), HasSubstr("delta")));
  EXPECT_THAT(v2("zstd", "lzma"), AllOf(HasSubstr("compressor"), HasSubstr("lzma")));
  EXPECT_THAT(v2("[2, 3]", "[2, 0]"), HasSubstr("chunks"));
  EXPECT_THAT(v2("[2, 3]", "[2]"), HasSubstr("1"));
  EXPECT_THAT(v2("[5, 6]", "[5, -6]"), HasSubstr("shape"));
  EXPECT_THAT(v2("[5, 6]", "[5000000000000, 6000000000000]"), HasSubstr("63 bits"));
  EXPECT_THAT(v2("[2, 3]", "[70000, 70000]"), HasSubstr("2 GiB"));
  EXPECT_THAT(v2("\"fill_value\": 7", "\"fill_value\": 70000"), HasSubstr("fill_value"));
  EXPECT_THAT(v2("\"fill_value\": 7", "\"fill_value\": \"AAAA\""), HasSubstr("fill_value"));
  EXPECT_THAT(v2("\"zarr_format\": 2", "\"zarr_format\": 4"), HasSubstr("zarr_format"));
  EXPECT_THAT(v2("{", "["), HasSubstr("JSON"));
  EXPECT_THAT(v2("null", std::string(100, '[') + std::string(100, ']')), HasSubstr("nested"));
  EXPECT_THAT(v3("uint16", "complex64"), HasSubstr("complex64"));
  EXPECT_THAT(v3("regular", "rectilinear"), HasSubstr("chunk_grid"));
  EXPECT_THAT(v3("\"name\": \"zstd\"", "\"name\": \"vlen-utf8\""), HasSubstr("vlen-utf8"));
  EXPECT_THAT(v3("[3, 2]", "[4, 2]"), HasSubstr("whole chunks"));
  EXPECT_THAT(v3("[1, 0]", "[1, 1]"), HasSubstr("transpose"));
  EXPECT_THAT(v3("\"endian\": \"big\"", "\"endian\": \"pdp\""), HasSubstr("endian"));
  EXPECT_THAT(v3("\"end\"", "\"middle\""), HasSubstr("index_location"));
  EXPECT_THAT(v3("\"end\"}}", "\"end\"}}, \"zstd\""), HasSubstr("around whole shards"));
  EXPECT_THAT(v3("\"attributes\"", "\"novelty\""), HasSubstr("novelty"));
  EXPECT_THAT(n5("gzip", "xz"), HasSubstr("xz"));
  EXPECT_THAT(n5("uint16", "string"), HasSubstr("dataType"));
  EXPECT_THAT(n5("[3, 2]", "[3]"), HasSubstr("axes"));
}

TEST(ZarrMetadata, SurvivesDamage) {
  const auto text = [](std::span<const std::byte> bytes) {
    return std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  };
  const auto parse = [&](auto* parser) {
    return [=](std::span<const std::byte> bytes) { parser(text(bytes), "fuzzed"); };
  };
  testing::fuzz<DataError>(kV2, 20000, parse(&parse_zarr_v2));
  testing::fuzz<DataError>(kV3, 20000, parse(&parse_zarr_v3));
  testing::fuzz<DataError>(kN5, 20000, parse(&parse_n5));
  const ZarrMeta meta = parse_zarr_v3(kV3, "a");
  std::string index(68, '\0');
  const auto counts = testing::fuzz<DataError>(index, 2000, [&](std::span<const std::byte> bytes) {
    parse_shard_index(bytes, *meta.codecs.shard, 100, "fuzzed");
  });
  EXPECT_EQ(counts.read, 0);  // its checksum is wrong
  ShardLayout plain = *meta.codecs.shard;
  plain.index_has_checksum = false;
  index.resize(64);
  testing::fuzz<DataError>(index, 2000, [&](std::span<const std::byte> bytes) {
    for (const ShardEntry& entry : parse_shard_index(bytes, plain, 100, "fuzzed")) {
      EXPECT_LE(entry.offset, 100);
      EXPECT_LE(entry.bytes, 100 - entry.offset);
    }
  });
}

TEST(ZarrContainer, FindsTheArrayThatIsMeant) {
  const TempFolder folder;
  const std::string root = folder.path() + "/a.zarr";
  put(folder, "a.zarr/.zgroup", R"({"zarr_format": 2})");
  put(folder, "a.zarr/em/s0/.zarray", kV2);
  EXPECT_THAT(open_zarr(root, "", nullptr)->shape(), ElementsAre(5, 6));  // the only one
  put(folder, "a.zarr/em/s1/.zarray", with(kV2, "[5, 6]", "[3, 3]"));
  put(folder, "a.zarr/em/s10/.zarray", with(kV2, "[5, 6]", "[1, 1]"));
  EXPECT_THAT(message_of<DataError>([&] { open_zarr(root, "", nullptr); }),
              AllOf(HasSubstr("a.zarr"), HasSubstr("there are: em/s0, em/s1, em/s10")));
  std::filesystem::remove_all(root + "/em/s10");
  EXPECT_THAT(open_zarr(root, "", nullptr)->shape(), ElementsAre(5, 6));  // s0 of s0, s1
  EXPECT_THAT(open_zarr(root, "em/s1", nullptr)->shape(), ElementsAre(3, 3));
  put(folder, "a.zarr/labels/zarr.json", kV3);
  EXPECT_THAT(message_of<DataError>([&] { open_zarr(root, "", nullptr); }),
              HasSubstr("there are: em/s0, em/s1, labels"));
  EXPECT_THAT(open_zarr(root, "em", nullptr)->shape(), ElementsAre(5, 6));
  EXPECT_EQ(open_zarr(root, "labels", nullptr)->axes(), "yx");
  EXPECT_THAT(open_zarr(root, "labels", nullptr)->chunk_shape(), ElementsAre(2, 3));
  EXPECT_THAT(message_of<DataError>([&] { open_zarr(root, "volume", nullptr); }),
              AllOf(HasSubstr("'volume'"), HasSubstr("em/s0, em/s1, labels")));
  put(folder, "a.zarr/broken/.zarray", "{");
  const std::vector<ArrayEntry> entries = list_zarr(root);
  ASSERT_EQ(entries.size(), 4u);
  EXPECT_EQ(entries[0].name, "broken");
  EXPECT_THAT(entries[0].error, HasSubstr("broken/.zarray"));
  EXPECT_EQ(entries[2].name, "em/s1");
  EXPECT_THAT(entries[2].shape, ElementsAre(3, 3));
  EXPECT_THAT(message_of<DataError>([&] { open_zarr(folder.file("none"), "", nullptr); }),
              HasSubstr("must be a folder"));
  std::filesystem::create_directories(folder.file("empty"));
  EXPECT_THAT(message_of<DataError>([&] { open_zarr(folder.file("empty"), "", nullptr); }),
              HasSubstr("holds no zarr array"));
}

TEST(ZarrContainer, TakesTheLargestScaleAndItsAxesFromOmeNgff) {
  const TempFolder folder;
  const std::string scales =
      R"("multiscales": [{"axes": [{"name": "y", "type": "space"}, {"name": "x"}],
          "datasets": [{"path": "full/0"}, {"path": "half"}]}])";
  put(folder, "v4/.zgroup", R"({"zarr_format": 2})");
  put(folder, "v4/.zattrs", "{" + scales + "}");
  put(folder, "v4/full/0/.zarray", kV2);
  put(folder, "v4/half/.zarray", with(kV2, "[5, 6]", "[3, 3]"));
  put(folder, "v5/zarr.json",
      R"({"zarr_format": 3, "node_type": "group", "attributes":
      {"ome": {"version": "0.5", )" +
          scales + "}}}");
  const std::string unnamed = with(kV3, R"("dimension_names": ["y", "x"],)", "");
  put(folder, "v5/full/0/zarr.json", unnamed);
  put(folder, "v5/half/zarr.json", with(unnamed, "[5, 6]", "[3, 3]"));
  for (const char* version : {"v4", "v5"}) {
    const auto array = open_zarr(folder.file(version), "", nullptr);
    EXPECT_THAT(array->shape(), ElementsAre(5, 6));
    EXPECT_EQ(array->axes(), "yx");
    EXPECT_EQ(open_zarr(folder.file(version), "half", nullptr)->axes(), "yx");
    EXPECT_EQ(open_zarr(folder.file(version) + "/full/0/", "", nullptr)->axes(), "yx");
  }
  put(folder, "v4/half/.zattrs", R"({"_ARRAY_DIMENSIONS": ["time", "channel"]})");
  EXPECT_EQ(open_zarr(folder.file("v4"), "half", nullptr)->axes(), "tc");
  put(folder, "v4/half/.zattrs", R"({"_ARRAY_DIMENSIONS": ["lat", "lon"]})");
  EXPECT_EQ(open_zarr(folder.file("v4"), "full/0", nullptr)->axes(), "yx");
}

TEST(ZarrContainer, TellsFormatsApart) {
  const TempFolder folder;
  put(folder, "plain/notes.txt", "");
  put(folder, "a/.zarray", kV2);
  put(folder, "b/zarr.json", kV3);
  put(folder, "c/attributes.json", kN5);
  put(folder, "d.zarr/em/.zgroup", "{}");
  put(folder, "e.n5/em/attributes.json", "{}");
  std::string zarr, n5;
  for (const std::string name : {"plain", "a", "b", "c", "d.zarr", "d.zarr/", "e.n5", "none"}) {
    if (is_zarr(folder.file(name))) zarr += name + " ";
    if (is_n5(folder.file(name))) n5 += name + " ";
  }
  EXPECT_EQ(zarr, "a b d.zarr d.zarr/ ");
  EXPECT_EQ(n5, "c e.n5 ");
  EXPECT_THAT(open_n5(folder.file("c"), "", nullptr)->shape(), ElementsAre(5, 6));
  EXPECT_EQ(list_n5(folder.path()).size(), 1u);
}

}  // namespace
}  // namespace vitrail::io
