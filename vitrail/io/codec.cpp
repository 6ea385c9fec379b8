#include "vitrail/io/codec.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>

#include "vitrail/core/checksum.h"
#include "vitrail/core/error.h"
#include "vitrail/io/codec_parts.h"

namespace vitrail::io {
namespace {

using core::DataError;
using Kind = ByteCodec::Kind;

/// Undoes crc32c without a copy: what is in front of the checksum.
std::span<const std::byte> checked_crc32c(std::span<const std::byte> stored, const Where& where) {
  VT_REQUIRE(DataError, stored.size() >= 4, "[data] {}: too short for its checksum", where.text());
  const std::span<const std::byte> plain = stored.first(stored.size() - 4);
  uint32_t expected = 0;
  std::memcpy(&expected, stored.data() + plain.size(), 4);
  const uint32_t got = core::crc32c(plain.data(), plain.size());
  VT_REQUIRE(DataError, got == expected,
             "[data] {}: the chunk's CRC-32C must be {:08x} but is {:08x}: the file is damaged",
             where.text(), expected, got);
  return plain;
}

size_t decode_lz4(std::span<const std::byte> stored, std::span<std::byte> plain,
                  const Where& where) {
  uint32_t bytes = 0;
  VT_REQUIRE(DataError, stored.size() >= 4, "[data] {}: too short for lz4", where.text());
  std::memcpy(&bytes, stored.data(), 4);
  VT_REQUIRE(DataError, bytes <= plain.size(),
             "[data] {}: the chunk must hold {} bytes but its lz4 header says {}", where.text(),
             plain.size(), bytes);
  const size_t got = decode_lz4_block(stored.subspan(4), plain.first(bytes), where);
  VT_REQUIRE(DataError, got == bytes, "[data] {}: broken lz4: {} of {} bytes", where.text(), got,
             bytes);
  return got;
}

/// Bytes 0 of all elements, bytes 1 of all, ..., then what is left over.
size_t decode_shuffle(std::span<const std::byte> stored, std::span<std::byte> plain,
                      int64_t element_size, const Where& where) {
  VT_REQUIRE(DataError, stored.size() <= plain.size(),
             "[data] {}: the chunk must hold {} bytes but holds {}", where.text(), plain.size(),
             stored.size());
  const auto size = static_cast<size_t>(element_size);
  const size_t count = stored.size() / size;
  for (size_t byte = 0; byte < size; ++byte)
    for (size_t i = 0; i < count; ++i) plain[i * size + byte] = stored[byte * count + i];
  std::copy(stored.begin() + static_cast<std::ptrdiff_t>(count * size), stored.end(),
            plain.begin() + static_cast<std::ptrdiff_t>(count * size));
  return stored.size();
}

size_t decode_one(const ByteCodec& codec, std::span<const std::byte> stored,
                  std::span<std::byte> plain, const Where& where) {
  switch (codec.kind) {
    case Kind::blosc:
      return decode_blosc(stored, plain, where);
    case Kind::zstd:
      return decode_zstd(stored, plain, where);
    case Kind::lz4:
      return decode_lz4(stored, plain, where);
    case Kind::lz4_blocks:
      return decode_lz4_blocks(stored, plain, where);
    case Kind::gzip:
      return decode_gzip(stored, plain, where);
    case Kind::bzip2:
      return decode_bzip2(stored, plain, where);
    case Kind::shuffle:
      return decode_shuffle(stored, plain, codec.element_size, where);
    case Kind::crc32c:
      break;  // undone without a copy
  }
  return 0;
}

}  // namespace

std::string_view name(Kind kind) {
  constexpr std::string_view names[] = {"blosc", "zstd",  "lz4",    "lz4",
                                        "gzip",  "bzip2", "crc32c", "shuffle"};
  return names[static_cast<int>(kind)];
}

std::string Where::text() const {
  return offset > 0 ? fmt::format("{} at byte {}", file, offset) : file;
}

int64_t max_expansion(Kind kind) {
  switch (kind) {
    case Kind::blosc:
    case Kind::zstd:
    case Kind::bzip2:
      return 50'000;
    case Kind::lz4:
    case Kind::lz4_blocks:
      return 256;
    case Kind::gzip:
      return 1032;
    case Kind::crc32c:
    case Kind::shuffle:
      break;
  }
  return 1;
}

void check_expansion(std::span<const ByteCodec> codecs, int64_t stored_bytes, int64_t plain_bytes,
                     const Where& where) {
  // Codecs may grow what does not compress, but never to the double.
  constexpr int64_t kMaxOverhead = 1 << 16;
  VT_REQUIRE(DataError, stored_bytes <= 2 * plain_bytes + kMaxOverhead,
             "[data] {}: a chunk of {} bytes must not take {} bytes in the file", where.text(),
             plain_bytes, stored_bytes);
  int64_t most = stored_bytes;
  for (const ByteCodec& codec : codecs)
    if (__builtin_mul_overflow(most, max_expansion(codec.kind), &most)) return;
  VT_REQUIRE(DataError, plain_bytes <= most,
             "[data] {}: {} stored bytes cannot hold a chunk of {} bytes: the file is cut off or "
             "its metadata wrong",
             where.text(), stored_bytes, plain_bytes);
}

void decode_bytes(std::span<const ByteCodec> codecs, std::span<const std::byte> stored,
                  std::span<std::byte> plain, const Where& where) {
  const size_t room_between = plain.size() + plain.size() / 8 + (1 << 16);
  const auto copies = [](const ByteCodec& codec) { return codec.kind != Kind::crc32c; };
  auto left = std::count_if(codecs.begin(), codecs.end(), copies);
  Scratch::Use between = Scratch::Use::between_a;
  bool is_in_place = false;
  for (size_t i = codecs.size(); i-- > 0;) {
    if (!copies(codecs[i])) {
      stored = checked_crc32c(stored, where);
      continue;
    }
    is_in_place = --left == 0;
    const std::span<std::byte> room = is_in_place ? plain : Scratch::get(between, room_between);
    stored = room.first(decode_one(codecs[i], stored, room, where));
    between =
        between == Scratch::Use::between_a ? Scratch::Use::between_b : Scratch::Use::between_a;
  }
  VT_REQUIRE(DataError, stored.size() == plain.size(),
             "[data] {}: the chunk must hold {} bytes but holds {}", where.text(), plain.size(),
             stored.size());
  if (!is_in_place) std::copy(stored.begin(), stored.end(), plain.begin());
}

std::span<std::byte> Scratch::get(Use use, size_t bytes) {
  constexpr size_t kKeep = 64 << 20;  // a larger one is given back as soon as a small one will do
  struct Memory {
    std::unique_ptr<std::byte[]> bytes;
    size_t size = 0;
  };
  thread_local std::array<Memory, static_cast<size_t>(Use::count)> all;
  Memory& memory = all[static_cast<size_t>(use)];
  if (memory.size < bytes || (memory.size > kKeep && bytes < memory.size / 4)) {
    memory.bytes.reset();
    memory.size = 0;
    memory.bytes = std::make_unique_for_overwrite<std::byte[]>(bytes);
    memory.size = bytes;
  }
  return {memory.bytes.get(), bytes};
}

}  // namespace vitrail::io
