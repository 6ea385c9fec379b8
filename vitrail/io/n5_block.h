#pragma once
/// Blocks of N5 arrays: a header, then compressed values.

#include <cstddef>
#include <cstdint>
#include <span>

#include "vitrail/io/codec.h"

namespace vitrail::io {

/// Decodes a block file into `values`, a chunk of `sides` (row-major, the reverse of the header's)
/// with elements of `item` bytes, still in the file's byte order. A block smaller than the chunk
/// fills its low corner; the rest becomes 0.
/// throws   DataError: a header that does not fit, blocks of objects or of varying length.
void decode_n5_block(std::span<const std::byte> block, std::span<const ByteCodec> codecs,
                     std::span<const int64_t> sides, int64_t item, std::span<std::byte> values,
                     const Where& where);

}  // namespace vitrail::io
