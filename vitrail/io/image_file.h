#pragma once
/// Bytes of many small files, one after another, without a new allocation for each.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

namespace vitrail::io {

/// Memory that holds one file at a time; one object a thread.
///
/// Memory   that of the longest file read so far, up to kKept; what is longer is given back with the
///          next file.
class FileBuffer {
 public:
  static constexpr size_t kKept = size_t{16} << 20;

  /// The file's bytes, until the next read.
  /// throws   DataError naming the path, with the words of core::read_file.
  std::span<const std::byte> read(const std::string& path, int64_t max_bytes);

  size_t capacity() const { return capacity_; }

 private:
  /// Keeps the first `used` bytes.
  void reserve(size_t capacity, size_t used);

  std::unique_ptr<std::byte[]> bytes_;
  size_t capacity_ = 0;
};

}  // namespace vitrail::io
