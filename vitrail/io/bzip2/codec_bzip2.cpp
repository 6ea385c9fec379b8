#include <bzlib.h>

#include "vitrail/core/error.h"
#include "vitrail/io/codec.h"

namespace vitrail::io {

size_t decode_bzip2(std::span<const std::byte> stored, std::span<std::byte> plain,
                    const Where& where) {
  unsigned bytes = static_cast<unsigned>(plain.size());
  const int status =
      ::BZ2_bzBuffToBuffDecompress(reinterpret_cast<char*>(plain.data()), &bytes,
                                   reinterpret_cast<char*>(const_cast<std::byte*>(stored.data())),
                                   static_cast<unsigned>(stored.size()), 0, 0);
  VT_REQUIRE(DataError, status == BZ_OK, "[data] {}: broken bzip2: {}", where.text(),
             status == BZ_OUTBUFF_FULL     ? "more bytes than the chunk has"
             : status == BZ_UNEXPECTED_EOF ? "cut off"
                                           : "damaged");
  return bytes;
}

}  // namespace vitrail::io
