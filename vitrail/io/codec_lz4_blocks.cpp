#include <bit>
#include <cstring>
#include <string_view>

#include "vitrail/core/error.h"
#include "vitrail/io/codec_parts.h"

namespace vitrail::io {
namespace {

using core::DataError;

constexpr std::string_view kMagic = "LZ4Block";
constexpr size_t kHeaderBytes = 21;  // magic, token, stored bytes, plain bytes, checksum
constexpr uint32_t kSeed = 0x9747b28c, kChecksumBits = 0x0FFFFFFF;

uint32_t u32_at(std::span<const std::byte> bytes, size_t at) {
  uint32_t value = 0;
  std::memcpy(&value, bytes.data() + at, 4);
  return value;
}

constexpr uint32_t kPrime1 = 0x9E3779B1u, kPrime2 = 0x85EBCA77u, kPrime3 = 0xC2B2AE3Du,
                   kPrime4 = 0x27D4EB2Fu, kPrime5 = 0x165667B1u;

}  // namespace

uint32_t xxh32(std::span<const std::byte> bytes, uint32_t seed) {
  size_t at = 0;
  uint32_t sum = seed + kPrime5;
  if (bytes.size() >= 16) {
    uint32_t lanes[4] = {seed + kPrime1 + kPrime2, seed + kPrime2, seed, seed - kPrime1};
    for (; at + 16 <= bytes.size(); at += 16)
      for (size_t lane = 0; lane < 4; ++lane)
        lanes[lane] = std::rotl(lanes[lane] + u32_at(bytes, at + 4 * lane) * kPrime2, 13) * kPrime1;
    sum = std::rotl(lanes[0], 1) + std::rotl(lanes[1], 7) + std::rotl(lanes[2], 12) +
          std::rotl(lanes[3], 18);
  }
  sum += static_cast<uint32_t>(bytes.size());
  for (; at + 4 <= bytes.size(); at += 4)
    sum = std::rotl(sum + u32_at(bytes, at) * kPrime3, 17) * kPrime4;
  for (; at < bytes.size(); ++at)
    sum = std::rotl(sum + static_cast<uint32_t>(bytes[at]) * kPrime5, 11) * kPrime1;
  sum = (sum ^ (sum >> 15)) * kPrime2;
  sum = (sum ^ (sum >> 13)) * kPrime3;
  return sum ^ (sum >> 16);
}

size_t decode_lz4_blocks(std::span<const std::byte> stored, std::span<std::byte> plain,
                         const Where& where) {
  size_t done = 0;
  while (!stored.empty()) {
    VT_REQUIRE(DataError,
               stored.size() >= kHeaderBytes &&
                   std::memcmp(stored.data(), kMagic.data(), kMagic.size()) == 0,
               "[data] {}: broken lz4: no header of a block", where.text());
    const uint32_t method = static_cast<uint32_t>(stored[8]) & 0xF0;
    const size_t packed = u32_at(stored, 9), bytes = u32_at(stored, 13);
    const uint32_t checksum = u32_at(stored, 17);
    stored = stored.subspan(kHeaderBytes);
    if (bytes == 0) break;  // the end mark
    VT_REQUIRE(DataError, packed <= stored.size() && bytes <= plain.size() - done,
               "[data] {}: broken lz4: a block of {} bytes that become {}", where.text(), packed,
               bytes);
    const std::span<std::byte> part = plain.subspan(done, bytes);
    if (method == 0x10 && packed == bytes) {
      std::memcpy(part.data(), stored.data(), bytes);
    } else {
      VT_REQUIRE(DataError,
                 method == 0x20 && decode_lz4_block(stored.first(packed), part, where) == bytes,
                 "[data] {}: broken lz4: a block of {} bytes", where.text(), bytes);
    }
    VT_REQUIRE(DataError, (xxh32(part, kSeed) & kChecksumBits) == checksum,
               "[data] {}: the checksum of an lz4 block is wrong: the file is damaged",
               where.text());
    done += bytes;
    stored = stored.subspan(packed);
  }
  return done;
}

}  // namespace vitrail::io
