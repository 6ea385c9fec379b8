#include "vitrail/core/checksum.h"

#include <array>
#include <cstring>

namespace vitrail::core {
namespace {

constexpr uint32_t kReflectedPolynomial = 0x82F63B78u;

using Tables = std::array<std::array<uint32_t, 256>, 8>;

/// tables[k][byte]: the checksum of `byte` followed by k zero bytes, so that eight bytes take eight
/// look-ups.
constexpr Tables make_tables() {
  Tables tables{};
  for (uint32_t byte = 0; byte < 256; ++byte) {
    uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1u) ? kReflectedPolynomial : 0u);
    tables[0][byte] = crc;
  }
  for (size_t k = 1; k < tables.size(); ++k)
    for (size_t byte = 0; byte < 256; ++byte) {
      const uint32_t before = tables[k - 1][byte];
      tables[k][byte] = (before >> 8) ^ tables[0][before & 0xFFu];
    }
  return tables;
}

constexpr Tables kTables = make_tables();

uint32_t eight_bytes(uint32_t crc, const unsigned char* data) {
  const uint32_t low =
      crc ^ (data[0] | static_cast<uint32_t>(data[1]) << 8 | static_cast<uint32_t>(data[2]) << 16 |
             static_cast<uint32_t>(data[3]) << 24);
  return kTables[7][low & 0xFFu] ^ kTables[6][(low >> 8) & 0xFFu] ^
         kTables[5][(low >> 16) & 0xFFu] ^ kTables[4][low >> 24] ^ kTables[3][data[4]] ^
         kTables[2][data[5]] ^ kTables[1][data[6]] ^ kTables[0][data[7]];
}

}  // namespace

uint32_t crc32c_table(const void* data, size_t bytes, uint32_t seed) {
  const auto* at = static_cast<const unsigned char*>(data);
  uint32_t crc = ~seed;
  for (; bytes >= 8; at += 8, bytes -= 8) crc = eight_bytes(crc, at);
  for (; bytes > 0; ++at, --bytes) crc = (crc >> 8) ^ kTables[0][(crc ^ *at) & 0xFFu];
  return ~crc;
}

#if defined(__x86_64__)

bool has_crc32c_hardware() {
  static const bool has = __builtin_cpu_supports("sse4.2");
  return has;
}

__attribute__((target("sse4.2"))) uint32_t crc32c_hardware(const void* data, size_t bytes,
                                                           uint32_t seed) {
  const auto* at = static_cast<const unsigned char*>(data);
  uint64_t wide = ~seed;
  for (; bytes >= 8; at += 8, bytes -= 8) {
    uint64_t word;
    std::memcpy(&word, at, 8);
    wide = __builtin_ia32_crc32di(wide, word);
  }
  auto crc = static_cast<uint32_t>(wide);
  for (; bytes > 0; ++at, --bytes) crc = __builtin_ia32_crc32qi(crc, *at);
  return ~crc;
}

#else

bool has_crc32c_hardware() { return false; }
uint32_t crc32c_hardware(const void* data, size_t bytes, uint32_t seed) {
  return crc32c_table(data, bytes, seed);
}

#endif

uint32_t crc32c(const void* data, size_t bytes, uint32_t seed) {
  return has_crc32c_hardware() ? crc32c_hardware(data, bytes, seed)
                               : crc32c_table(data, bytes, seed);
}

uint32_t masked_crc32c(const void* data, size_t bytes) {
  const uint32_t crc = crc32c(data, bytes);
  return ((crc >> 15) | (crc << 17)) + 0xA282EAD8u;
}

}  // namespace vitrail::core
