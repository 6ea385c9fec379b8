// .zarray of zarr version 2.

#include <algorithm>

#include "vitrail/core/error.h"
#include "vitrail/io/zarr_json.h"

namespace vitrail::io {
namespace {

using core::DataError;
using core::DType;
using Kind = ByteCodec::Kind;

constexpr std::pair<std::string_view, DType> kTypes[] = {
    {"b1", DType::boolean}, {"u1", DType::u8},  {"i1", DType::i8},  {"u2", DType::u16},
    {"i2", DType::i16},     {"u4", DType::u32}, {"i4", DType::i32}, {"u8", DType::u64},
    {"i8", DType::i64},     {"f2", DType::f16}, {"f4", DType::f32}, {"f8", DType::f64}};

void parse_dtype(const Json& value, ZarrMeta& meta, const std::string& name) {
  const std::string text = value.is_string() ? value.get<std::string>() : "";
  const bool has_order = text.size() == 3 && (text[0] == '<' || text[0] == '>' || text[0] == '|');
  for (const auto& [code, dtype] : kTypes) {
    if (!has_order || text.substr(1) != code || (text[0] == '|' && core::size_bytes(dtype) > 1))
      continue;
    meta.dtype = dtype;
    meta.codecs.big_endian = text[0] == '>';
    return;
  }
  core::fail<DataError>("[data] {}: dtype must be a number type such as '|u1' or '<f4' but got {}",
                        name, shown(value));
}

ByteCodec parse_codec(const Json& value, const char* what, int64_t item_bytes,
                      const std::string& name) {
  const std::string id =
      value.is_object() ? to_text(member(value, "id", name), "the id of a codec", name) : "";
  if (id == "blosc") return {Kind::blosc};
  if (id == "zstd") return {Kind::zstd};
  if (id == "lz4") return {Kind::lz4};
  if (id == "gzip" || id == "zlib") return {Kind::gzip};
  if (id == "bz2") return {Kind::bzip2};
  if (id == "crc32c") return {Kind::crc32c};
  if (id == "shuffle") {
    const Json& size = member_or_null(value, "elementsize");
    return {Kind::shuffle, size.is_null() ? item_bytes : to_integer(size, "elementsize", 1, name)};
  }
  core::fail<DataError>(
      "[data] {}: {} {} is not supported; there are blosc, zstd, lz4, gzip, zlib, bz2, and as "
      "filters shuffle and crc32c",
      name, what, shown(value));
}

/// Filters come before the compressor.
void parse_codecs(const Json& json, ZarrMeta& meta, const std::string& name) {
  const int64_t item = core::size_bytes(meta.dtype);
  const Json& filters = member_or_null(json, "filters");
  VT_REQUIRE(DataError, filters.is_null() || (filters.is_array() && filters.size() <= 8),
             "[data] {}: filters must be a list of at most 8 but got {}", name, shown(filters));
  for (const Json& filter : filters)
    meta.codecs.bytes.push_back(parse_codec(filter, "filter", item, name));
  const Json& compressor = member_or_null(json, "compressor");
  if (!compressor.is_null())
    meta.codecs.bytes.push_back(parse_codec(compressor, "compressor", item, name));
}

}  // namespace

ZarrMeta parse_zarr_v2(std::string_view zarray, const std::string& name) {
  const Json json = parse_json(zarray, name);
  VT_REQUIRE(DataError, member(json, "zarr_format", name) == 2,
             "[data] {}: zarr_format must be 2 but got {}", name, shown(json["zarr_format"]));
  ZarrMeta meta;
  meta.shape = to_integers(member(json, "shape", name), "shape", 0, name);
  meta.chunk_shape = to_integers(member(json, "chunks", name), "chunks", 1, name);
  parse_dtype(member(json, "dtype", name), meta, name);
  meta.fill = parse_fill(member_or_null(json, "fill_value"), meta.dtype, name);
  const std::string order = to_text(member(json, "order", name), "order", name);
  VT_REQUIRE(DataError, order == "C" || order == "F", "[data] {}: order must be C or F but got {}",
             name, shown(json["order"]));
  if (order == "F" && meta.shape.size() > 1)
    for (size_t axis = meta.shape.size(); axis-- > 0;)
      meta.codecs.order.push_back(static_cast<int64_t>(axis));
  const Json& separator = member_or_null(json, "dimension_separator");
  VT_REQUIRE(DataError, separator.is_null() || separator == "." || separator == "/",
             "[data] {}: dimension_separator must be . or / but got {}", name, shown(separator));
  meta.keys.separator = separator == "/" ? '/' : '.';
  parse_codecs(json, meta, name);
  check_sizes(meta, name);
  return meta;
}

}  // namespace vitrail::io
