#include <memory>

#include <zstd.h>

#include "vitrail/core/error.h"
#include "vitrail/io/codec.h"

namespace vitrail::io {

size_t decode_zstd(std::span<const std::byte> stored, std::span<std::byte> plain,
                   const Where& where) {
  thread_local const std::unique_ptr<ZSTD_DCtx, size_t (*)(ZSTD_DCtx*)> context(::ZSTD_createDCtx(),
                                                                                &::ZSTD_freeDCtx);
  VT_CHECK(context != nullptr, "[zstd] no memory");
  const size_t got = ::ZSTD_decompressDCtx(context.get(), plain.data(), plain.size(), stored.data(),
                                           stored.size());
  VT_REQUIRE(DataError, ::ZSTD_isError(got) == 0, "[data] {}: broken zstd: {}", where.text(),
             ::ZSTD_getErrorName(got));
  return got;
}

}  // namespace vitrail::io
