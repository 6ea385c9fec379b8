#pragma once
/// NumPy's .npy files: one array of plain numbers.
///
/// Format   numpy.lib.format versions 1 to 3; booleans, integers and floats of 16 to 64 bits in both
///          byte orders and both orders of axes. Refused: complex, text, objects, records.
/// Errors   DataError naming the file.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "vitrail/io/array.h"

namespace vitrail::core {
class MappedFile;
}

namespace vitrail::io {

/// A checked file over a memory map. Cheap to copy; copies share the map.
class NpyFile {
 public:
  static NpyFile open(const std::string& path);
  /// The same for a file in memory, which must outlive the object; `name` is for messages.
  static NpyFile parse(std::span<const std::byte> file, const std::string& name);

  core::DType dtype() const { return dtype_; }
  /// True: bytes() are in the other order than the machine's.
  bool is_big_endian() const { return is_big_endian_; }
  const std::vector<int64_t>& shape() const { return shape_; }
  /// True: the first axis varies fastest.
  bool fortran_order() const { return fortran_order_; }
  int64_t count() const { return static_cast<int64_t>(data_.size()) / core::size_bytes(dtype_); }
  std::span<const std::byte> bytes() const { return data_; }

 private:
  std::shared_ptr<const core::MappedFile> map_;
  std::span<const std::byte> data_;
  core::DType dtype_ = core::DType::f32;
  bool is_big_endian_ = false;
  std::vector<int64_t> shape_;
  bool fortran_order_ = false;
};

/// The same as an array of which boxes are read; the file is mapped.
std::unique_ptr<ArrayFile> open_npy(const std::string& path);
/// For a file in memory, which `owner` keeps (null: the caller does).
std::unique_ptr<ArrayFile> parse_npy(std::span<const std::byte> file,
                                     std::shared_ptr<const void> owner, const std::string& name);

/// Writes a row-major array atomically.
/// throws   Error for bf16, which NumPy does not know, and for a negative size.
void write_npy(const std::string& path, core::DType dtype, std::span<const int64_t> shape,
               const void* data);

}  // namespace vitrail::io
