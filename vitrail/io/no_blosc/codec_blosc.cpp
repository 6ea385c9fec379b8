#include "vitrail/core/error.h"
#include "vitrail/io/codec.h"

namespace vitrail::io {

size_t decode_blosc(std::span<const std::byte>, std::span<std::byte>, const Where& where) {
  core::fail<core::ConfigError>(
      "[data] {}: this build has no blosc; install libblosc-dev and build again", where.text());
}

}  // namespace vitrail::io
