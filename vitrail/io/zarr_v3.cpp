// zarr.json of zarr version 3.

#include <algorithm>
#include <optional>

#include "vitrail/core/error.h"
#include "vitrail/io/zarr_json.h"

namespace vitrail::io {
namespace {

using core::DataError;
using core::DType;
using Kind = ByteCodec::Kind;

constexpr int kMaxShardLevels = 4;

constexpr std::pair<std::string_view, DType> kTypes[] = {
    {"bool", DType::boolean}, {"uint8", DType::u8},    {"int8", DType::i8},
    {"uint16", DType::u16},   {"int16", DType::i16},   {"uint32", DType::u32},
    {"int32", DType::i32},    {"uint64", DType::u64},  {"int64", DType::i64},
    {"float16", DType::f16},  {"float32", DType::f32}, {"float64", DType::f64},
    {"bfloat16", DType::bf16}};

constexpr std::pair<std::string_view, Kind> kCodecs[] = {{"blosc", Kind::blosc},
                                                         {"zstd", Kind::zstd},
                                                         {"gzip", Kind::gzip},
                                                         {"crc32c", Kind::crc32c},
                                                         {"numcodecs.blosc", Kind::blosc},
                                                         {"numcodecs.zstd", Kind::zstd},
                                                         {"numcodecs.gzip", Kind::gzip},
                                                         {"numcodecs.zlib", Kind::gzip},
                                                         {"numcodecs.lz4", Kind::lz4},
                                                         {"numcodecs.bz2", Kind::bzip2},
                                                         {"numcodecs.crc32c", Kind::crc32c},
                                                         {"numcodecs.shuffle", Kind::shuffle}};

/// {"name": ..., "configuration": {...}}, or only the name.
struct Extension {
  std::string name;
  const Json* configuration;
};

Extension to_extension(const Json& value, const char* what, const std::string& name) {
  static const Json none = Json::object();
  if (value.is_string()) return {value.get<std::string>(), &none};
  Extension extension{to_text(member(value, "name", name), what, name), &none};
  const Json& configuration = member_or_null(value, "configuration");
  if (configuration.is_object()) extension.configuration = &configuration;
  return extension;
}

DType parse_type(const Json& value, const std::string& name) {
  const std::string text = to_extension(value, "data_type", name).name;
  for (const auto& [known, dtype] : kTypes)
    if (text == known) return dtype;
  core::fail<DataError>("[data] {}: data_type must be a plain number type but got {}", name,
                        shown(value));
}

bool parse_endian(const Json& configuration, DType dtype, const std::string& name) {
  const Json& endian = member_or_null(configuration, "endian");
  const bool is_needless = endian.is_null() && core::size_bytes(dtype) == 1;
  VT_REQUIRE(DataError, is_needless || endian == "little" || endian == "big",
             "[data] {}: endian of the codec bytes must be little or big but got {}", name,
             shown(endian));
  return endian == "big";
}

void parse_transpose(const Json& configuration, size_t axes, ChunkCodecs& codecs,
                     const std::string& name) {
  const Json& value = member(configuration, "order", name);
  std::vector<int64_t> order;
  if (value == "C" || value == "F") {  // drafts of the specification
    for (size_t k = 0; k < axes; ++k)
      order.push_back(static_cast<int64_t>(value == "C" ? k : axes - 1 - k));
  } else {
    order = to_integers(value, "order of transpose", 0, name);
  }
  std::vector<int64_t> sorted = order;
  std::sort(sorted.begin(), sorted.end());
  bool is_permutation = order.size() == axes;
  for (size_t k = 0; k < sorted.size(); ++k)
    is_permutation = is_permutation && sorted[k] == static_cast<int64_t>(k);
  VT_REQUIRE(DataError, is_permutation,
             "[data] {}: order of transpose must hold each of {} axes once but got {}", name, axes,
             shown(value));
  if (codecs.order.empty()) {
    codecs.order = order;
  } else {  // one after the other
    for (int64_t& axis : order) axis = codecs.order[static_cast<size_t>(axis)];
    codecs.order = order;
  }
}

ByteCodec parse_byte_codec(const Extension& codec, DType dtype, const Json& value,
                           const std::string& name) {
  for (const auto& [known, kind] : kCodecs) {
    if (codec.name != known) continue;
    const Json& size = member_or_null(*codec.configuration, "elementsize");
    if (kind != Kind::shuffle) return {kind};
    return {kind,
            size.is_null() ? core::size_bytes(dtype) : to_integer(size, "elementsize", 1, name)};
  }
  core::fail<DataError>(
      "[data] {}: the codec {} is not supported; there are bytes, transpose, sharding_indexed, "
      "blosc, zstd, gzip, crc32c and numcodecs' blosc, zstd, gzip, zlib, lz4, bz2, shuffle",
      name, shown(value));
}

ChunkCodecs parse_codecs(const Json& list, size_t axes, DType dtype, int level,
                         const std::string& name);

void parse_index_codecs(const Json& list, ShardLayout& shard, const std::string& name) {
  VT_REQUIRE(DataError, list.is_array() && !list.empty() && list.size() <= 2,
             "[data] {}: index_codecs must be bytes and maybe crc32c but got {}", name,
             shown(list));
  const Extension first = to_extension(list[0], "a codec", name);
  const bool has_second = list.size() == 2;
  VT_REQUIRE(DataError,
             first.name == "bytes" &&
                 (!has_second || to_extension(list[1], "a codec", name).name == "crc32c"),
             "[data] {}: index_codecs must be bytes and maybe crc32c but got {}", name,
             shown(list));
  shard.index_is_big_endian = parse_endian(*first.configuration, DType::u64, name);
  shard.index_has_checksum = has_second;
}

std::shared_ptr<const ShardLayout> parse_shard(const Json& configuration, size_t axes, DType dtype,
                                               int level, const std::string& name) {
  VT_REQUIRE(DataError, level < kMaxShardLevels, "[data] {}: shards in shards, over {} deep", name,
             kMaxShardLevels);
  auto shard = std::make_shared<ShardLayout>();
  shard->chunk_shape =
      to_integers(member(configuration, "chunk_shape", name), "chunk_shape of a shard", 1, name);
  shard->codecs = parse_codecs(member(configuration, "codecs", name), axes, dtype, level + 1, name);
  parse_index_codecs(member(configuration, "index_codecs", name), *shard, name);
  const Json& location = member_or_null(configuration, "index_location");
  VT_REQUIRE(DataError, location.is_null() || location == "start" || location == "end",
             "[data] {}: index_location must be start or end but got {}", name, shown(location));
  shard->index_at_end = location != "start";
  return shard;
}

/// Any transposes, then bytes or sharding_indexed, then any compression.
ChunkCodecs parse_codecs(const Json& list, size_t axes, DType dtype, int level,
                         const std::string& name) {
  VT_REQUIRE(DataError, list.is_array() && list.size() <= 8,
             "[data] {}: codecs must be a list of at most 8 but got {}", name, shown(list));
  ChunkCodecs codecs;
  bool has_bytes = false;
  for (const Json& value : list) {
    const Extension codec = to_extension(value, "a codec", name);
    if (codec.name == "transpose" && !has_bytes) {
      parse_transpose(*codec.configuration, axes, codecs, name);
    } else if (codec.name == "bytes" && !has_bytes) {
      codecs.big_endian = parse_endian(*codec.configuration, dtype, name);
      has_bytes = true;
    } else if (codec.name == "sharding_indexed" && !has_bytes) {
      codecs.shard = parse_shard(*codec.configuration, axes, dtype, level, name);
      has_bytes = true;
    } else {
      const ByteCodec byte_codec = parse_byte_codec(codec, dtype, value, name);
      VT_REQUIRE(DataError, has_bytes, "[data] {}: the codec {} must come behind bytes", name,
                 shown(value));
      VT_REQUIRE(DataError, codecs.shard == nullptr,
                 "[data] {}: {} around whole shards is not supported: parts of them could not be "
                 "read",
                 name, io::name(byte_codec.kind));
      codecs.bytes.push_back(byte_codec);
    }
  }
  VT_REQUIRE(DataError, has_bytes, "[data] {}: codecs must hold bytes or sharding_indexed", name);
  return codecs;
}

ChunkKeys parse_keys(const Json& value, const std::string& name) {
  const Extension encoding = to_extension(value, "chunk_key_encoding", name);
  const bool is_default = encoding.name == "default";
  const Json& separator = member_or_null(*encoding.configuration, "separator");
  VT_REQUIRE(DataError,
             (is_default || encoding.name == "v2") &&
                 (separator.is_null() || separator == "." || separator == "/"),
             "[data] {}: chunk_key_encoding must be default or v2 with . or / but got {}", name,
             shown(value));
  ChunkKeys keys;
  keys.prefix = is_default ? "c" : "";
  keys.separator = is_default ? '/' : '.';
  if (!separator.is_null()) keys.separator = separator == "/" ? '/' : '.';
  return keys;
}

std::string parse_axes(const Json& json) {
  const Json& names = member_or_null(json, "dimension_names");
  if (!names.is_array()) return axes_of_attributes(member_or_null(json, "attributes"));
  std::vector<std::string> texts;
  for (const Json& item : names) texts.push_back(item.is_string() ? item.get<std::string>() : "");
  return axes_of_names(texts);
}

void check_understood(const Json& json, const std::string& name) {
  constexpr std::string_view known[] = {
      "zarr_format",         "node_type",  "shape",  "data_type",  "chunk_grid",
      "chunk_key_encoding",  "fill_value", "codecs", "attributes", "dimension_names",
      "storage_transformers"};
  for (const auto& [key, value] : json.items())
    VT_REQUIRE(DataError,
               std::find(std::begin(known), std::end(known), key) != std::end(known) ||
                   member_or_null(value, "must_understand") == false || value.is_null(),
               "[data] {}: the extension '{}' is not known", name, shown(Json(key)));
  const Json& transformers = member_or_null(json, "storage_transformers");
  VT_REQUIRE(DataError, transformers.is_null() || transformers.empty(),
             "[data] {}: storage_transformers are not supported", name);
}

}  // namespace

ZarrMeta parse_zarr_v3(std::string_view zarr_json, const std::string& name) {
  const Json json = parse_json(zarr_json, name);
  VT_REQUIRE(DataError,
             member(json, "zarr_format", name) == 3 && json.contains("node_type") &&
                 json["node_type"] == "array",
             "[data] {}: must be an array of zarr_format 3", name);
  check_understood(json, name);
  ZarrMeta meta;
  meta.shape = to_integers(member(json, "shape", name), "shape", 0, name);
  const Extension grid = to_extension(member(json, "chunk_grid", name), "chunk_grid", name);
  VT_REQUIRE(DataError, grid.name == "regular", "[data] {}: chunk_grid must be regular but got {}",
             name, shown(json["chunk_grid"]));
  meta.chunk_shape =
      to_integers(member(*grid.configuration, "chunk_shape", name), "chunk_shape", 1, name);
  meta.dtype = parse_type(member(json, "data_type", name), name);
  meta.fill = parse_fill(member(json, "fill_value", name), meta.dtype, name);
  meta.keys = parse_keys(member(json, "chunk_key_encoding", name), name);
  meta.codecs = parse_codecs(member(json, "codecs", name), meta.shape.size(), meta.dtype, 0, name);
  meta.axes = parse_axes(json);
  check_sizes(meta, name);
  return meta;
}

}  // namespace vitrail::io
