#pragma once
/// A file as memory, read only.

#include <cstddef>
#include <span>
#include <string>

namespace vitrail::core {

/// Maps the whole file; an empty file gives no bytes. Movable, not copyable; the bytes live as long
/// as the object. Errors   DataError naming the path. A file that another process shortens
/// meanwhile ends the program (SIGBUS), as
///          with every map.
class MappedFile {
 public:
  explicit MappedFile(const std::string& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace vitrail::core
