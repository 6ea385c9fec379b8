#pragma once
/// Compression and checksums around the values of a chunk.
///
/// Errors   DataError naming the file, and the byte at which the chunk begins if it is in a shard.
/// Memory   nothing is allocated for a chunk whose decoded size its stored size cannot reach
///          (max_expansion); in between two codecs at most an eighth more than the decoded size.
/// Threads  any number; scratch memory is one set a thread.

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace vitrail::io {

/// One step from values to stored bytes.
struct ByteCodec {
  enum class Kind : uint8_t {
    blosc,
    zstd,
    lz4,         // numcodecs: size in 4 bytes, then one block
    lz4_blocks,  // N5: the stream of lz4-java
    gzip,        // or zlib, told apart by their first bytes
    bzip2,
    crc32c,   // 4 bytes behind the others
    shuffle,  // bytes of equal place in their elements side by side
  };
  Kind kind = Kind::zstd;
  int64_t element_size = 1;  // shuffle
};

std::string_view name(ByteCodec::Kind kind);

/// Where stored bytes come from, for messages.
struct Where {
  const std::string& file;
  int64_t offset = 0;

  std::string text() const;
};

/// The most bytes that one stored byte can become.
int64_t max_expansion(ByteCodec::Kind kind);

/// Throws unless `stored_bytes` can become `plain_bytes` under the codecs.
void check_expansion(std::span<const ByteCodec> codecs, int64_t stored_bytes, int64_t plain_bytes,
                     const Where& where);

/// Undoes `codecs` (given in the order of encoding); exactly plain.size() bytes must come out.
void decode_bytes(std::span<const ByteCodec> codecs, std::span<const std::byte> stored,
                  std::span<std::byte> plain, const Where& where);

/// Uninitialised memory that one thread uses again and again.
class Scratch {
 public:
  enum class Use { stored, plain, between_a, between_b, n5, count };
  /// `bytes` bytes, good until this thread asks for the same use again.
  static std::span<std::byte> get(Use use, size_t bytes);
};

// One codec each: writes at most plain.size() bytes and returns how many. Each lies in a folder that
// CMake chooses by the libraries the machine has; without the library it throws ConfigError.
size_t decode_blosc(std::span<const std::byte> stored, std::span<std::byte> plain,
                    const Where& where);
/// Writes bytes [first, first + bytes) of a chunk of plain.size() to their place in `plain`; only the
/// blocks that hold them are decoded. False, with nothing written, when the chunk does not allow it.
bool decode_blosc_part(std::span<const std::byte> stored, size_t first, size_t bytes,
                       std::span<std::byte> plain, const Where& where);
size_t decode_zstd(std::span<const std::byte> stored, std::span<std::byte> plain,
                   const Where& where);
size_t decode_lz4_block(std::span<const std::byte> stored, std::span<std::byte> plain,
                        const Where& where);
size_t decode_bzip2(std::span<const std::byte> stored, std::span<std::byte> plain,
                    const Where& where);

}  // namespace vitrail::io
