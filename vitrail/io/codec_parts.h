#pragma once
/// Codecs that every build has; for codec.cpp and tests. Contract as decode_zstd in codec.h.

#include <cstddef>
#include <cstdint>
#include <span>

#include "vitrail/io/codec.h"

namespace vitrail::io {

/// gzip (of any number of members) or zlib.
size_t decode_gzip(std::span<const std::byte> stored, std::span<std::byte> plain,
                   const Where& where);

/// The stream of lz4-java's LZ4BlockOutputStream, checksums included.
size_t decode_lz4_blocks(std::span<const std::byte> stored, std::span<std::byte> plain,
                         const Where& where);

/// Paper    github.com/Cyan4973/xxHash, doc/xxhash_spec.md: XXH32.
uint32_t xxh32(std::span<const std::byte> bytes, uint32_t seed);

}  // namespace vitrail::io
