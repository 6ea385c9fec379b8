#include "vitrail/core/error.h"
#include "vitrail/io/codec.h"

namespace vitrail::io {

size_t decode_lz4_block(std::span<const std::byte>, std::span<std::byte>, const Where& where) {
  core::fail<core::ConfigError>(
      "[data] {}: this build has no lz4; install liblz4-dev and build again", where.text());
}

}  // namespace vitrail::io
