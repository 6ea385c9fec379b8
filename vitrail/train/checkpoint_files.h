#pragma once
/// File operations of checkpoints: every one is checked, and names its path and the system's reason
/// when it fails.

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace vitrail::train {

constexpr std::string_view kManifestName = "manifest.json";

/// Called before an operation; may throw.
using OperationHook = std::function<void(std::string_view operation, const std::string& path)>;

/// What a save does to the file system, in one place so that tests can make any of it fail.
/// Errors   CheckpointError.
class FileOperations {
 public:
  explicit FileOperations(OperationHook before = {}) : before_(std::move(before)) {}
  void make_folder(const std::string& path) const;
  /// Creates `path`, which must not exist, writes the parts one after another, flushes it to the
  /// disk.
  void write_file(const std::string& path, const std::vector<std::string_view>& parts) const;
  /// Flushes a folder's list of names.
  void sync_folder(const std::string& path) const;
  /// Puts the folder `from` in the place of `to` in one move; a folder that was there ends up at
  /// `from`.
  void put_in_place(const std::string& from, const std::string& to) const;

 private:
  void before(std::string_view operation, const std::string& path) const;
  OperationHook before_;
};

/// A file open for reading.
/// Errors   CheckpointError, also when a read ends early.
class InputFile {
 public:
  /// Must be a regular file.
  explicit InputFile(std::string path);
  ~InputFile();
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;
  int64_t size() const { return size_; }
  void read(int64_t offset, void* out, int64_t bytes) const;

 private:
  std::string path_;
  int descriptor_ = -1;
  int64_t size_ = 0;
};

/// The whole of a small file; refused beyond `limit` bytes.
std::string read_text(const std::string& path, int64_t limit);

/// An advisory lock on FOLDER/.lock, held as long as the object lives and gone with the process,
/// however it ends.
class FolderLock {
 public:
  /// Waits up to `seconds`; throws CheckpointError when another process holds it. File systems
  /// without locks are taken as unlocked.
  FolderLock(const std::string& folder, double seconds);
  ~FolderLock();
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;

 private:
  int descriptor_ = -1;
};

}  // namespace vitrail::train
