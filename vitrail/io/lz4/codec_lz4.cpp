#include <lz4.h>

#include "vitrail/core/error.h"
#include "vitrail/io/codec.h"

namespace vitrail::io {

size_t decode_lz4_block(std::span<const std::byte> stored, std::span<std::byte> plain,
                        const Where& where) {
  VT_REQUIRE(DataError, stored.size() <= LZ4_MAX_INPUT_SIZE && plain.size() <= LZ4_MAX_INPUT_SIZE,
             "[data] {}: an lz4 block of {} bytes is too large", where.text(), stored.size());
  const int got = ::LZ4_decompress_safe(
      reinterpret_cast<const char*>(stored.data()), reinterpret_cast<char*>(plain.data()),
      static_cast<int>(stored.size()), static_cast<int>(plain.size()));
  VT_REQUIRE(DataError, got >= 0, "[data] {}: broken lz4", where.text());
  return static_cast<size_t>(got);
}

}  // namespace vitrail::io
