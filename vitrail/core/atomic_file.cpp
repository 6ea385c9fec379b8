#include "vitrail/core/atomic_file.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <filesystem>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vitrail/core/error.h"

namespace vitrail::core {
namespace {

std::string reason(int error) { return std::generic_category().message(error); }

class Descriptor {
 public:
  Descriptor(const std::string& path, int flags, mode_t mode = 0)
      : value_(::open(path.c_str(), flags | O_CLOEXEC, mode)) {}
  ~Descriptor() {
    if (value_ >= 0) ::close(value_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  explicit operator bool() const { return value_ >= 0; }
  int get() const { return value_; }
  /// Network file systems report a full disk only here.
  int close() { return ::close(std::exchange(value_, -1)); }

 private:
  int value_;
};

std::string parent_of(const std::string& path) {
  const std::string parent = std::filesystem::path(path).parent_path().string();
  return parent.empty() ? "." : parent;
}

[[noreturn]] void fail_to_write(const std::string& path, int error) {
  fail("[file] {}: cannot be written: {}{}", path, reason(error),
       error == ENOSPC || error == EDQUOT ? "; free space or choose another folder" : "");
}

void write_and_sync(const std::string& path, std::string_view bytes) {
  Descriptor file(path, O_WRONLY | O_CREAT | O_EXCL, 0644);
  if (!file) fail_to_write(path, errno);
  write_all(file.get(), bytes, path);
  if (::fsync(file.get()) != 0 || file.close() != 0) fail_to_write(path, errno);
}

}  // namespace

void write_all(int descriptor, std::string_view bytes, const std::string& path) {
  while (!bytes.empty()) {
    // Linux writes at most 2 GiB - 4 KiB at once.
    const ssize_t written =
        ::write(descriptor, bytes.data(), std::min<size_t>(bytes.size(), 1u << 30));
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) fail_to_write(path, written < 0 ? errno : EIO);
    bytes.remove_prefix(static_cast<size_t>(written));
  }
}

std::string temporary_name(const std::string& path) {
  static std::atomic<uint64_t> counter{0};
  return fmt::format("{}.tmp-{}-{}", path, ::getpid(), counter++);
}

void move_into_place(const std::string& temporary, const std::string& path) {
  if (::rename(temporary.c_str(), path.c_str()) != 0) fail_to_write(path, errno);
  fsync_parent(path);
}

void remove_quietly(const std::string& path) noexcept { ::unlink(path.c_str()); }

void write_file_atomic(const std::string& path, std::string_view bytes) {
  replace_file(path, [&](const std::string& temporary) {
    write_and_sync(temporary, bytes);
    return true;
  });
}

void fsync_path(const std::string& path) {
  Descriptor file(path, O_RDONLY);
  if (!file) fail("[file] {}: cannot be opened: {}", path, reason(errno));
  // EINVAL: the file system (some network and special ones) has nothing to flush.
  if (::fsync(file.get()) != 0 && errno != EINVAL)
    fail("[file] {}: cannot be flushed to disk: {}", path, reason(errno));
}

void fsync_parent(const std::string& path) { fsync_path(parent_of(path)); }

std::string read_file(const std::string& path, int64_t max_bytes) {
  Descriptor file(path, O_RDONLY);
  if (!file) fail<DataError>("[data] {}: cannot be opened: {}", path, reason(errno));
  struct stat status {};
  if (::fstat(file.get(), &status) != 0)
    fail<DataError>("[data] {}: cannot be read: {}", path, reason(errno));
  if (S_ISDIR(status.st_mode)) fail<DataError>("[data] {}: must be a file but is a folder", path);
  const auto too_long = [&](int64_t bytes) {
    VT_REQUIRE(DataError, bytes <= max_bytes,
               "[data] {}: must be at most {} bytes long but got {} or more", path, max_bytes,
               bytes);
  };
  too_long(status.st_size);

  constexpr size_t kChunk = 1 << 16;
  std::string bytes;
  bytes.reserve(static_cast<size_t>(status.st_size) + 1);
  for (size_t used = 0;;) {
    bytes.resize(std::max(used + kChunk, static_cast<size_t>(status.st_size) + 1));
    const ssize_t got = ::read(file.get(), bytes.data() + used, bytes.size() - used);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail<DataError>("[data] {}: cannot be read: {}", path, reason(errno));
    used += static_cast<size_t>(got);
    too_long(static_cast<int64_t>(used));
    if (got == 0) {
      bytes.resize(used);
      return bytes;
    }
  }
}

void make_directories(const std::string& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  // With a trailing slash create_directories reports success or failure differently by library
  // version: look.
  if (!std::filesystem::is_directory(path))
    fail("[file] {}: cannot be made: {}", path,
         error ? error.message() : "a file of that name is there");
}

}  // namespace vitrail::core
