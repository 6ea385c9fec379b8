#include "vitrail/core/error.h"
#include "vitrail/io/codec.h"

namespace vitrail::io {

size_t decode_blosc(std::span<const std::byte>, std::span<std::byte>, const Where& where) {
  core::fail<core::ConfigError>(
      "[data] {}: this build has no blosc; install libblosc-dev and build again", where.text());
}

bool decode_blosc_part(std::span<const std::byte>, size_t, size_t, std::span<std::byte>,
                       const Where&) {
  return false;  // a whole decode says what is missing
}

}  // namespace vitrail::io
