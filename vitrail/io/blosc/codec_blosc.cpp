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

bool decode_blosc_part(std::span<const std::byte> stored, size_t first, size_t bytes,
                       std::span<std::byte> plain, const Where& where) {
  size_t whole = 0, type_size = 0;
  int flags = 0;
  if (stored.size() < BLOSC_MIN_HEADER_LENGTH ||
      ::blosc_cbuffer_validate(stored.data(), stored.size(), &whole) != 0 || whole != plain.size())
    return false;  // a whole decode says what is wrong
  ::blosc_cbuffer_metainfo(stored.data(), &type_size, &flags);
  if (type_size == 0 || first % type_size != 0 || bytes % type_size != 0) return false;
  const int got =
      ::blosc_getitem(stored.data(), static_cast<int>(first / type_size),
                      static_cast<int>(bytes / type_size), plain.data() + first);
  VT_REQUIRE(DataError, got >= 0 && static_cast<size_t>(got) == bytes,
             "[data] {}: broken blosc (error {})", where.text(), got);
  return true;
}

}  // namespace vitrail::io
