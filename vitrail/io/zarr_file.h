#pragma once
/// A file read at places, by any number of threads.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

namespace vitrail::io {

/// Errors   DataError naming the path.
class OpenFile {
 public:
  /// Null if there is no such file.
  static std::shared_ptr<const OpenFile> open(const std::string& path);
  ~OpenFile();
  OpenFile(const OpenFile&) = delete;
  OpenFile& operator=(const OpenFile&) = delete;

  const std::string& path() const { return path_; }
  int64_t bytes() const { return bytes_; }  // when it was opened

  /// Fills `bytes` from `offset` on; the file must be long enough.
  void read(int64_t offset, std::span<std::byte> bytes) const;

 private:
  OpenFile(std::string path, int descriptor) : path_(std::move(path)), descriptor_(descriptor) {}

  std::string path_;
  int descriptor_ = -1;
  int64_t bytes_ = 0;
};

}  // namespace vitrail::io
