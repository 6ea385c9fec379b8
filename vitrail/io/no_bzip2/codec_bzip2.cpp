#include "vitrail/core/error.h"
#include "vitrail/io/codec.h"

namespace vitrail::io {

size_t decode_bzip2(std::span<const std::byte>, std::span<std::byte>, const Where& where) {
  core::fail<core::ConfigError>(
      "[data] {}: this build has no bzip2; install libbz2-dev and build again", where.text());
}

}  // namespace vitrail::io
