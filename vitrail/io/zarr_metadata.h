#pragma once
/// What the metadata of a chunked array says: zarr 2, zarr 3, and in the same words N5.
///
/// Format   zarr-specs.readthedocs.io, versions 2 and 3.
/// Errors   DataError naming the file and the key: everything is checked here, before any chunk is
///          read. Sizes fit in 63 bits, an array has at most 12 axes, a chunk of values at most
///          2^31 - 65 bytes.

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "vitrail/core/dtype.h"
#include "vitrail/io/codec.h"

namespace vitrail::io {

constexpr size_t kMaxAxes = 12;
constexpr int64_t kMaxChunkBytes = (int64_t{1} << 31) - 65;
constexpr int64_t kMaxMetadataBytes = 16 << 20;

struct ShardLayout;

/// How one chunk is stored.
struct ChunkCodecs {
  std::vector<int64_t> order;  // stored axis k is axis order[k] of the chunk; empty = as they are
  bool big_endian = false;
  bool has_n5_header = false;
  std::shared_ptr<const ShardLayout> shard;  // not null: the chunk is a shard of smaller chunks
  std::vector<ByteCodec> bytes;              // in the order of encoding
};

/// A chunk that consists of chunks and an index of where they are.
struct ShardLayout {
  std::vector<int64_t> chunk_shape;  // in the shard's stored axes
  std::vector<int64_t> grid;         // chunks per axis
  int64_t chunks = 0;
  ChunkCodecs codecs;  // of the inner chunks
  bool index_at_end = true, index_has_checksum = false, index_is_big_endian = false;

  int64_t index_bytes() const { return 16 * chunks + (index_has_checksum ? 4 : 0); }
};

/// Names of chunk files: prefix, then the chunk's place in the grid.
struct ChunkKeys {
  std::string prefix;  // "c", or empty
  char separator = '/';
  bool is_reversed = false;  // last axis first
};

struct ZarrMeta {
  std::vector<int64_t> shape, chunk_shape;
  core::DType dtype = core::DType::u8;
  std::array<std::byte, 8> fill{};  // first size_bytes(dtype) bytes: of chunks that are not there
  ChunkCodecs codecs;
  ChunkKeys keys;
  std::string axes;  // a letter of tczyx each; empty = not said, or in other words
};

/// An array's .zarray; `name` is for messages.
ZarrMeta parse_zarr_v2(std::string_view zarray, const std::string& name);
/// An array's zarr.json.
ZarrMeta parse_zarr_v3(std::string_view zarr_json, const std::string& name);

/// The chunk file's path below the array's folder.
std::string chunk_path(const ChunkKeys& keys, std::span<const int64_t> place);

/// Axes as one letter each ("time" and "channel" as t and c), or "" if a name is another word or
/// comes twice.
std::string axes_of_names(std::span<const std::string> names);

/// Checks shape against chunk shape and sizes, and completes what follows from them (shard grids).
void check_sizes(ZarrMeta& meta, const std::string& name);

/// One inner chunk of a shard; bytes < 0: not there.
struct ShardEntry {
  int64_t offset = 0, bytes = -1;
};

/// The index of a shard. Its entries lie inside the shard's `shard_bytes` bytes.
std::vector<ShardEntry> parse_shard_index(std::span<const std::byte> index,
                                          const ShardLayout& layout, int64_t shard_bytes,
                                          const std::string& name);

}  // namespace vitrail::io
