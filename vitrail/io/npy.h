#pragma once
/// NumPy's .npy files: one array of plain numbers.
///
/// Format   numpy.lib.format versions 1 to 3, little-endian (or one byte wide).
/// Errors   DataError naming the file.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "vitrail/core/dtype.h"

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
  const std::vector<int64_t>& shape() const { return shape_; }
  /// True: the first axis varies fastest.
  bool fortran_order() const { return fortran_order_; }
  int64_t count() const { return static_cast<int64_t>(data_.size()) / core::size_bytes(dtype_); }
  std::span<const std::byte> bytes() const { return data_; }

 private:
  std::shared_ptr<const core::MappedFile> map_;
  std::span<const std::byte> data_;
  core::DType dtype_ = core::DType::f32;
  std::vector<int64_t> shape_;
  bool fortran_order_ = false;
};

/// Writes a row-major array atomically.
/// throws   Error for bf16, which NumPy does not know, and for a negative size.
void write_npy(const std::string& path, core::DType dtype, std::span<const int64_t> shape,
               const void* data);

}  // namespace vitrail::io
