#include <zlib.h>

#include "vitrail/core/error.h"
#include "vitrail/io/codec_parts.h"

namespace vitrail::io {
namespace {

constexpr int kGzipOrZlib = 32 + MAX_WBITS;

/// zlib's state, set up once a thread.
struct Inflater {
  z_stream stream{};
  Inflater() { VT_CHECK(::inflateInit2(&stream, kGzipOrZlib) == Z_OK, "[gzip] zlib cannot start"); }
  ~Inflater() { ::inflateEnd(&stream); }
};

bool begins_with_gzip(const z_stream& stream) {
  return stream.avail_in >= 2 && stream.next_in[0] == 0x1F && stream.next_in[1] == 0x8B;
}

}  // namespace

size_t decode_gzip(std::span<const std::byte> stored, std::span<std::byte> plain,
                   const Where& where) {
  thread_local Inflater inflater;
  z_stream& stream = inflater.stream;
  ::inflateReset2(&stream, kGzipOrZlib);
  // Chunks are below 4 GiB (kMaxChunkBytes, check_expansion), so zlib's 32-bit counts hold them.
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(stored.data()));
  stream.avail_in = static_cast<uInt>(stored.size());
  stream.next_out = reinterpret_cast<Bytef*>(plain.data());
  stream.avail_out = static_cast<uInt>(plain.size());
  for (;;) {
    const int status = ::inflate(&stream, Z_FINISH);
    if (status == Z_STREAM_END) {
      if (!begins_with_gzip(stream)) break;
      ::inflateReset(&stream);
      continue;
    }
    const bool is_full = stream.avail_out == 0;
    core::fail<core::DataError>(
        "[data] {}: broken gzip: {}", where.text(),
        status == Z_BUF_ERROR || status == Z_OK
            ? (is_full ? fmt::format("more than the {} bytes of a chunk", plain.size()) : "cut off")
            : std::string(stream.msg != nullptr ? stream.msg : ::zError(status)));
  }
  return plain.size() - stream.avail_out;
}

}  // namespace vitrail::io
