#include "vitrail/core/error.h"
#include "vitrail/io/codec.h"

namespace vitrail::io {

size_t decode_zstd(std::span<const std::byte>, std::span<std::byte>, const Where& where) {
  core::fail<core::ConfigError>(
      "[data] {}: this build has no zstd; install libzstd-dev and build again", where.text());
}

}  // namespace vitrail::io
