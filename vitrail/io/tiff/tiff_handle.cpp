#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstring>

#include "vitrail/core/error.h"
#include "vitrail/core/text.h"
#include "vitrail/io/tiff/tiff_pages.h"

namespace vitrail::io {
namespace {

// What libtiff itself may allocate at once: tables of a directory. Pieces are read into our memory.
[[maybe_unused]] constexpr tmsize_t kMaxTable = tmsize_t{1} << 28;

extern "C" {
tmsize_t tiff_on_read(thandle_t handle, void* to, tmsize_t bytes) {
  auto* tiff = static_cast<TiffHandle*>(handle);
  if (tiff->at > tiff->file.size() || bytes < 0) return 0;
  const size_t n = std::min(static_cast<size_t>(bytes), tiff->file.size() - tiff->at);
  if (n > 0) std::memcpy(to, tiff->file.data() + tiff->at, n);
  tiff->at += n;
  return static_cast<tmsize_t>(n);
}
tmsize_t tiff_on_write(thandle_t, void*, tmsize_t) { return 0; }
toff_t tiff_on_seek(thandle_t handle, toff_t offset, int whence) {
  auto* tiff = static_cast<TiffHandle*>(handle);
  const uint64_t from = whence == SEEK_CUR ? tiff->at : whence == SEEK_END ? tiff->file.size() : 0;
  return tiff->at = from + offset;
}
int tiff_on_close(thandle_t) { return 0; }
toff_t tiff_on_size(thandle_t handle) { return static_cast<TiffHandle*>(handle)->file.size(); }
int tiff_on_map(thandle_t handle, void** base, toff_t* size) {
  const auto* tiff = static_cast<TiffHandle*>(handle);
  *base = const_cast<std::byte*>(tiff->file.data());
  *size = tiff->file.size();
  return 1;
}
void tiff_on_unmap(thandle_t, void*, toff_t) {}

/// libtiff hands out the file it speaks of; its first words are the cause.
void tiff_on_error(thandle_t handle, const char*, const char* format, va_list arguments) {
  auto* tiff = static_cast<TiffHandle*>(handle);
  if (tiff == nullptr || !tiff->message.empty()) return;
  char text[256];
  std::vsnprintf(text, sizeof text, format, arguments);
  try {
    tiff->message = core::printable(text);
  } catch (...) {  // must not pass through libtiff; the message stays empty
  }
}
}

/// libtiff prints to stderr unless told otherwise, once for the whole process.
void silence() {
  static const bool once = [] {
    TIFFSetWarningHandler(nullptr);
    TIFFSetWarningHandlerExt(nullptr);
    TIFFSetErrorHandler(nullptr);
    TIFFSetErrorHandlerExt(tiff_on_error);
    return true;
  }();
  static_cast<void>(once);
}

TIFF* open(const char* name, TiffHandle* handle) {
#if TIFFLIB_VERSION >= 20221213  // 4.5.0 brought limits
  TIFFOpenOptions* options = TIFFOpenOptionsAlloc();
  if (options == nullptr) return nullptr;
  TIFFOpenOptionsSetMaxSingleMemAlloc(options, kMaxTable);
  TIFF* tiff = TIFFClientOpenExt(name, "r", handle, tiff_on_read, tiff_on_write, tiff_on_seek,
                                 tiff_on_close, tiff_on_size, tiff_on_map, tiff_on_unmap, options);
  TIFFOpenOptionsFree(options);
  return tiff;
#else
  return TIFFClientOpen(name, "r", handle, tiff_on_read, tiff_on_write, tiff_on_seek, tiff_on_close,
                        tiff_on_size, tiff_on_map, tiff_on_unmap);
#endif
}

}  // namespace

TiffHandle::TiffHandle(std::span<const std::byte> bytes, const std::string& name)
    : file(bytes), name_(name) {
  silence();
  tiff_ = open(name_.c_str(), this);
  if (tiff_ == nullptr) fail("must be a TIFF file");
}

TiffHandle::~TiffHandle() {
  if (tiff_ != nullptr) TIFFClose(tiff_);
}

void TiffHandle::fail(const std::string& what) const {
  core::fail<core::DataError>("[data] {}: {}{}{}", name_, what, message.empty() ? "" : ": ",
                              message);
}

void TiffHandle::require(bool fine, const char* what) const {
  if (!fine) fail(fmt::format("broken TIFF: {}", what));
}

}  // namespace vitrail::io
