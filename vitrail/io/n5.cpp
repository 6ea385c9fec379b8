#include "vitrail/io/n5.h"

#include <algorithm>
#include <filesystem>

#include "vitrail/core/atomic_file.h"
#include "vitrail/core/error.h"
#include "vitrail/io/zarr_json.h"

namespace vitrail::io {
namespace {

using core::DataError;
using core::DType;
using Kind = ByteCodec::Kind;

constexpr const char* kAttributes = "attributes.json";

constexpr std::pair<std::string_view, DType> kTypes[] = {
    {"uint8", DType::u8},    {"int8", DType::i8},    {"uint16", DType::u16}, {"int16", DType::i16},
    {"uint32", DType::u32},  {"int32", DType::i32},  {"uint64", DType::u64}, {"int64", DType::i64},
    {"float32", DType::f32}, {"float64", DType::f64}};

DType parse_type(const Json& value, const std::string& name) {
  for (const auto& [known, dtype] : kTypes)
    if (value == known) return dtype;
  core::fail<DataError>("[data] {}: dataType must be a number type but got {}", name, shown(value));
}

std::vector<ByteCodec> parse_compression(const Json& json, const std::string& name) {
  const Json& compression = member_or_null(json, "compression");
  const Json& type = compression.is_object() ? member_or_null(compression, "type")
                                             : member_or_null(json, "compressionType");
  if (type == "raw") return {};
  if (type == "gzip") return {{Kind::gzip}};
  if (type == "bzip2") return {{Kind::bzip2}};
  if (type == "lz4") return {{Kind::lz4_blocks}};
  if (type == "blosc") return {{Kind::blosc}};
  if (type == "zstd") return {{Kind::zstd}};
  core::fail<DataError>(
      "[data] {}: compression must be raw, gzip, bzip2, lz4, blosc or zstd but got {}", name,
      shown(type));
}

std::vector<int64_t> reversed(std::vector<int64_t> sides) {
  std::reverse(sides.begin(), sides.end());
  return sides;
}

std::string parse_axes(const Json& json) {
  std::vector<std::string> names;
  const Json& axes = member_or_null(json, "axes");
  if (!axes.is_array()) return "";
  for (const Json& axis : axes) names.push_back(axis.is_string() ? axis.get<std::string>() : "");
  std::reverse(names.begin(), names.end());
  return axes_of_names(names);
}

ZarrMeta parse_array(const Json& json, const std::string& name) {
  ZarrMeta meta;
  meta.shape = reversed(to_integers(member(json, "dimensions", name), "dimensions", 0, name));
  meta.chunk_shape = reversed(to_integers(member(json, "blockSize", name), "blockSize", 1, name));
  VT_REQUIRE(DataError, !meta.shape.empty(), "[data] {}: dimensions must not be empty", name);
  meta.dtype = parse_type(member(json, "dataType", name), name);
  meta.codecs.bytes = parse_compression(json, name);
  meta.codecs.big_endian = true;
  meta.codecs.has_n5_header = true;
  meta.keys.is_reversed = true;
  meta.axes = parse_axes(json);
  check_sizes(meta, name);
  return meta;
}

std::optional<ZarrMeta> read_n5_array(const std::string& folder) {
  const std::string file = folder + '/' + kAttributes;
  const Json json = read_json(file);
  if (!json.is_object() || !json.contains("dimensions")) return std::nullopt;
  return parse_array(json, file);
}

std::optional<Multiscales> read_no_multiscales(const std::string&) { return std::nullopt; }

const ContainerFormat kFormat{"N5", {kAttributes}, &read_n5_array, &read_no_multiscales};

}  // namespace

ZarrMeta parse_n5(std::string_view attributes, const std::string& name) {
  return parse_array(parse_json(attributes, name), name);
}

std::unique_ptr<ArrayFile> open_n5(const std::string& path, const std::string& array,
                                   std::shared_ptr<ChunkCache> cache) {
  return open_array(kFormat, path, array, std::move(cache));
}

std::vector<ArrayEntry> list_n5(const std::string& path) { return list_arrays(kFormat, path); }

bool is_n5(const std::string& path) {
  namespace fs = std::filesystem;
  std::error_code error;
  const fs::path folder = path;
  if (!fs::is_directory(folder, error)) return false;
  const fs::path name = folder.has_filename() ? folder : folder.parent_path();
  return name.extension() == ".n5" || fs::exists(folder / kAttributes, error);
}

}  // namespace vitrail::io
