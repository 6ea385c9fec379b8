#include <blosc.h>

#include "vitrail/core/error.h"
#include "vitrail/io/codec.h"

namespace vitrail::io {

size_t decode_blosc(std::span<const std::byte> stored, std::span<std::byte> plain,
                    const Where& where) {
  size_t bytes = 0;
  VT_REQUIRE(DataError,
             stored.size() >= BLOSC_MIN_HEADER_LENGTH &&
                 ::blosc_cbuffer_validate(stored.data(), stored.size(), &bytes) == 0,
             "[data] {}: broken blosc: no valid header", where.text());
  VT_REQUIRE(DataError, bytes <= plain.size(),
             "[data] {}: the chunk must hold {} bytes but its blosc header says {}", where.text(),
             plain.size(), bytes);
  const int got = ::blosc_decompress_ctx(stored.data(), plain.data(), plain.size(), 1);
  VT_REQUIRE(DataError, got >= 0, "[data] {}: broken blosc (error {})", where.text(), got);
  return static_cast<size_t>(got);
}

}  // namespace vitrail::io
