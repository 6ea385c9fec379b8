#include "vitrail/io/image_file.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <system_error>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vitrail/core/error.h"

namespace vitrail::io {
namespace {

class Descriptor {
 public:
  explicit Descriptor(const std::string& path)
      : value_(::open(path.c_str(), O_RDONLY | O_CLOEXEC)) {}
  ~Descriptor() {
    if (value_ >= 0) ::close(value_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return value_; }

 private:
  int value_;
};

[[noreturn]] void fail_reading(const std::string& path, const char* what, int error) {
  core::fail<core::DataError>("[data] {}: cannot be {}: {}", path, what,
                              std::generic_category().message(error));
}

void check_length(const std::string& path, int64_t bytes, int64_t max_bytes) {
  VT_REQUIRE(DataError, bytes <= max_bytes,
             "[data] {}: must be at most {} bytes long but got {} or more", path, max_bytes, bytes);
}

}  // namespace

void FileBuffer::reserve(size_t capacity, size_t used) {
  if (capacity <= capacity_ && (capacity_ <= kKept || capacity > kKept)) return;
  auto grown = std::make_unique_for_overwrite<std::byte[]>(capacity);
  if (used > 0) std::memcpy(grown.get(), bytes_.get(), used);
  bytes_ = std::move(grown);
  capacity_ = capacity;
}

std::span<const std::byte> FileBuffer::read(const std::string& path, int64_t max_bytes) {
  constexpr size_t kLeast = size_t{64} << 10;
  const Descriptor file(path);
  if (file.get() < 0) fail_reading(path, "opened", errno);
  struct stat status {};
  if (::fstat(file.get(), &status) != 0) fail_reading(path, "read", errno);
  if (S_ISDIR(status.st_mode))
    core::fail<core::DataError>("[data] {}: must be a file but is a folder", path);
  check_length(path, status.st_size, max_bytes);
  const auto length = static_cast<size_t>(status.st_size);
  // One byte more than the file has: a read that leaves it free has met the end, and a second one
  // that says so is spared.
  reserve(std::max(length + 1, kLeast), 0);
  for (size_t used = 0;;) {
    if (used == capacity_) reserve(2 * capacity_, used);
    const size_t room = std::min<size_t>(capacity_ - used, size_t{1} << 30);
    const ssize_t got = ::read(file.get(), bytes_.get() + used, room);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail_reading(path, "read", errno);
    used += static_cast<size_t>(got);
    check_length(path, static_cast<int64_t>(used), max_bytes);
    const bool is_whole = S_ISREG(status.st_mode) && used == length && used > 0;
    if (got == 0 || is_whole) return {bytes_.get(), used};
  }
}

}  // namespace vitrail::io
