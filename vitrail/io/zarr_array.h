#pragma once
/// A chunked array in a folder: which chunks a box touches, how they are decoded, where they go.

#include <array>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "vitrail/io/array.h"
#include "vitrail/io/chunk_cache.h"
#include "vitrail/io/zarr_file.h"
#include "vitrail/io/zarr_metadata.h"

namespace vitrail::io {

class ChunkedArray : public ArrayFile {
 public:
  /// `identity` names this state of the array, so that opening it again finds its chunks in the
  /// cache. A null `cache` keeps open shards only.
  ChunkedArray(ZarrMeta meta, std::string folder, const std::string& identity,
               std::shared_ptr<ChunkCache> cache);

  const std::vector<int64_t>& shape() const override { return meta_.shape; }
  core::DType dtype() const override { return meta_.dtype; }
  std::string axes() const override { return meta_.axes; }
  /// The smallest pieces: inside shards, their chunks.
  std::vector<int64_t> chunk_shape() const override { return smallest_chunk(meta_); }
  void read(std::span<const int64_t> origin, std::span<const int64_t> sides,
            std::byte* out) const override;

  static std::vector<int64_t> smallest_chunk(const ZarrMeta& meta);

 private:
  using Sides = std::array<int64_t, kMaxAxes>;
  /// The wanted part of a chunk (or shard) and where it goes.
  struct Piece {
    Sides origin{}, sides{}, strides{};  // strides of `out` in bytes
    std::byte* out = nullptr;
  };
  /// Bytes of one chunk; without a file it is not there.
  struct Stored {
    std::shared_ptr<const OpenFile> file;
    int64_t offset = 0, bytes = 0;
  };
  using Open = std::function<Stored()>;
  /// Chunks (0), chunks in them if they are shards (1), ...: sides in stored axes.
  struct Level {
    const ChunkCodecs* codecs = nullptr;
    Sides sides{}, strides{};  // of the stored values, in bytes; not for shards
    int64_t bytes = 0;         // of values; not for shards
  };
  struct OpenShard {
    std::shared_ptr<const OpenFile> file;
    int64_t offset = 0;
    std::vector<ShardEntry> entries;
  };

  void add_levels();
  void read_chunk(size_t level, const ChunkKey& key, const Piece& asked, const Open& open) const;
  void read_cached(const Level& level, const ChunkKey& key, const Piece& piece,
                   const Open& open) const;
  /// Decodes what the piece needs where a codec can do less than all of a chunk. False: it cannot, or
  /// nearly all is needed.
  bool decode_part(const Level& level, const Stored& stored, const Piece& piece,
                   std::span<std::byte> values) const;
  void read_uncached(const Level& level, const Piece& piece, const Open& open) const;
  void read_shard(size_t level, const ChunkKey& key, const Piece& piece, const Open& open) const;
  std::shared_ptr<const OpenShard> open_shard(const ShardLayout& layout,
                                              const Stored& stored) const;
  void check_size(const Level& level, const Stored& stored) const;
  void decode(const Level& level, const Stored& stored, std::span<std::byte> values) const;
  void copy_out(const Level& level, const std::byte* values, const Piece& piece) const;
  void fill_out(const Piece& piece) const;
  bool is_whole_and_dense(const Level& level, const Piece& piece) const;

  ZarrMeta meta_;
  std::string folder_;
  std::shared_ptr<ChunkCache> cache_;
  uint64_t id_ = 0;
  size_t axes_ = 0;
  int64_t item_ = 1;
  std::vector<int64_t> grid_;  // chunks per axis
  std::vector<Level> levels_;
};

}  // namespace vitrail::io
