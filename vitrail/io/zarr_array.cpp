#include "vitrail/io/zarr_array.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "vitrail/core/error.h"
#include "vitrail/io/n5_block.h"
#include "vitrail/io/zarr_strided.h"

namespace vitrail::io {
namespace {

using core::DataError;
using Numbers = std::span<const int64_t>;

void swap_bytes(std::span<std::byte> values, int64_t item) {
  const auto swap_all = [&]<class T>(T, auto swap) {
    for (size_t at = 0; at + sizeof(T) <= values.size(); at += sizeof(T)) {
      T value;
      std::memcpy(&value, values.data() + at, sizeof(T));
      value = swap(value);
      std::memcpy(values.data() + at, &value, sizeof(T));
    }
  };
  if (item == 2) swap_all(uint16_t{}, [](uint16_t v) { return __builtin_bswap16(v); });
  if (item == 4) swap_all(uint32_t{}, [](uint32_t v) { return __builtin_bswap32(v); });
  if (item == 8) swap_all(uint64_t{}, [](uint64_t v) { return __builtin_bswap64(v); });
}

/// Calls visit(place, number, from, sides, skipped) for each piece of `piece_sides` that the box
/// touches: its place in the grid, its row-major number there, the touched part from the piece's
/// corner, and where that part begins in the box.
template <class Visit>
void for_each_piece(Numbers origin, Numbers sides, Numbers piece_sides, Numbers grid,
                    const Visit& visit) {
  using Sides = std::array<int64_t, kMaxAxes>;
  const size_t axes = origin.size();
  Sides place{}, from{}, part{}, skipped{};
  const auto enter = [&](size_t k) {
    const int64_t corner = place[k] * piece_sides[k];
    const int64_t first = std::max(corner, origin[k]);
    from[k] = first - corner;
    part[k] = std::min(corner + piece_sides[k], origin[k] + sides[k]) - first;
    skipped[k] = first - origin[k];
  };
  for (size_t k = 0; k < axes; ++k) {
    place[k] = origin[k] / piece_sides[k];
    enter(k);
  }
  for (;;) {
    uint64_t number = 0;
    for (size_t k = 0; k < axes; ++k)
      number = number * static_cast<uint64_t>(grid[k]) + static_cast<uint64_t>(place[k]);
    visit(Numbers(place).first(axes), number, from, part, skipped);
    size_t k = axes;
    for (; k > 0; --k) {
      const size_t axis = k - 1;
      const bool is_last = skipped[axis] + part[axis] == sides[axis];
      place[axis] = is_last ? origin[axis] / piece_sides[axis] : place[axis] + 1;
      enter(axis);
      if (!is_last) break;
    }
    if (k == 0) return;
  }
}

}  // namespace

ChunkedArray::ChunkedArray(ZarrMeta meta, std::string folder, const std::string& identity,
                           std::shared_ptr<ChunkCache> cache)
    : meta_(std::move(meta)),
      folder_(std::move(folder)),
      cache_(cache != nullptr ? std::move(cache) : std::make_shared<ChunkCache>(0)),
      id_(cache_->array_id(identity)),
      axes_(meta_.shape.size()),
      item_(core::size_bytes(meta_.dtype)) {
  for (size_t k = 0; k < axes_; ++k)
    grid_.push_back((meta_.shape[k] - 1) / meta_.chunk_shape[k] + 1);
  add_levels();
}

void ChunkedArray::add_levels() {
  const std::vector<int64_t>* sides = &meta_.chunk_shape;
  for (const ChunkCodecs* codecs = &meta_.codecs; codecs != nullptr;) {
    Level level;
    level.codecs = codecs;
    for (size_t k = 0; k < axes_; ++k)
      level.sides[k] = (*sides)[codecs->order.empty() ? k : static_cast<size_t>(codecs->order[k])];
    const ShardLayout* const shard = codecs->shard.get();
    if (shard == nullptr) {  // checked to be below 2 GiB, so nothing wraps round
      level.bytes = item_;
      for (size_t k = axes_; k-- > 0; level.bytes *= level.sides[k]) level.strides[k] = level.bytes;
    }
    levels_.push_back(level);
    sides = shard != nullptr ? &shard->chunk_shape : nullptr;
    codecs = shard != nullptr ? &shard->codecs : nullptr;
  }
}

std::vector<int64_t> ChunkedArray::smallest_chunk(const ZarrMeta& meta) {
  const size_t axes = meta.shape.size();
  std::vector<int64_t> sides = meta.chunk_shape;
  std::vector<size_t> axis_of(axes);  // of the array, for each axis of `sides`
  for (size_t k = 0; k < axes; ++k) axis_of[k] = k;
  for (const ChunkCodecs* codecs = &meta.codecs; codecs->shard != nullptr;
       codecs = &codecs->shard->codecs) {
    if (!codecs->order.empty()) {
      std::vector<size_t> stored;
      for (const int64_t k : codecs->order) stored.push_back(axis_of[static_cast<size_t>(k)]);
      axis_of = stored;
    }
    sides = codecs->shard->chunk_shape;
  }
  std::vector<int64_t> result(axes);
  for (size_t k = 0; k < axes; ++k) result[axis_of[k]] = sides[k];
  return result;
}

void ChunkedArray::read(std::span<const int64_t> origin, std::span<const int64_t> sides,
                        std::byte* out) const {
  bool is_inside = origin.size() == axes_ && sides.size() == axes_;
  bool is_empty = false;
  for (size_t k = 0; is_inside && k < axes_; ++k) {
    is_inside = origin[k] >= 0 && sides[k] >= 0 && sides[k] <= meta_.shape[k] &&
                origin[k] <= meta_.shape[k] - sides[k];
    is_empty = is_empty || sides[k] == 0;
  }
  VT_REQUIRE(DataError, is_inside, "[data] {}: the box [{}] + [{}] must lie inside the array [{}]",
             folder_, fmt::join(origin, ", "), fmt::join(sides, ", "),
             fmt::join(meta_.shape, ", "));
  if (is_empty) return;
  Piece whole;
  int64_t step = item_;
  for (size_t k = axes_; k-- > 0; step *= sides[k]) whole.strides[k] = step;
  for_each_piece(origin, sides, meta_.chunk_shape, grid_,
                 [&](Numbers place, uint64_t number, const Sides& from, const Sides& part,
                     const Sides& skipped) {
                   Piece piece{from, part, whole.strides, out};
                   for (size_t k = 0; k < axes_; ++k) piece.out += skipped[k] * whole.strides[k];
                   read_chunk(0, {id_, number, 0, 0}, piece, [&]() -> Stored {
                     auto file = OpenFile::open(folder_ + '/' + chunk_path(meta_.keys, place));
                     const int64_t bytes = file != nullptr ? file->bytes() : 0;
                     return {std::move(file), 0, bytes};
                   });
                 });
}

void ChunkedArray::read_chunk(size_t level, const ChunkKey& key, const Piece& asked,
                              const Open& open) const {
  const ChunkCodecs& codecs = *levels_[level].codecs;
  Piece piece = asked;
  for (size_t k = 0; k < codecs.order.size(); ++k) {
    const auto axis = static_cast<size_t>(codecs.order[k]);
    piece.origin[k] = asked.origin[axis];
    piece.sides[k] = asked.sides[axis];
    piece.strides[k] = asked.strides[axis];
  }
  if (codecs.shard != nullptr)
    read_shard(level, key, piece, open);
  else if (levels_[level].bytes <= cache_->chunks().max_bytes())
    read_cached(levels_[level], key, piece, open);
  else
    read_uncached(levels_[level], piece, open);
}

void ChunkedArray::read_cached(const Level& level, const ChunkKey& key, const Piece& piece,
                               const Open& open) const {
  const auto values = cache_->chunks().get(key, [&]() -> LruCache::Made {
    const Stored stored = open();
    if (stored.file == nullptr) return {};
    const auto bytes = static_cast<size_t>(level.bytes);
    check_size(level, stored);
    const auto memory = std::make_shared_for_overwrite<std::byte[]>(bytes);
    decode(level, stored, {memory.get(), bytes});
    return {{memory, memory.get()}, level.bytes};
  });
  if (values == nullptr)
    fill_out(piece);
  else
    copy_out(level, static_cast<const std::byte*>(values.get()), piece);
}

void ChunkedArray::read_uncached(const Level& level, const Piece& piece, const Open& open) const {
  const Stored stored = open();
  if (stored.file == nullptr) return fill_out(piece);
  const auto bytes = static_cast<size_t>(level.bytes);
  check_size(level, stored);
  if (is_whole_and_dense(level, piece)) return decode(level, stored, {piece.out, bytes});
  const std::span<std::byte> values = Scratch::get(Scratch::Use::plain, bytes);
  if (!decode_part(level, stored, piece, values)) decode(level, stored, values);
  copy_out(level, values.data(), piece);
}

bool ChunkedArray::decode_part(const Level& level, const Stored& stored, const Piece& piece,
                               std::span<std::byte> values) const {
  const ChunkCodecs& codecs = *level.codecs;
  if (codecs.has_n5_header || codecs.big_endian || codecs.bytes.size() != 1 ||
      codecs.bytes[0].kind != ByteCodec::Kind::blosc)
    return false;
  // From the first to the last element of the piece, as they lie in the chunk.
  int64_t first = 0, last = 0;
  for (size_t k = 0; k < axes_; ++k) {
    first += piece.origin[k] * level.strides[k];
    last += (piece.origin[k] + piece.sides[k] - 1) * level.strides[k];
  }
  const int64_t needed = last + item_ - first;
  if (needed * 8 > level.bytes * 7) return false;
  const std::span<std::byte> bytes =
      Scratch::get(Scratch::Use::stored, static_cast<size_t>(stored.bytes));
  stored.file->read(stored.offset, bytes);
  return decode_blosc_part(bytes, static_cast<size_t>(first), static_cast<size_t>(needed), values,
                           {stored.file->path(), stored.offset});
}

void ChunkedArray::read_shard(size_t level, const ChunkKey& key, const Piece& piece,
                              const Open& open) const {
  const ShardLayout& layout = *levels_[level].codecs->shard;
  const auto thing = cache_->shards().get(key, [&]() -> LruCache::Made {
    auto shard = open_shard(layout, open());
    if (shard == nullptr) return {};
    const int64_t bytes = ChunkCache::kOpenFileBytes +
                          static_cast<int64_t>(sizeof(ShardEntry) * shard->entries.size());
    return {std::move(shard), bytes};
  });
  if (thing == nullptr) return fill_out(piece);
  const OpenShard& shard = *static_cast<const OpenShard*>(thing.get());
  for_each_piece(
      Numbers(piece.origin).first(axes_), Numbers(piece.sides).first(axes_), layout.chunk_shape,
      layout.grid,
      [&](Numbers, uint64_t number, const Sides& from, const Sides& part, const Sides& skipped) {
        Piece inner{from, part, piece.strides, piece.out};
        for (size_t k = 0; k < axes_; ++k) inner.out += skipped[k] * piece.strides[k];
        const ChunkKey inner_key{key.array, key.chunk,
                                 key.inner * static_cast<uint64_t>(layout.chunks) + number,
                                 key.level + 1};
        read_chunk(level + 1, inner_key, inner, [&]() -> Stored {
          const ShardEntry& entry = shard.entries[number];
          if (entry.bytes < 0) return {};
          return {shard.file, shard.offset + entry.offset, entry.bytes};
        });
      });
}

std::shared_ptr<const ChunkedArray::OpenShard> ChunkedArray::open_shard(
    const ShardLayout& layout, const Stored& stored) const {
  if (stored.file == nullptr) return nullptr;
  const std::string& path = stored.file->path();
  const int64_t bytes = layout.index_bytes();
  VT_REQUIRE(DataError, bytes <= stored.bytes,
             "[data] {}: a shard of {} bytes must hold an index of {}", path, stored.bytes, bytes);
  const std::span<std::byte> index = Scratch::get(Scratch::Use::stored, static_cast<size_t>(bytes));
  stored.file->read(stored.offset + (layout.index_at_end ? stored.bytes - bytes : 0), index);
  auto shard = std::make_shared<OpenShard>();
  shard->file = stored.file;
  shard->offset = stored.offset;
  shard->entries = parse_shard_index(index, layout, stored.bytes, path);
  return shard;
}

void ChunkedArray::check_size(const Level& level, const Stored& stored) const {
  if (level.codecs->has_n5_header) return;  // a block may be smaller than its place: n5_block.cpp
  check_expansion(level.codecs->bytes, stored.bytes, level.bytes,
                  {stored.file->path(), stored.offset});
}

void ChunkedArray::decode(const Level& level, const Stored& stored,
                          std::span<std::byte> values) const {
  const ChunkCodecs& codecs = *level.codecs;
  const Where where{stored.file->path(), stored.offset};
  if (codecs.bytes.empty() && !codecs.has_n5_header) {
    VT_REQUIRE(DataError, stored.bytes == level.bytes,
               "[data] {}: the chunk must have {} bytes but has {}", where.text(), level.bytes,
               stored.bytes);
    stored.file->read(stored.offset, values);
  } else {
    const std::span<std::byte> bytes =
        Scratch::get(Scratch::Use::stored, static_cast<size_t>(stored.bytes));
    stored.file->read(stored.offset, bytes);
    if (codecs.has_n5_header)
      decode_n5_block(bytes, codecs.bytes, Numbers(level.sides).first(axes_), item_, values, where);
    else
      decode_bytes(codecs.bytes, bytes, values, where);
  }
  if (codecs.big_endian) swap_bytes(values, item_);
}

void ChunkedArray::copy_out(const Level& level, const std::byte* values, const Piece& piece) const {
  for (size_t k = 0; k < axes_; ++k) values += piece.origin[k] * level.strides[k];
  copy_strided(values, Numbers(level.strides).first(axes_), piece.out,
               Numbers(piece.strides).first(axes_), Numbers(piece.sides).first(axes_), item_);
}

void ChunkedArray::fill_out(const Piece& piece) const {
  fill_strided(meta_.fill.data(), piece.out, Numbers(piece.strides).first(axes_),
               Numbers(piece.sides).first(axes_), item_);
}

bool ChunkedArray::is_whole_and_dense(const Level& level, const Piece& piece) const {
  for (size_t k = 0; k < axes_; ++k)
    if (piece.sides[k] != level.sides[k] ||
        (piece.sides[k] > 1 && piece.strides[k] != level.strides[k]))
      return false;
  return true;
}

}  // namespace vitrail::io
