// CRC-32C, eight bytes an instruction where the processor has it (SSE 4.2), else by table.

#include <array>
#include <cstring>

#include "vitrail/train/checkpoint_files.h"

namespace vitrail::train {

namespace {

constexpr uint32_t kPolynomial = 0x82F63B78u;  // reflected

constexpr std::array<uint32_t, 256> make_table() {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t value = i;
    for (int bit = 0; bit < 8; ++bit) value = (value >> 1) ^ ((value & 1u) ? kPolynomial : 0u);
    table[i] = value;
  }
  return table;
}

uint32_t by_table(const unsigned char* data, size_t bytes, uint32_t crc) {
  static constexpr std::array<uint32_t, 256> kTable = make_table();
  for (size_t i = 0; i < bytes; ++i) crc = (crc >> 8) ^ kTable[(crc ^ data[i]) & 0xFFu];
  return crc;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) uint32_t by_instruction(const unsigned char* data, size_t bytes, uint32_t crc) {
  uint64_t wide = crc;
  for (; bytes >= 8; data += 8, bytes -= 8) {
    uint64_t word;
    std::memcpy(&word, data, 8);
    wide = __builtin_ia32_crc32di(wide, word);
  }
  crc = static_cast<uint32_t>(wide);
  for (; bytes > 0; ++data, --bytes) crc = __builtin_ia32_crc32qi(crc, *data);
  return crc;
}
const bool has_instruction = __builtin_cpu_supports("sse4.2");
#else
uint32_t by_instruction(const unsigned char* data, size_t bytes, uint32_t crc) { return by_table(data, bytes, crc); }
constexpr bool has_instruction = false;
#endif

}  // namespace

uint32_t crc32c(const void* data, size_t bytes, uint32_t crc) {
  const auto* begin = static_cast<const unsigned char*>(data);
  return ~(has_instruction ? by_instruction(begin, bytes, ~crc) : by_table(begin, bytes, ~crc));
}

}  // namespace vitrail::train
