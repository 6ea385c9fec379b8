#include "vitrail/io/zarr_file.h"

#include <cerrno>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vitrail/core/error.h"

namespace vitrail::io {
namespace {

[[noreturn]] void refuse(const std::string& path, const char* what, int error) {
  core::fail<core::DataError>("[data] {}: cannot be {}: {}", path, what,
                              std::generic_category().message(error));
}

}  // namespace

std::shared_ptr<const OpenFile> OpenFile::open(const std::string& path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) {
    if (errno == ENOENT) return nullptr;
    refuse(path, "opened", errno);
  }
  const std::shared_ptr<OpenFile> file(new OpenFile(path, descriptor));
  struct stat status {};
  if (::fstat(descriptor, &status) != 0) refuse(path, "read", errno);
  if (!S_ISREG(status.st_mode)) refuse(path, "read", S_ISDIR(status.st_mode) ? EISDIR : ENODEV);
  file->bytes_ = status.st_size;
  return file;
}

OpenFile::~OpenFile() { ::close(descriptor_); }

void OpenFile::read(int64_t offset, std::span<std::byte> bytes) const {
  size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t got = ::pread(descriptor_, bytes.data() + done, bytes.size() - done,
                                offset + static_cast<int64_t>(done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) refuse(path_, "read", errno);
    VT_REQUIRE(DataError, got > 0, "[data] {}: ends at byte {} but {} more are needed", path_,
               offset + static_cast<int64_t>(done), bytes.size() - done);
    done += static_cast<size_t>(got);
  }
}

}  // namespace vitrail::io
