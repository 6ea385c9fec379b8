#include <limits>

#include <zlib.h>

#include "vitrail/core/error.h"
#include "vitrail/io/nifti_bytes.h"

namespace vitrail::io {
namespace {

constexpr int kGzip = 16 + MAX_WBITS;
constexpr size_t kMaxExpansion = 1032;
constexpr size_t kMaxPart = 1u << 30;  // zlib counts in 32 bits

/// Ends zlib's state whatever happens between.
struct Inflater {
  z_stream stream{};
  ~Inflater() { ::inflateEnd(&stream); }
};
struct Deflater {
  z_stream stream{};
  ~Deflater() { ::deflateEnd(&stream); }
};

void give_input(z_stream& stream, std::span<const std::byte> file, size_t& used) {
  if (stream.avail_in > 0 || used == file.size()) return;
  const size_t part = std::min(file.size() - used, kMaxPart);
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(file.data() + used));
  stream.avail_in = static_cast<uInt>(part);
  used += part;
}

}  // namespace

bool is_gzip(std::span<const std::byte> file) {
  return file.size() >= 2 && file[0] == std::byte{0x1F} && file[1] == std::byte{0x8B};
}

std::string unpack_prefix(std::span<const std::byte> file, size_t bytes, const std::string& name) {
  if (!is_gzip(file)) {
    const size_t n = std::min(bytes, file.size());
    return {reinterpret_cast<const char*>(file.data()), n};
  }
  const size_t most = file.size() > std::numeric_limits<size_t>::max() / kMaxExpansion
                          ? bytes
                          : std::min(bytes, file.size() * kMaxExpansion);
  std::string result(most, '\0');
  Inflater inflater;
  z_stream& stream = inflater.stream;
  VT_CHECK(::inflateInit2(&stream, kGzip) == Z_OK, "[gzip] zlib cannot start");
  size_t used = 0, got = 0;
  char rest[4096];  // what lies behind the wanted bytes is unpacked once, to check the sum
  for (;;) {
    give_input(stream, file, used);
    const bool is_full = got == most;
    const size_t room = is_full ? sizeof rest : std::min(most - got, kMaxPart);
    stream.next_out = reinterpret_cast<Bytef*>(is_full ? rest : result.data() + got);
    stream.avail_out = static_cast<uInt>(room);
    const int status = ::inflate(&stream, Z_NO_FLUSH);
    VT_REQUIRE(DataError, status == Z_OK || status == Z_STREAM_END || status == Z_BUF_ERROR,
               "[data] {}: broken gzip: {}", name,
               stream.msg != nullptr ? stream.msg : ::zError(status));
    const size_t written = room - stream.avail_out;
    if (!is_full) got += written;
    const bool no_more_input = stream.avail_in == 0 && used == file.size();
    if (is_full || (no_more_input && (status == Z_STREAM_END || written == 0))) break;
    if (status == Z_STREAM_END) ::inflateReset(&stream);  // another part behind the last
  }
  result.resize(got);
  return result;
}

std::string pack_gzip(const std::string& bytes) {
  Deflater deflater;
  z_stream& stream = deflater.stream;
  VT_CHECK(::deflateInit2(&stream, Z_DEFAULT_COMPRESSION, Z_DEFLATED, kGzip, 8,
                          Z_DEFAULT_STRATEGY) == Z_OK,
           "[gzip] zlib cannot start");
  std::string result;
  std::string part(1 << 18, '\0');
  const std::span<const std::byte> input = std::as_bytes(std::span(bytes));
  size_t used = 0;
  for (int status = Z_OK; status != Z_STREAM_END;) {
    give_input(stream, input, used);
    stream.next_out = reinterpret_cast<Bytef*>(part.data());
    stream.avail_out = static_cast<uInt>(part.size());
    status = ::deflate(&stream, used == input.size() ? Z_FINISH : Z_NO_FLUSH);
    VT_CHECK(status == Z_OK || status == Z_STREAM_END || status == Z_BUF_ERROR,
             "[gzip] zlib cannot pack: {}", ::zError(status));
    result.append(part.data(), part.size() - stream.avail_out);
  }
  return result;
}

}  // namespace vitrail::io
