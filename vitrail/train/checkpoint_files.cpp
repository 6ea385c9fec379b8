#include "vitrail/train/checkpoint_files.h"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <system_error>
#include <thread>
#include <utility>

#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "vitrail/core/error.h"

namespace vitrail::train {

namespace {

using core::CheckpointError;
using core::fail;

/// Pieces of a write: small enough that a kill or a full disk is met between them.
constexpr size_t kWriteBytes = 8u << 20;

[[noreturn]] void fail_system(const char* action, const std::string& path, int error) {
  const bool full = error == ENOSPC || error == EDQUOT || error == EFBIG;
  fail<CheckpointError>("[checkpoint] {}: cannot {}: {}{}", path, action,
                        std::generic_category().message(error),
                        full ? "; free space or lower checkpoint.keep" : "");
}

template <class Call>
auto retry_interrupted(Call&& call) {
  auto result = call();
  while (result == -1 && errno == EINTR) result = call();
  return result;
}

/// Closes on every way out.
struct Descriptor {
  int value;
  ~Descriptor() {
    if (value >= 0) ::close(value);
  }
};

void sync_descriptor(int descriptor, const std::string& path) {
  if (retry_interrupted([&] { return ::fsync(descriptor); }) != 0)
    fail_system("flush it to the disk", path, errno);
}

}  // namespace

void FileOperations::before(std::string_view operation, const std::string& path) const {
  if (before_) before_(operation, path);
}

void FileOperations::make_folder(const std::string& path) const {
  before("mkdir", path);
  if (::mkdir(path.c_str(), 0777) != 0) fail_system("create the folder", path, errno);
}

void FileOperations::write_file(const std::string& path,
                                const std::vector<std::string_view>& parts) const {
  before("open", path);
  Descriptor file{::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666)};
  if (file.value < 0)
    fail_system(errno == ENOENT ? "create it (is the folder on a file system that all ranks share?)"
                                : "create it",
                path, errno);
  for (std::string_view part : parts) {
    while (!part.empty()) {
      before("write", path);
      const ssize_t written = retry_interrupted(
          [&] { return ::write(file.value, part.data(), std::min(part.size(), kWriteBytes)); });
      if (written < 0) fail_system("write", path, errno);
      part.remove_prefix(static_cast<size_t>(written));
    }
  }
  before("fsync", path);
  sync_descriptor(file.value, path);
  // Network file systems may report a full disk only here.
  if (::close(std::exchange(file.value, -1)) != 0) fail_system("write", path, errno);
}

void FileOperations::sync_folder(const std::string& path) const {
  before("fsync", path);
  const Descriptor folder{::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
  if (folder.value < 0) fail_system("open the folder", path, errno);
  // Some network file systems cannot flush a folder; they order the names themselves.
  if (retry_interrupted([&] { return ::fsync(folder.value); }) != 0 && errno != EINVAL &&
      errno != ENOTSUP)
    fail_system("flush it to the disk", path, errno);
}

void FileOperations::put_in_place(const std::string& from, const std::string& to) const {
  before("rename", to);
  if (::rename(from.c_str(), to.c_str()) == 0) return;
  if (errno != ENOTEMPTY && errno != EEXIST)
    fail_system("rename the finished checkpoint to it", to, errno);
  // A checkpoint of this step is there already: exchange the two, so that there is no moment
  // without one.
  constexpr unsigned kExchange = 2;  // RENAME_EXCHANGE
  if (::syscall(SYS_renameat2, AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), kExchange) == 0)
    return;
  const std::string aside = from + "-old";
  if (::rename(to.c_str(), aside.c_str()) != 0)
    fail_system("move the old checkpoint aside", to, errno);
  before("rename", to);
  if (::rename(from.c_str(), to.c_str()) != 0) {
    const int error = errno;
    ::rename(aside.c_str(), to.c_str());
    fail_system("rename the finished checkpoint to it", to, error);
  }
  ::rename(aside.c_str(), from.c_str());
}

InputFile::InputFile(std::string path) : path_(std::move(path)) {
  // Without O_NONBLOCK a named pipe in a hostile folder would make open() wait for ever.
  descriptor_ = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (descriptor_ < 0) fail_system("open it", path_, errno);
  struct stat status {};
  const bool regular = ::fstat(descriptor_, &status) == 0 && S_ISREG(status.st_mode);
  if (!regular) {
    ::close(descriptor_);
    fail<CheckpointError>("[checkpoint] {}: must be a regular file", path_);
  }
  size_ = status.st_size;
}

InputFile::~InputFile() { ::close(descriptor_); }

void InputFile::read(int64_t offset, void* out, int64_t bytes) const {
  auto* place = static_cast<char*>(out);
  while (bytes > 0) {
    const ssize_t got = retry_interrupted(
        [&] { return ::pread(descriptor_, place, static_cast<size_t>(bytes), offset); });
    if (got < 0) fail_system("read", path_, errno);
    VT_REQUIRE(CheckpointError, got > 0, "[checkpoint] {}: ends {} bytes too early", path_, bytes);
    place += got;
    offset += got;
    bytes -= got;
  }
}

std::string read_text(const std::string& path, int64_t limit) {
  const InputFile file(path);
  VT_REQUIRE(CheckpointError, file.size() <= limit,
             "[checkpoint] {}: {} bytes are more than the limit of {}", path, file.size(), limit);
  std::string text(static_cast<size_t>(file.size()), '\0');
  file.read(0, text.data(), file.size());
  return text;
}

FolderLock::FolderLock(const std::string& folder, double seconds) {
  const std::string path = folder + "/.lock";
  descriptor_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (descriptor_ < 0) fail_system("create it", path, errno);
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  while (::flock(descriptor_, LOCK_EX | LOCK_NB) != 0 && (errno == EWOULDBLOCK || errno == EINTR)) {
    if (std::chrono::steady_clock::now() > end) {
      ::close(descriptor_);
      fail<CheckpointError>(
          "[checkpoint] {}: another process saves checkpoints here; give this run another run.name",
          folder);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
}

FolderLock::~FolderLock() { ::close(descriptor_); }

}  // namespace vitrail::train
