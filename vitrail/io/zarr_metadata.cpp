#include "vitrail/io/zarr_metadata.h"

#include <algorithm>
#include <cstring>

#include "vitrail/core/checksum.h"
#include "vitrail/core/error.h"
#include "vitrail/core/text.h"

namespace vitrail::io {
namespace {

using core::DataError;

int64_t product(std::span<const int64_t> sides, int64_t item, const char* what,
                const std::string& name) {
  int64_t result = item;
  for (const int64_t side : sides)
    VT_REQUIRE(DataError, !__builtin_mul_overflow(result, side, &result),
               "[data] {}: {} [{}] is beyond 63 bits", name, what, fmt::join(sides, ", "));
  return result;
}

std::vector<int64_t> in_stored_order(const std::vector<int64_t>& sides, const ChunkCodecs& codecs) {
  if (codecs.order.empty()) return sides;
  std::vector<int64_t> stored;
  for (const int64_t axis : codecs.order) stored.push_back(sides[static_cast<size_t>(axis)]);
  return stored;
}

/// A chunk of `sides`; shards are completed from the outside in.
void check_chunk(const std::vector<int64_t>& sides, ChunkCodecs& codecs, int64_t item,
                 const std::string& name) {
  const int64_t bytes = product(sides, item, "a chunk", name);
  if (codecs.shard == nullptr) {
    VT_REQUIRE(DataError, bytes <= kMaxChunkBytes,
               "[data] {}: a chunk [{}] of {} must not be above 2 GiB", name,
               fmt::join(sides, ", "), core::format_bytes(bytes));
    return;
  }
  auto shard = std::make_shared<ShardLayout>(*codecs.shard);
  const std::vector<int64_t> stored = in_stored_order(sides, codecs);
  const std::vector<int64_t>& inner = shard->chunk_shape;
  VT_REQUIRE(DataError, inner.size() == stored.size(),
             "[data] {}: the chunks of a shard must have {} axes but have {}", name, stored.size(),
             inner.size());
  shard->grid.clear();
  for (size_t axis = 0; axis < inner.size(); ++axis) {
    VT_REQUIRE(DataError, inner[axis] > 0 && stored[axis] % inner[axis] == 0,
               "[data] {}: a shard [{}] must be made of whole chunks but they are [{}]", name,
               fmt::join(stored, ", "), fmt::join(inner, ", "));
    shard->grid.push_back(stored[axis] / inner[axis]);
  }
  shard->chunks = product(shard->grid, 1, "the number of chunks of a shard", name);
  VT_REQUIRE(DataError, shard->chunks <= kMaxChunkBytes / 16,
             "[data] {}: a shard of {} chunks is too large", name, shard->chunks);
  check_chunk(inner, shard->codecs, item, name);
  codecs.shard = std::move(shard);
}

uint64_t u64_at(std::span<const std::byte> bytes, size_t at, bool is_big_endian) {
  uint64_t value = 0;
  std::memcpy(&value, bytes.data() + at, 8);
  return is_big_endian ? __builtin_bswap64(value) : value;
}

}  // namespace

void check_sizes(ZarrMeta& meta, const std::string& name) {
  VT_REQUIRE(DataError, meta.shape.size() == meta.chunk_shape.size(),
             "[data] {}: shape has {} axes but chunks have {}", name, meta.shape.size(),
             meta.chunk_shape.size());
  for (const int64_t side : meta.chunk_shape)
    VT_REQUIRE(DataError, side > 0, "[data] {}: the sides of a chunk must be positive but got [{}]",
               name, fmt::join(meta.chunk_shape, ", "));
  product(meta.shape, core::size_bytes(meta.dtype), "shape", name);
  check_chunk(meta.chunk_shape, meta.codecs, core::size_bytes(meta.dtype), name);
  if (meta.axes.size() != meta.shape.size()) meta.axes.clear();
}

std::string chunk_path(const ChunkKeys& keys, std::span<const int64_t> place) {
  std::string path = keys.prefix;
  if (place.empty()) return path.empty() ? "0" : path;
  for (size_t i = 0; i < place.size(); ++i) {
    if (!path.empty()) path += keys.separator;
    fmt::format_to(std::back_inserter(path), "{}",
                   place[keys.is_reversed ? place.size() - 1 - i : i]);
  }
  return path;
}

std::string axes_of_names(std::span<const std::string> names) {
  std::string axes;
  for (const std::string& name : names) {
    char letter = 0;
    if (name == "time") letter = 't';
    if (name == "channel") letter = 'c';
    if (name.size() == 1) letter = static_cast<char>(name[0] | 0x20);
    if (letter == 0 || std::string_view("tczyx").find(letter) == std::string_view::npos ||
        axes.find(letter) != std::string::npos)
      return "";
    axes += letter;
  }
  return axes;
}

std::vector<ShardEntry> parse_shard_index(std::span<const std::byte> index,
                                          const ShardLayout& layout, int64_t shard_bytes,
                                          const std::string& name) {
  constexpr uint64_t kNone = ~uint64_t{0};
  const auto chunks = static_cast<size_t>(layout.chunks);
  VT_REQUIRE(DataError, static_cast<int64_t>(index.size()) == layout.index_bytes(),
             "[data] {}: the index of a shard must have {} bytes but has {}", name,
             layout.index_bytes(), index.size());
  if (layout.index_has_checksum) {
    uint32_t expected = 0;
    std::memcpy(&expected, index.data() + 16 * chunks, 4);
    VT_REQUIRE(DataError, core::crc32c(index.data(), 16 * chunks) == expected,
               "[data] {}: the CRC-32C of the shard's index is wrong: the file is damaged", name);
  }
  std::vector<ShardEntry> entries(chunks);
  for (size_t i = 0; i < chunks; ++i) {
    const uint64_t offset = u64_at(index, 16 * i, layout.index_is_big_endian);
    const uint64_t bytes = u64_at(index, 16 * i + 8, layout.index_is_big_endian);
    if (offset == kNone && bytes == kNone) continue;
    const auto total = static_cast<uint64_t>(shard_bytes);
    VT_REQUIRE(DataError, offset <= total && bytes <= total - offset,
               "[data] {}: chunk {} of the shard is said to lie at bytes {} + {} of {}", name, i,
               offset, bytes, shard_bytes);
    entries[i] = {static_cast<int64_t>(offset), static_cast<int64_t>(bytes)};
  }
  return entries;
}

}  // namespace vitrail::io
